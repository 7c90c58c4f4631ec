"""The rows of separations, track by track, in columns."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.results import parquet

if TYPE_CHECKING:
    import pyarrow.dataset as ds

# The rows of separations, those of a track together, its latest first. DuckDB sorts on the disk, while an aggregate of
# texts or lists would have to stay in memory.
_SEPARATIONS = """
select track_id, status, model_id, settings_hash, source_fingerprint, stem, stem_path, format, source
from parts where settings_hash is not null and track_id is not null
order by track_id, finished_at desc nulls last
"""


class TrackRow(NamedTuple):
    """One stem of a separation, or one failure; `path` is relative to the output."""

    track_id: str
    status: str
    model: str
    settings: str
    fingerprint: str
    stem: str | None
    path: str | None
    format: str | None
    source: str | None

    @property
    def separation(self) -> tuple[str, str, str]:
        return self.model, self.settings, self.fingerprint


def rows_by_track(rows: "ds.Dataset") -> Iterator[pa.RecordBatch]:
    """All rows of separations, sorted by track, those of a track with the latest first.

    Args:
        rows: The rows of an output.

    Yields:
        Batches with the columns of `TrackRow`, of some 50 000 rows, at least one; all rows of a track are in one.

    Raises:
        MetricsError: The rows cannot be read.
    """
    return _unparted(parquet.select(rows, _SEPARATIONS))


def _unparted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows, sorted by track, cut so that no track's rows are in two batches."""
    rest = None
    for batch in batches:
        rows = batch if rest is None else pa.concat_batches([rest, batch])
        names = rows.column("track_id")
        last = len(rows) - 1
        first = pc.index(names, names[last]).as_py() if len(rows) else 0
        rest = rows.slice(first)
        if first:
            yield rows.slice(0, first)
    if rest is not None and len(rest):
        yield rest


def repeated(rows: pa.RecordBatch, *names: str) -> np.ndarray:
    """Which rows have the same values in some columns, none of them null, as the row before.

    Args:
        rows: At least one row.
        *names: The columns that are compared.

    Returns:
        bool (rows,); False for the first row.
    """
    same = np.zeros(len(rows), bool)
    columns = [rows.column(name) for name in names]
    same[1:] = np.logical_and.reduce([flags(pc.equal(each[1:], each[:-1])) for each in columns])
    return same


def flags(condition: pa.BooleanArray) -> np.ndarray:
    """A condition as numpy's booleans.

    Args:
        condition: What Arrow computed; null, where a value was null, counts as False.

    Returns:
        bool (rows,).
    """
    return condition.fill_null(False).to_numpy(zero_copy_only=False)


def texts(rows: pa.RecordBatch, name: str) -> list:
    """The values of a column of texts, in a tenth of the time that Arrow's `to_pylist` takes.

    Args:
        rows: Any rows.
        name: The column.

    Returns:
        One str per row, or None where it is null.
    """
    return rows.column(name).to_numpy(zero_copy_only=False).tolist()


def tuples(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple]:
    """Rows one by one.

    Args:
        batches: Rows whose columns are all texts.

    Yields:
        One tuple per row, with the values in the columns' order.
    """
    for batch in batches:
        yield from zip(*(texts(batch, name) for name in batch.schema.names), strict=True)
