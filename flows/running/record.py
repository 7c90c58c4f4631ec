"""Around a run's work: its record beats while it goes on, and says how it ended."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.running import signals
from flows.running.beat import beating
from storage import runs
from storage.errors import MetricsError
from storage.files.atomic import remove_empty, remove_leftovers
from storage.files.layout import OutputLayout
from storage.files.location import not_written
from storage.results import metrics

_QUICKLY_JOINED = 200  # parts; joining more, or looking through all folders of an output, takes longer than a stop may
_open: dict[str, "OpenRun"] = {}  # runs of this process that go on


class OpenRun:
    """A run that goes on.

    Args:
        out: The output it writes to.
        run_id: Its id.
    """

    def __init__(self, out: OutputLayout, run_id: str) -> None:
        self.out, self.run_id = out, run_id
        self.at_work: dict[str, Path] = {}  # track → the folder in which a worker may be writing

    def tidy(self) -> None:
        """Delete what workers that are gone have left half-written, and join the run's rows. After a signal the rows
        stay in parts where joining them takes long: the next run over the output does it.
        """
        out, run_id = self.out, self.run_id
        for folder in (out.staging, out.players(run_id), out.tracebacks(run_id), *set(self.at_work.values())):
            remove_leftovers(folder, deep=False)
            remove_empty(folder, below=out.root)
        with contextlib.suppress(OSError):  # on a full disk the rows stay in parts, too
            if not signals.has_come() or len(metrics.row_files(out, run_id)) <= _QUICKLY_JOINED:
                metrics.compact(out, run_id)


@contextlib.contextmanager
def recorded(out: OutputLayout, run_id: str, parameters: dict[str, Any]) -> Iterator[OpenRun]:
    """Write a run's record, renew its beat while the body works, and end it where the body leaves by an exception.

    The record says "stopped" after Ctrl-C, a signal or a cancellation, "failed" after an error. In both cases the run's
    rows are kept and nothing is left half-written; the body must have ended its workers.

    Args:
        out: The output the run writes to.
        run_id: The run.
        parameters: The run's parameters, as the record keeps them; values that JSON can hold.

    Yields:
        The run, in which the body notes the folders that its workers write to.

    Raises:
        MetricsError: Another run has begun over the same output since that was last checked.
        OutputError: The body, or the record itself, met a full disk or could not write a file of the output.
    """
    # Before the record is there: a signal may come at any moment, and no record may say forever that its run goes on.
    run = _open[run_id] = OpenRun(out, run_id)
    try:
        runs.begin(out, run_id, parameters)
        with beating(runs.BEAT_SECONDS, lambda: runs.beat(out, run_id)):
            runs.refuse_company(out, run_id)
            try:
                yield run
            except BaseException:
                run.tidy()
                raise
    except BaseException as error:
        # What a user or Prefect stops a run by (KeyboardInterrupt, TerminationSignal, CancelledError) is no Exception.
        failed = isinstance(error, Exception) and not signals.has_come()
        state = runs.FAILED if failed else runs.STOPPED
        # Without a record there is nothing to end; on a full disk the error that says so is the one to see.
        with contextlib.suppress(OSError, MetricsError):
            runs.end(out, run_id, state, {"error": f"{type(error).__name__}: {error}".rstrip(": ")})
        if isinstance(error, OSError) and _of_output(out, error):
            raise not_written(out.root, error) from error
        raise
    finally:
        _open.pop(run_id, None)
        runs.fall_silent(out, run_id)


def _of_output(out: OutputLayout, error: OSError) -> bool:
    """Does the error say that the output cannot be written?"""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or str(error.filename or "").startswith(str(out.root))


def stop_all() -> None:
    """Close the records of runs that are still open, when this process has to leave in the middle of them.

    Their workers must be gone: what those left half-written is deleted, what is finished is kept.
    """
    for run_id, run in list(_open.items()):
        with contextlib.suppress(OSError, MetricsError):  # its record was not written yet
            runs.end(run.out, run_id, runs.STOPPED, {})
        runs.fall_silent(run.out, run_id)
        run.tidy()


@contextlib.contextmanager
def swept(folder: Path) -> Iterator[None]:
    """Around the workers of a run without a record: what they left half-written is deleted if it is stopped or fails.

    Args:
        folder: Where they write; the folders in it are searched too.
    """
    try:
        yield
    except BaseException:
        remove_leftovers(folder)
        raise
