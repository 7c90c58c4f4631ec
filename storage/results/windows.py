"""The scores of every window, for who wants more than medians: OUT/windows/run_id=<run>/<part>.parquet."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.files.layout import OutputLayout
from storage.results import parquet
from storage.results.parquet import RunFile

SCORES = ("sdr", "isr", "sir", "sar")
SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("model_id", pa.string()),
        ("track_id", pa.string()),
        ("stem", pa.string()),
        ("window", pa.int32()),
        *((name, pa.float64()) for name in SCORES),
    ]
)


@dataclass(frozen=True)
class WindowScores:
    """SDR, ISR, SIR and SAR of a stem's windows of one second, in dB; None where a window has none."""

    model_id: str
    track_id: str
    stem: str
    sdr: tuple[float | None, ...]
    isr: tuple[float | None, ...]
    sir: tuple[float | None, ...]
    sar: tuple[float | None, ...]


def write_windows(out: OutputLayout, run_id: str, scores: list[WindowScores]) -> Path | None:
    """Write a batch's windows as one part named by its tracks; None where there are none."""
    if not scores:
        return None
    name = hashlib.sha256("\n".join(sorted({s.track_id for s in scores})).encode()).hexdigest()[:20]
    rows = [
        {
            "run_id": run_id, "model_id": s.model_id, "track_id": s.track_id, "stem": s.stem, "window": index,
            **{name: getattr(s, name)[index] for name in SCORES},
        }
        for s in scores
        for index in range(len(s.sdr))
    ]  # fmt: skip
    target = out.run_windows(run_id) / f"part-{name}.parquet"
    return parquet.write_file(parquet.table(rows, SCHEMA), target, out.staging)


def read_windows(out: OutputLayout, run_id: str | None = None) -> pa.Table:
    """All windows, of one run or of all. Raises MetricsError."""
    return parquet.read(window_files(out, run_id), SCHEMA)


def window_files(out: OutputLayout, run_id: str | None = None) -> list[RunFile]:
    """The Parquet files of windows, of one run or of all."""
    return parquet.run_files(out.windows, run_id)


def modernise(out: OutputLayout) -> None:
    """Bring the files of older versions to today's columns. Only for the process that writes to `out`."""
    parquet.modernise(window_files(out), SCHEMA, out.staging)


def stored_windows(out: OutputLayout) -> list[WindowScores]:
    """All windows as scores of stems, in the order stems were written; of several runs the latest counts."""
    scores: dict[tuple[str, str, str], WindowScores] = {}
    for folder in sorted(out.windows.glob("run_id=*"), key=lambda path: path.name.split("-", 1)[-1]):
        stems: dict[tuple[str, str, str], list[dict]] = {}
        for row in read_windows(out, folder.name.removeprefix("run_id=")).to_pylist():
            stems.setdefault((row["model_id"], row["track_id"], row["stem"]), []).append(row)
        for key, rows in stems.items():
            rows.sort(key=lambda row: row["window"])
            columns: dict[str, Any] = {name: tuple(row[name] for row in rows) for name in SCORES}
            scores[key] = WindowScores(*key, **columns)
    return list(scores.values())
