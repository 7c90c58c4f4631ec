"""What an output keeps of tracks that no catalog lists any more, and its removal."""

import contextlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa

from storage.files.atomic import remove_empty
from storage.files.layout import OutputLayout
from storage.results import metrics, parquet, rows, windows
from storage.results.parquet import RunFile

# Rows of separations alone: evaluations are of datasets, which are no catalog.
_SEPARATED = """
select track_id, max_by(source, finished_at) as source,
    list(distinct stem_path order by stem_path) filter (status = 'ok' and stem_path is not null) as stems
from parts where settings_hash is not null group by track_id order by track_id
"""
_COUNT = "select count(distinct track_id) from parts where settings_hash is not null"
_STEMS_OF_OTHERS = """
select distinct stem_path from parts
where status = 'ok' and stem_path is not null and track_id not in (select unnest($tracks))
"""
_STEM_FOLDERS = ("stems", "models")
_OF_SEPARATION = "separate-"  # what the ids of its runs begin with
# The small tables with rows about tracks, and the columns that name these.
_NAMING = {"analyses": ("track_id",), "pairs": ("vocals_id", "accompaniment_id")}


@dataclass(frozen=True)
class SeparatedSource:
    """A track of an output: its source, and the stem files of all its separations, relative to the output's folder."""

    track_id: str
    source: str | None
    stems: tuple[str, ...]


def unlisted_tracks(out: OutputLayout, listed: Container[str]) -> Iterator[SeparatedSource]:
    """The separated and the failed tracks of an output that are not listed, sorted by their ids.

    Args:
        out: The output's layout.
        listed: The ids of all tracks of its catalogs.

    Raises:
        MetricsError: The rows cannot be read.
    """
    for batch in parquet.select(metrics.dataset(out), _SEPARATED):
        for row in batch.to_pylist():
            if row["track_id"] not in listed:
                yield SeparatedSource(row["track_id"], row["source"], tuple(row["stems"] or ()))


def count_tracks(out: OutputLayout) -> int:
    """How many tracks have been separated into an output, or have failed to be.

    Args:
        out: The output's layout.

    Raises:
        MetricsError: The rows cannot be read.
    """
    return sum(batch.column(0)[0].as_py() for batch in parquet.select(metrics.dataset(out), _COUNT))


def remove_tracks(out: OutputLayout, tracks: Iterable[SeparatedSource]) -> int:
    """Delete the stems of tracks, then their rows. Only for the process that writes to `out`.

    The rows go last: where this is interrupted, the next call finds by them what is left. A file that a row of another
    track names too stays.

    Args:
        out: The output's layout.
        tracks: What to remove, as `unlisted_tracks` gives it.

    Returns:
        How many stems were deleted.

    Raises:
        MetricsError: The rows cannot be read.
        OSError: A file cannot be deleted.
    """
    tracks = list(tracks)
    names = [track.track_id for track in tracks]
    for run_id in {file.run_id for file in metrics.row_files(out)}:
        metrics.compact(out, run_id)
    stems = {stem for track in tracks for stem in track.stems if _is_a_stem(stem)}
    for batch in parquet.select(metrics.dataset(out), _STEMS_OF_OTHERS, tracks=names):
        stems.difference_update(batch.column(0).to_pylist())
    for stem in sorted(stems):
        path = out.root / stem
        with contextlib.suppress(NotADirectoryError):
            path.unlink(missing_ok=True)
        remove_empty(path.parent, below=out.root)
    gone = pa.array(names, pa.string())
    for file in metrics.row_files(out):
        _keep(out, file, metrics.SCHEMA, lambda batch: _others(batch, gone, "track_id", of_separation=True))
    for file in windows.window_files(out):
        if file.run_id.startswith(_OF_SEPARATION):
            _keep(out, file, windows.SCHEMA, lambda batch: _others(batch, gone, "track_id"))
    for table, columns in _NAMING.items():
        for file in parquet.run_files(out.root / table):
            _keep(out, file, rows.schema(table), lambda batch, columns=columns: _others(batch, gone, *columns))
    return len(stems)


def _is_a_stem(name: str) -> bool:
    """Does a row's path lead into a folder of stems? Rows are data, and may have been written by anybody."""
    parts = PurePosixPath(name).parts
    return len(parts) > 1 and parts[0] in _STEM_FOLDERS and ".." not in parts


def _others(batch: pa.RecordBatch, gone: pa.Array, *columns: str, of_separation: bool = False) -> pa.RecordBatch:
    """The rows of a batch that name none of the tracks to remove."""
    import pyarrow.compute as pc  # a plan, which imports this module, needs none of it

    named = [pc.is_in(batch.column(column), value_set=gone) for column in columns]
    leaving = named[0] if len(named) == 1 else pc.or_(*named)
    if of_separation:
        leaving = pc.and_(leaving, pc.is_valid(batch.column("settings_hash")))
    return batch.filter(pc.invert(leaving))


def _keep(out: OutputLayout, file: RunFile, schema: pa.Schema, keep) -> None:
    """Rewrite a file with only the rows to keep, in one step; it is deleted where no rows are left."""
    source = parquet.dataset([file], schema)
    left = sum(keep(batch).num_rows for batch in source.to_batches())
    if left == source.count_rows():
        return
    if left:
        batches = (keep(batch) for batch in source.to_batches())
        parquet.write_rows(batches, schema, file.path, out.staging, parquet.file_metadata(file.path))
        return
    file.path.unlink(missing_ok=True)
    remove_empty(file.path.parent, below=out.root)
