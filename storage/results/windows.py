"""The scores of every window, where medians are not enough: OUT/windows/run_id=<run>/<part>.parquet."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.files.layout import OutputLayout
from storage.results import parquet
from storage.results.parquet import RunFile
from storage.results.separation_rows import PREDICTIONS, SCORES, WindowScores

SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("model_id", pa.string()),
        ("track_id", pa.string()),
        ("stem", pa.string()),
        ("window", pa.int32()),
        *((name, pa.float64()) for name in (*SCORES, *PREDICTIONS)),
        ("scored", pa.bool_()),
    ]
)


def joined(windows: list[WindowScores]) -> list[WindowScores]:
    """One entry per model, track and stem: scores and predictions of the same windows side by side.

    Args:
        windows: Entries, of which several may share model, track and stem; the last one to have a column gives it.
    """
    stems: dict[tuple[str, str, str], WindowScores] = {}
    for entry in windows:
        key = (entry.model_id, entry.track_id, entry.stem)
        known = {name: getattr(entry, name) for name in (*SCORES, *PREDICTIONS) if getattr(entry, name)}
        stems[key] = replace(stems[key], **known) if key in stems else entry
    return list(stems.values())


def write_windows(out: OutputLayout, run_id: str, scores: list[WindowScores]) -> Path | None:
    """Write a batch's windows as one part, named by its track ids.

    Args:
        out: The output's layout.
        run_id: The run that made the windows.
        scores: All windows of the batch's tracks, scores and predictions in any order.

    Returns:
        The part; None where there are no windows.
    """
    if not scores:
        return None
    name = hashlib.sha256("\n".join(sorted({s.track_id for s in scores})).encode()).hexdigest()[:20]
    rows = [{"run_id": run_id, **row} for entry in joined(scores) for row in entry.rows()]
    target = out.run_windows(run_id) / f"part-{name}.parquet"
    return parquet.write_file(parquet.table(rows, SCHEMA), target, out.staging)


def read_windows(out: OutputLayout, run_id: str | None = None) -> pa.Table:
    """All windows in memory, one row per window, of one run or of all.

    Args:
        out: The output's layout.
        run_id: The run; None for all.

    Returns:
        The columns of `SCHEMA`; scores and predicted SDR in dB.

    Raises:
        MetricsError: A file cannot be read.
    """
    return parquet.read(window_files(out, run_id), SCHEMA)


def window_files(out: OutputLayout, run_id: str | None = None) -> list[RunFile]:
    """The Parquet files of windows, of one run or of all.

    Args:
        out: The output's layout.
        run_id: The run; None for all.
    """
    return parquet.run_files(out.windows, run_id)


def modernise(out: OutputLayout) -> None:
    """Bring the files of older versions to today's columns. Only for the process that writes to `out`.

    Args:
        out: The output's layout.
    """
    parquet.modernise(window_files(out), SCHEMA, out.staging)


def stored_windows(out: OutputLayout) -> list[WindowScores]:
    """The scores of all windows that were compared with a reference, stem by stem in the order they were written.

    Of several runs the latest counts. Windows that were only predicted are left out.

    Args:
        out: The output's layout.

    Returns:
        One entry per model, track and stem, without predictions.

    Raises:
        MetricsError: A file cannot be read.
    """
    scores: dict[tuple[str, str, str], WindowScores] = {}
    for folder in sorted(out.windows.glob("run_id=*"), key=lambda path: path.name.split("-", 1)[-1]):
        stems: dict[tuple[str, str, str], list[dict]] = {}
        for row in read_windows(out, folder.name.removeprefix("run_id=")).to_pylist():
            stems.setdefault((row["model_id"], row["track_id"], row["stem"]), []).append(row)
        for key, rows in stems.items():
            scored = _scored(rows)
            if scored:
                columns: dict[str, Any] = {name: tuple(row[name] for row in scored) for name in SCORES}
                scores[key] = WindowScores(*key, **columns)
    return list(scores.values())


def _scored(rows: list[dict]) -> list[dict]:
    """The windows of one stem that were compared with a reference, in order of time."""
    rows.sort(key=lambda row: row["window"])
    if all(row["scored"] is not None for row in rows):
        return [row for row in rows if row["scored"]]
    # Older versions did not say: a stem without any score was predicted only, where there are predictions.
    predicted = any(row[name] is not None for row in rows for name in PREDICTIONS)
    return rows if not predicted or any(row[name] is not None for row in rows for name in SCORES) else []
