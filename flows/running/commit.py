"""Results of a batch become rows on disk: the commit mark of its tracks."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from flows.running.fanout import Outcome
from flows.running.orphans import end_orphans
from flows.running.progress import Progress
from storage import runs
from storage.files.atomic import remove_leftovers
from storage.files.layout import OutputLayout
from storage.files.location import not_written
from storage.results import metrics, windows
from storage.results import rows as small_tables
from storage.results.metrics import StemRow
from storage.results.rows import write_rows
from storage.results.windows import WindowScores, write_windows


def commit(out: OutputLayout, run_id: str, results: list[StemRow | WindowScores], line: Progress) -> None:
    """Write a batch's windows, then its rows, and advance the progress line by its tracks.

    The rows come last: they are the commit mark of the batch's tracks.

    Args:
        out: The output that the run writes to.
        run_id: The run.
        results: The batch's rows, one per stem or one per failed track, and the scores of its windows, if any.
        line: The phase's progress.

    Raises:
        OutputError: The output cannot be written.
    """
    rows = [row for row in results if isinstance(row, StemRow)]
    try:
        write_windows(out, run_id, [row for row in results if isinstance(row, WindowScores)])
        metrics.write_part(out, run_id, rows)
    except OSError as error:
        raise not_written(out.root, error) from error
    for row in {row.track_id: row for row in rows}.values():
        line.advance(failed=row.status == metrics.FAILED, audio_seconds=row.duration_s or 0.0)


def commit_rows(
    outcomes: Iterable[Outcome], lost: Callable[[Any, str], Any], out: OutputLayout, run_id: str, line: Progress
) -> list:
    """Write each outcome's rows as it ends, into their table among `storage.results.rows.TABLES`.

    Args:
        outcomes: Outcomes whose results are rows of one kind.
        lost: `lost(item, sentence)` is the row of an item that no worker completed; the sentence says why.
        out: The output that the run writes to.
        run_id: The run.
        line: The phase's progress, advanced by one unit per row; a row with an `error` counts as failed.

    Returns:
        All rows, in the order in which their batches ended.
    """
    committed = []
    for outcome in outcomes:
        rows = outcome.results or [lost(outcome.items[0], outcome.lost or "no result")]
        write_rows(out, run_id, rows)
        committed += rows
        for row in rows:
            line.advance(failed=row.error is not None, audio_seconds=getattr(row, "duration_s", None) or 0.0)
    return committed


def clear_abandoned(out: OutputLayout) -> None:
    """Close the records of runs over this output that were killed, and delete what they left half-written.

    The rows of runs that ended before they had joined them (killed, stopped in a hurry, or on a full disk) become files
    that other programs read. Embedded Prefect servers of killed runs are ended, and tables of older versions are
    brought up to date.

    Args:
        out: The output that a run is about to write to.

    Raises:
        MetricsError: Another run is still writing to it.
    """
    end_orphans()
    abandoned = runs.close_abandoned(out, lambda sentence: print(f"unbraid: {sentence}", file=sys.stderr, flush=True))
    unjoined = metrics.unjoined_runs(out)
    for run_id in {*abandoned, *unjoined}:
        metrics.compact(out, run_id)
    if abandoned or unjoined:
        remove_leftovers(out.root)
    for table in (metrics, windows, small_tables):
        table.modernise(out)
