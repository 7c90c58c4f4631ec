"""Parquet parts: written whole or not at all, read with the columns that today's schema has."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import MetricsError
from storage.files.atomic import replacing
from storage.files.location import scratch_folder

_ROWS = 50_000  # that are in memory at a time


def write_part(table: pa.Table, target: Path) -> Path:
    """Write a part; returns `target`. It is on the disk when this returns: a part is a commit mark."""
    with replacing(target, durable=True) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return target


def read_part(file: Path, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`; null where the part is older than a column.

    Raises MetricsError when it cannot be read.
    """
    batches = list(_batches(file, schema))
    return pa.Table.from_batches(batches, schema) if batches else schema.empty_table()


def asked(files: list[Path], schema: pa.Schema, sql: str, **parameters: object) -> Iterator[pa.RecordBatch]:
    """What DuckDB answers to a query over the table `parts`, the rows of all `files`, in batches.

    Its memory does not grow with the rows: it keeps on the disk what it cannot hold. Raises MetricsError when a part
    cannot be read.
    """
    import duckdb

    rows = pa.RecordBatchReader.from_batches(schema, (batch for file in files for batch in _batches(file, schema)))
    with scratch_folder() as scratch:
        connection = duckdb.connect(config={"memory_limit": "300MB", "temp_directory": str(scratch), "threads": "1"})
        try:
            connection.register("parts", rows)
            yield from connection.sql(sql, params=parameters).to_arrow_reader(_ROWS)
        except duckdb.Error as error:
            raise MetricsError(f"the parts of {files[0].parent} cannot be read ({error})") from error
        finally:
            connection.close()


def join_parts(files: list[Path], schema: pa.Schema, by: list[str], target: Path, metadata: dict[bytes, bytes]) -> Path:
    """Write the rows of all `files`, sorted by the columns `by`, as one part; returns `target`. Raises MetricsError."""
    order = ", ".join(f"{name} nulls last" for name in by)
    own = schema.with_metadata(metadata)
    with replacing(target, durable=True) as temporary, pq.ParquetWriter(temporary, own, compression="zstd") as writer:
        for batch in asked(files, schema, f"select * from parts order by {order}"):
            writer.write_table(pa.Table.from_batches([batch]).cast(schema).replace_schema_metadata(metadata))
    return target


def part_metadata(file: Path) -> dict[bytes, bytes]:
    """What was written beside the rows. Raises MetricsError when the part cannot be read."""
    with _opened(file) as part:
        return part.schema_arrow.metadata or {}


def _batches(file: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with _opened(file) as part:
        known = [name for name in schema.names if name in part.schema_arrow.names]
        for batch in part.iter_batches(_ROWS, columns=known):
            columns = [
                batch.column(field.name).cast(field.type) if field.name in known else pa.nulls(len(batch), field.type)
                for field in schema
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    try:
        with file.open("rb") as raw, pq.ParquetFile(raw) as part:
            yield part
    except (OSError, pa.ArrowException) as error:
        raise MetricsError(f"{file} cannot be read ({error}); delete it, and what it held is done again") from error
