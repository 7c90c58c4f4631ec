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
    """Write a batch's windows, then its rows, and move the progress line by its tracks."""
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
    """Write each outcome's rows of one of `storage.results.rows` as it ends, and give back all of them.

    `lost(item, sentence)` is the row of an item that no worker brought to its end. A row with an error has failed.
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
    """Close runs that were killed over this output and sweep up after them.

    Raises MetricsError when a run is still writing to it.
    """
    end_orphans()
    abandoned = runs.close_abandoned(out, lambda sentence: print(f"unbraid: {sentence}", file=sys.stderr, flush=True))
    for run_id in abandoned:
        metrics.compact(out, run_id)
    if abandoned:
        remove_leftovers(out.root)
    for table in (metrics, windows, small_tables):
        table.modernise(out)
