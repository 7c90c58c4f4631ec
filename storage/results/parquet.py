"""Parquet files of a run's rows: written completely or not at all, read together as one dataset.

No file has the column `run_id`: it is the name of the folder (`run_id=<run>`), where every reader of hive partitions
finds it, and this module adds it to the rows of a file when they are read.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from storage.errors import MetricsError
from storage.files.atomic import replacing
from storage.files.layout import writable_text
from storage.files.location import is_url, object_at, scratch_folder

if TYPE_CHECKING:
    import pyarrow.dataset as ds  # brings pandas with it; workers write rows and read none

RUN_ID = pa.field("run_id", pa.string())
_ROWS = 50_000  # that are in memory at a time
_FILES = 64  # that are open at a time where many are read once
_MEMORY = "300MB"  # of DuckDB, which keeps on the disk what does not fit


@dataclass(frozen=True)
class RunFile:
    """A Parquet file and the run whose rows it holds."""

    path: Path
    run_id: str


def run_files(folder: Path, run_id: str | None = None) -> list[RunFile]:
    """The parts of one run, or of all, of a table whose parts are never joined: FOLDER/run_id=<run>/part-*.parquet.

    Args:
        folder: The table's folder.
        run_id: The run; None for all.

    Returns:
        The parts, sorted by path; empty where the folder does not exist.
    """
    parts = sorted(folder.glob(f"run_id={run_id or '*'}/part-*.parquet"))
    return [RunFile(part, part.parent.name.removeprefix("run_id=")) for part in parts]


def stored(schema: pa.Schema) -> pa.Schema:
    """The columns of `schema` that are in the files: all but `run_id`.

    Args:
        schema: A table's columns as readers see them.
    """
    return pa.schema([field for field in schema if field.name != RUN_ID.name])


def table(values: list[dict], schema: pa.Schema) -> pa.Table:
    """Rows as a table; text that no Parquet file can hold (bytes of a file name that is not UTF-8) is escaped.

    Args:
        values: One dict per row, by column; a column that a row lacks is null, and what is no column is dropped.
        schema: The table's columns.
    """
    columns = []
    for field in schema:
        column = [row.get(field.name) for row in values]
        if pa.types.is_string(field.type):
            column = [writable_text(value) if isinstance(value, str) else value for value in column]
        columns.append(pa.array(column, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def write_file(rows: pa.Table, target: Path, staging: Path) -> Path:
    """Write a file without its column `run_id`; returns `target`. It is on the disk when this returns.

    Args:
        rows: The rows, with or without `run_id`.
        target: Where they appear, in one step.
        staging: A folder on the same disk that no reader of tables searches; the file is made there.
    """
    with replacing(target, durable=True, staging=staging) as temporary:
        # Such files are small and many, and most are joined later: what makes large ones small takes longest here.
        pq.write_table(rows.select(stored(rows.schema).names), temporary, compression="snappy", write_statistics=False)
    return target


def dataset(files: Iterable[RunFile], schema: pa.Schema) -> "ds.Dataset":
    """The rows of all files as one dataset, from which only what a query needs is read.

    Args:
        files: Files and their runs. A column that a file lacks, because an older version wrote it, is null.
        schema: The columns, `run_id` among them.

    Raises:
        MetricsError: A file cannot be read; the sentence names it.
    """
    import pyarrow.dataset as ds

    from storage.results.streamed import StreamedDataset

    parquet, fragments = ds.ParquetFileFormat(), []
    filesystem: pa.fs.FileSystem = pa.fs.LocalFileSystem()
    for file in files:
        name = str(file.path)
        if is_url(file.path):
            store, name = object_at(file.path)
            filesystem = pa.fs.PyFileSystem(pa.fs.FSSpecHandler(store))
        belongs = ds.field(RUN_ID.name) == file.run_id
        fragment = parquet.make_fragment(name, filesystem, partition_expression=belongs)
        try:
            fragment.ensure_complete_metadata()
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(file.path, error) from error
        fragments.append(fragment)
    return StreamedDataset(fragments, schema, parquet, filesystem)


def stream(files: Sequence[RunFile], schema: pa.Schema) -> pa.RecordBatchReader:
    """The rows of all files, to be read once, in memory that does not grow with the number of files.

    A dataset keeps the footer of every file, 0.1 MB, as long as it lives.

    Args:
        files: As for `dataset`.
        schema: As for `dataset`.

    Raises:
        MetricsError: A file cannot be read; the sentence names it.
    """
    for file in files:  # at once: an error while DuckDB reads would come out as DuckDB's, after minutes
        _footer(file.path)

    def batches() -> Iterator[pa.RecordBatch]:
        for first in range(0, len(files), _FILES):
            rows = dataset(files[first : first + _FILES], schema).to_table(columns=schema.names, use_threads=False)
            yield from rows.combine_chunks().to_batches(_ROWS)

    return pa.RecordBatchReader.from_batches(schema, batches())


def read(files: Iterable[RunFile], schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """All rows of all files in memory.

    Args:
        files: Files and their runs.
        schema: The table's columns, `run_id` among them; null where a file lacks one.
        columns: The columns to read; None for all of `schema`.

    Raises:
        MetricsError: A file cannot be read.
    """
    rows = dataset(files, schema)
    try:
        return rows.to_table(columns=columns or schema.names)
    except (OSError, pa.ArrowException) as error:
        raise MetricsError(f"the metrics cannot be read ({error})") from error


def select(rows: "ds.Dataset | pa.RecordBatchReader", sql: str, **parameters: object) -> Iterator[pa.RecordBatch]:
    """DuckDB's answer to a query over rows, in batches.

    Its memory does not grow with the rows: it keeps on the disk what it cannot hold.

    Args:
        rows: The rows, which the query reads as the table `parts`.
        sql: One SELECT.
        **parameters: Values of the query's `$name` parameters.

    Yields:
        Batches of up to 50 000 rows, in the query's order.

    Raises:
        MetricsError: The rows cannot be read, or DuckDB rejects the query.
    """
    import duckdb

    with scratch_folder() as scratch:
        connection = duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": str(scratch), "threads": "1"})
        try:
            connection.execute("set enable_progress_bar = false")  # it would be drawn into the output
            connection.register("parts", rows)
            yield from connection.sql(sql, params=parameters).to_arrow_reader(_ROWS)
        except duckdb.Error as error:
            raise MetricsError(f"the rows cannot be read ({error})") from error
        finally:
            connection.close()


def write_rows(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, target: Path, staging: Path, metadata: dict[bytes, bytes]
) -> Path:
    """Write batches of rows as one file, as they come; returns `target`.

    Args:
        batches: The rows, with at least the columns of `schema`.
        schema: The columns, `run_id` among them.
        target: Where the file appears, in one step.
        staging: A folder on the same disk that no reader of tables searches; the file is made there.
        metadata: Key-value pairs for the file's footer; see `file_metadata`.
    """
    columns = stored(schema)
    with (
        replacing(target, durable=True, staging=staging) as temporary,
        pq.ParquetWriter(temporary, columns.with_metadata(metadata), compression="zstd") as writer,
    ):
        for batch in batches:
            rows = pa.Table.from_batches([batch]).select(columns.names).cast(columns)
            writer.write_table(rows.replace_schema_metadata(metadata))
    return target


def file_metadata(file: Path) -> dict[bytes, bytes]:
    """The key-value metadata that was written beside the rows, empty where there is none.

    Args:
        file: A Parquet file.

    Raises:
        MetricsError: The file cannot be read.
    """
    return _footer(file).metadata or {}


def is_current(file: Path, schema: pa.Schema) -> bool:
    """Does the file have the columns of `schema` as they are stored today?

    Args:
        file: A Parquet file.
        schema: The table's columns as readers see them.

    Raises:
        MetricsError: The file cannot be read.
    """
    return _footer(file).remove_metadata().equals(stored(schema))


def modernise(files: list[RunFile], schema: pa.Schema, staging: Path) -> int:
    """Rewrite files of an older version with today's columns, since readers of the folder need all files alike.

    Args:
        files: Files of one table, of any version.
        schema: The table's columns, `run_id` among them.
        staging: A folder on the same disk that no reader of tables searches; the files are made there.

    Returns:
        How many were rewritten. A file that cannot be read stays as it is.
    """
    count = 0
    for file in files:
        with contextlib.suppress(MetricsError):
            if not is_current(file.path, schema):
                batches = dataset([file], schema).to_batches(batch_size=_ROWS)
                write_rows(batches, schema, file.path, staging, file_metadata(file.path))
                count += 1
    return count


def _footer(file: Path) -> pa.Schema:
    try:
        with file.open("rb") as raw, pq.ParquetFile(raw) as opened:
            return opened.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> MetricsError:
    return MetricsError(f"{file} cannot be read ({error}); delete it, and what it held is done again")
