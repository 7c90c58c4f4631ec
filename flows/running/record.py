"""Around a run's work: its record beats while it goes on, and says how it ended."""

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

from flows.running import signals
from flows.running.beat import beating
from storage import runs
from storage.errors import MetricsError
from storage.files.atomic import remove_leftovers
from storage.files.layout import OutputLayout
from storage.files.location import not_written
from storage.results import metrics

_open: dict[str, OutputLayout] = {}  # runs of this process that go on


@contextlib.contextmanager
def recorded(out: OutputLayout, run_id: str, parameters: dict[str, Any]) -> Iterator[None]:
    """Write a run's record, renew its beat while the body works, and end it where the body leaves by an exception.

    The record says "stopped" after Ctrl-C, a signal or a cancellation, "failed" after an error.

    Args:
        out: The output the run writes to.
        run_id: The run.
        parameters: The run's parameters, as the record keeps them; values that JSON can hold.

    Raises:
        MetricsError: Another run has begun over the same output since that was last checked.
        OutputError: The body, or the record itself, met a full disk or could not write a file of the output.
    """
    # Before the record is there: a signal may come at any moment, and no record may say forever that its run goes on.
    _open[run_id] = out
    try:
        runs.begin(out, run_id, parameters)
        with beating(runs.BEAT_SECONDS, lambda: runs.beat(out, run_id)):
            runs.refuse_company(out, run_id)
            yield
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
    for run_id, out in list(_open.items()):
        with contextlib.suppress(OSError, MetricsError):  # its record was not written yet
            runs.end(out, run_id, runs.STOPPED, {})
        runs.fall_silent(out, run_id)
        remove_leftovers(out.root)
        metrics.compact(out, run_id)
