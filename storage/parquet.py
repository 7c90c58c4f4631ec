"""Parquet parts: written whole or not at all, read with the columns that today's schema has."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.atomic import replacing
from storage.errors import MetricsError


def write_part(table: pa.Table, target: Path) -> Path:
    """Write a part; returns `target`. It is on the disk when this returns: a part is a commit mark."""
    with replacing(target, durable=True) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return target


def read_part(file: Path, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`; null where the part is older than a column.

    Raises MetricsError when it cannot be read.
    """

    def chosen(part: pq.ParquetFile) -> pa.Table:
        return part.read(columns=[name for name in schema.names if name in part.schema_arrow.names])

    table = _opened(file, chosen)
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names).cast(schema).replace_schema_metadata()


def part_metadata(file: Path) -> dict[bytes, bytes]:
    """What was written beside the rows. Raises MetricsError when the part cannot be read."""
    return _opened(file, lambda part: part.schema_arrow.metadata) or {}


def _opened(file: Path, work: Callable):
    try:
        with file.open("rb") as raw, pq.ParquetFile(raw) as part:
            return work(part)
    except (OSError, pa.ArrowException) as error:
        raise MetricsError(f"{file} cannot be read ({error}); delete it, and what it held is done again") from error
