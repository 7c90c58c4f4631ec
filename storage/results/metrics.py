"""The metrics table: one row per run, model, track and stem, in Parquet under OUT/metrics/run_id=<run>/.

While a run goes on each batch of tracks is a small part; a part that is there is the mark that its
tracks are done. At the end the parts of a run become one sorted file, which names the parts it took
in, so that a crash between the two never counts a row twice.
"""

import datetime
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from storage.files.layout import OutputLayout
from storage.results import parquet

OK, FAILED = "ok", "failed"

# Columns are only ever added, at the end.
SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("model_id", pa.string()),
        ("track_id", pa.string()),
        ("path", pa.string()),
        ("stem", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("sdr", pa.float64()),
        ("isr", pa.float64()),
        ("sir", pa.float64()),
        ("sar", pa.float64()),
        ("sdr_mean", pa.float64()),
        ("usdr", pa.float64()),
        ("si_sdr", pa.float64()),
        ("windows", pa.int32()),
        ("silent_windows", pa.int32()),
        ("duration_s", pa.float64()),
        ("sample_rate", pa.int32()),
        ("channels", pa.int32()),
        ("loudness_lufs", pa.float64()),
        ("true_peak_db", pa.float64()),
        ("activity", pa.float64()),
        ("predicted_sdr", pa.float64()),
        ("seconds", pa.float64()),
        ("finished_at", pa.timestamp("ms", tz="UTC")),
        ("error_class", pa.string()),
        ("stem_path", pa.string()),
        ("scenario", pa.string()),
        ("source_fingerprint", pa.string()),
        ("settings_hash", pa.string()),
        ("magnitude_mse", pa.float64()),
        ("magnitude_snr", pa.float64()),
        ("device", pa.string()),
        ("precision", pa.string()),
        ("predicted_low", pa.float64()),
        ("predicted_high", pa.float64()),
        ("vocal_presence", pa.float64()),
        ("source", pa.string()),
        ("format", pa.string()),
    ]
)
_SORTED_BY = ["track_id", "model_id", "stem"]
_COMPACTED = "metrics.parquet"
_TAKEN_IN = b"unbraid.parts"


@dataclass(frozen=True)
class StemRow:
    """One row. A failed track has one, with `stem` None. Scores are None where there is no reference.

    `scenario` names the stems that were scored together: it decides which windows count as silent. `device` and
    `precision` are those the network ran with, resolved. `predicted_low` and `predicted_high` bound `predicted_sdr`
    (dB); `vocal_presence` is between 0 and 1. `source` is the file or URL that was read, `format` that of the stem's
    file, or the one a failed track was to be written in.
    """

    model_id: str
    track_id: str
    path: str
    stem: str | None
    status: str
    error: str | None = None
    error_class: str | None = None
    sdr: float | None = None
    isr: float | None = None
    sir: float | None = None
    sar: float | None = None
    sdr_mean: float | None = None
    usdr: float | None = None
    si_sdr: float | None = None
    windows: int | None = None
    silent_windows: int | None = None
    magnitude_mse: float | None = None
    magnitude_snr: float | None = None
    scenario: str | None = None
    duration_s: float | None = None
    sample_rate: int | None = None
    channels: int | None = None
    loudness_lufs: float | None = None
    true_peak_db: float | None = None
    activity: float | None = None
    predicted_sdr: float | None = None
    predicted_low: float | None = None
    predicted_high: float | None = None
    vocal_presence: float | None = None
    device: str | None = None
    precision: str | None = None
    seconds: float | None = None
    stem_path: str | None = None
    source_fingerprint: str | None = None
    settings_hash: str | None = None
    source: str | None = None
    format: str | None = None
    finished_at: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))


def write_part(out: OutputLayout, run_id: str, rows: list[StemRow]) -> Path:
    """Write a batch's rows as one part, named by its track ids: the same batch twice is the same file."""
    tracks = sorted({row.track_id for row in rows})
    name = hashlib.sha256("\n".join(tracks).encode()).hexdigest()[:20]
    target = out.run_metrics(run_id) / f"part-{name}.parquet"
    table = pa.Table.from_pylist([{"run_id": run_id, **vars(row)} for row in rows], schema=SCHEMA)
    return parquet.write_part(table, target)


def compact(out: OutputLayout, run_id: str) -> Path | None:
    """Join a run's parts into one sorted file; None where the run wrote none."""
    files = standing_files(out, run_id)
    if not files:
        return None
    target = compacted(out, run_id)
    if files != [target]:
        taken = ",".join(sorted(file.name for file in files if file != target))
        parquet.join_parts(files, SCHEMA, _SORTED_BY, target, {_TAKEN_IN: taken.encode()})
    for part in target.parent.glob("part-*.parquet"):
        part.unlink(missing_ok=True)
    return target


def compacted(out: OutputLayout, run_id: str) -> Path:
    """The file of a run's rows once they are compacted."""
    return out.run_metrics(run_id) / _COMPACTED


def standing_files(out: OutputLayout, run_id: str | None = None) -> list[Path]:
    """The Parquet files whose rows count, of one run or of all; parts already compacted are left out."""
    folders = [out.run_metrics(run_id)] if run_id else sorted(out.metrics.glob("run_id=*"))
    found = []
    for folder in folders:
        compacted = folder / _COMPACTED
        taken: set[str] = set()
        if compacted.exists():
            found.append(compacted)
            taken = set(parquet.part_metadata(compacted).get(_TAKEN_IN, b"").decode().split(","))
        found += [part for part in sorted(folder.glob("part-*.parquet")) if part.name not in taken]
    return found


def read_all(out: OutputLayout, run_id: str | None = None, columns: list[str] | None = None) -> pa.Table:
    """All rows, of one run or of all. Columns that older files lack are null. Raises MetricsError."""
    schema = _columns(columns) if columns else SCHEMA
    tables = [parquet.read_part(file, schema) for file in standing_files(out, run_id)]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _columns(names: list[str]) -> pa.Schema:
    return pa.schema([SCHEMA.field(name) for name in names])
