"""The metrics table: one row per run, model, track and stem, in Parquet under OUT/metrics/run_id=<run>/.

While a run goes on, each batch of tracks is a small part under OUT/runs/<run>/metrics, which no other program reads; a
part that exists marks its tracks as done. At the end the parts of a run become one sorted file, which appears under
OUT/metrics in one step, so that a reader of that folder always sees every row exactly once. The file names the parts
it took in, so that a crash before they are deleted counts no row twice.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from storage.files.atomic import remove_empty
from storage.files.layout import OutputLayout
from storage.results import parquet
from storage.results.parquet import RunFile
from storage.results.separation_rows import FAILED, INTERRUPTED, OK, StemRow

if TYPE_CHECKING:
    import pyarrow.dataset as ds

__all__ = ["FAILED", "INTERRUPTED", "OK", "SCHEMA", "StemRow"]  # of separation_rows too: rows are what is written here

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
        ("unpredicted", pa.string()),
        ("genre", pa.string()),
    ]
)
_SORTED = """
select * from parts
order by track_id nulls last, model_id nulls last, stem nulls last, finished_at desc nulls last
"""
_COMPACTED = "metrics.parquet"
_JOINED = b"unbraid.parts"


def write_part(out: OutputLayout, run_id: str, rows: list[StemRow]) -> Path:
    """Write a batch's rows as one part of a run in progress: the commit mark of the batch's tracks.

    Args:
        out: The output's layout.
        run_id: The run that made the rows.
        rows: All rows of the batch's tracks, at least one per track.

    Returns:
        The part, named by its track ids: the same batch twice is the same file.
    """
    tracks = sorted({row.track_id for row in rows})
    name = hashlib.sha256("\n".join(tracks).encode("utf-8", "surrogatepass")).hexdigest()[:20]
    table = parquet.table([vars(row) for row in rows], parquet.stored(SCHEMA))
    return parquet.write_file(table, out.live_metrics(run_id) / f"part-{name}.parquet", out.staging)


def compact(out: OutputLayout, run_id: str) -> Path | None:
    """Join a run's parts into one sorted file, which appears in one step where other programs read.

    Args:
        out: The output's layout.
        run_id: The run, which may have been compacted before.

    Returns:
        The file; None where the run has no rows.

    Raises:
        MetricsError: A part cannot be read.
    """
    files = row_files(out, run_id)
    if not files:
        return None
    target = compacted(out, run_id)
    if [file.path for file in files] != [target]:
        joined = joined_names(out, run_id) | {file.path.name for file in files if file.path != target}
        metadata = {_JOINED: ",".join(sorted(joined)).encode()}
        rows = parquet.select(parquet.stream(files, SCHEMA), _SORTED)
        parquet.write_rows(_each_once(rows), SCHEMA, target, out.staging, metadata)
    for part in _parts(out, run_id):
        part.unlink(missing_ok=True)
    remove_empty(out.live_metrics(run_id), below=out.runs)
    return target


def modernise(out: OutputLayout) -> None:
    """Bring the files of older versions to today's columns and folders, so that any program reads them as one table.

    Only for the process that writes to `out`.

    Args:
        out: The output's layout.

    Raises:
        MetricsError: A file of a run whose parts an older version left cannot be read.
    """
    for folder in sorted(out.metrics.glob("run_id=*")):
        run_id = folder.name.removeprefix("run_id=")
        if next(folder.glob("part-*.parquet"), None):
            compact(out, run_id)
        parquet.modernise([RunFile(file, run_id) for file in folder.glob("*.parquet")], SCHEMA, out.staging)


def compacted(out: OutputLayout, run_id: str) -> Path:
    """The file of a run's rows once they are compacted.

    Args:
        out: The output's layout.
        run_id: The run.
    """
    return out.run_metrics(run_id) / _COMPACTED


def row_files(out: OutputLayout, run_id: str | None = None) -> list[RunFile]:
    """The Parquet files whose rows count, of one run or of all.

    Parts that a compacted file has taken in are left out, so that a crash between writing it and deleting them counts
    no row twice.

    Args:
        out: The output's layout.
        run_id: The run; None for all.

    Raises:
        MetricsError: A compacted file cannot be read.
    """
    files = []
    for run in [run_id] if run_id else _run_ids(out):
        joined_file = compacted(out, run)
        joined = joined_names(out, run)
        files += [RunFile(joined_file, run)] if joined_file.exists() else []
        files += [RunFile(part, run) for part in _parts(out, run) if part.name not in joined]
    return files


def joined_names(out: OutputLayout, run_id: str) -> set[str]:
    """The file names of the parts that a run's compacted file has taken in; none where there is no such file.

    Args:
        out: The output's layout.
        run_id: The run.

    Raises:
        MetricsError: The compacted file cannot be read.
    """
    file = compacted(out, run_id)
    if not file.exists():
        return set()
    return set(parquet.file_metadata(file).get(_JOINED, b"").decode().split(",")) - {""}


def read_all(out: OutputLayout, run_id: str | None = None, columns: list[str] | None = None) -> pa.Table:
    """All rows in memory, of one run or of all.

    Args:
        out: The output's layout.
        run_id: The run; None for all.
        columns: The columns to read; None for those of `SCHEMA`.

    Returns:
        The rows. Columns that older files lack are null.

    Raises:
        MetricsError: A file cannot be read.
    """
    return parquet.read(row_files(out, run_id), SCHEMA, columns)


def dataset(out: OutputLayout, run_id: str | None = None) -> "ds.Dataset":
    """All rows, of one run or of all, as a dataset from which only what a query needs is read.

    Args:
        out: The output's layout.
        run_id: The run; None for all.

    Raises:
        MetricsError: A file cannot be read.
    """
    return parquet.dataset(row_files(out, run_id), SCHEMA)


def _each_once(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The first of the sorted rows of each track, model and stem: a batch that was lost may have been written twice.

    A row that says that a track was begun is dropped where another says how it ended.
    """
    last: tuple = (None, None, None, None)
    for batch in batches:
        keys = zip(
            *(batch.column(name).to_pylist() for name in ("track_id", "model_id", "stem", "status")), strict=True
        )
        new = []
        for key in keys:
            new.append(key[:3] != last[:3] and not (key[3] == INTERRUPTED and key[:2] == last[:2]))
            last = key
        yield batch if all(new) else batch.filter(pa.array(new))


def unjoined_runs(out: OutputLayout) -> list[str]:
    """The runs whose rows are still in parts, as they are while a run goes on.

    Args:
        out: The output's layout.

    Returns:
        The runs' ids, sorted.
    """
    return sorted(folder.parent.name for folder in out.runs.glob("*/metrics"))


def _run_ids(out: OutputLayout) -> list[str]:
    ended = {folder.name.removeprefix("run_id=") for folder in out.metrics.glob("run_id=*")}
    return sorted(ended.union(unjoined_runs(out)))


def _parts(out: OutputLayout, run_id: str) -> list[Path]:
    """The parts of a run, also where older versions kept them, beside the compacted file."""
    folders = (out.live_metrics(run_id), out.run_metrics(run_id))
    return [part for folder in folders for part in sorted(folder.glob("part-*.parquet"))]
