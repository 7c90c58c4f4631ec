"""SQL over a run folder's tables, read-only: a query sees these tables and nothing else."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from storage.errors import MetricsError
from storage.files.layout import OutputLayout
from storage.files.location import location, scratch_folder
from storage.results import metrics, rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MEMORY = "300MB"  # of DuckDB, which keeps on the disk what does not fit
_THREADS = 4  # at most: each needs about 100 MB before DuckDB moves anything to the disk

# The rows that count today: per track and model those of the latest separation (the same settings and the same
# source), each stem once; a failure replaces what was there before. A stem is on the disk where no other model,
# settings or source has been separated into the track's folder since.
# Separations are compared by their hashes: an aggregate of fixed size can be kept on the disk, one of texts cannot.
_CURRENT = r"""
create view metrics as
with latest as (
    select track_id, model_id,
        max_by(hash(status = 'failed', settings_hash, source_fingerprint), finished_at) as separation
    from history where status <> 'interrupted' group by all
), holders as (
    select track_id, regexp_extract(stem_path, '^(stems|models/[^/]+)/', 1) as root,
        max_by(hash(status, model_id, settings_hash, source_fingerprint), finished_at) as separation
    from history where stem_path is not null and status in ('ok', 'interrupted') group by all
)
select history.*, coalesce(
    history.stem_path is not null and history.status = 'ok'
    and holders.separation = hash('ok', history.model_id, settings_hash, source_fingerprint), false
) as on_disk
from history
join latest on history.track_id = latest.track_id and history.model_id = latest.model_id
left join holders on history.track_id = holders.track_id
    and regexp_extract(history.stem_path, '^(stems|models/[^/]+)/', 1) = holders.root
where history.status <> 'interrupted'
    and latest.separation = hash(history.status = 'failed', settings_hash, source_fingerprint)
qualify {once}
"""
_ONCE = """
row_number() over (
    partition by history.track_id, history.model_id, stem, coalesce(format, ''), history.stem_path
    order by finished_at desc
) = 1
"""
_CURRENT_SEPARATIONS = "select * from metrics where settings_hash is not null and (on_disk or status = 'failed')"
_BATCH = 50_000  # tracks

# In a single run that has ended, nothing was replaced.
_CURRENT_OF_ONE_RUN = """
create view metrics as
select *, status = 'ok' and stem_path is not null as on_disk from history where status <> 'interrupted'
"""


@contextlib.contextmanager
def opened(out: Path) -> Iterator["DuckDBPyConnection"]:
    """A DuckDB connection that sees the tables of a run folder and nothing else: no file, no network, no setting.

    `metrics` holds the rows that count today, `history` those of all runs; the tables of `storage.results.rows` are
    there where they have rows. All are views of the Parquet files: of these only what a query needs is read, and what
    does not fit into memory is kept on the disk for as long as the connection is open.

    Args:
        out: The run folder, or its URL as a path.

    Raises:
        MetricsError: The folder has no tables, or one cannot be read.
    """
    import duckdb

    layout = OutputLayout(location(out))
    files, small_tables = metrics.row_files(layout), rows.present_tables(layout)
    if not files and not small_tables:
        raise MetricsError(f"{out} has no metrics; separate or evaluate into it first")
    with scratch_folder() as scratch:
        settings: dict[str, Any] = {
            "python_enable_replacements": "false",
            "memory_limit": _MEMORY,
            "temp_directory": str(scratch),
        }
        settings |= {"preserve_insertion_order": "false", "threads": str(min(_THREADS, os.cpu_count() or 1))}
        connection = duckdb.connect(config=settings)
        connection.execute("set enable_progress_bar = false")  # it would be drawn into the output
        try:
            register_metrics(connection, layout)
            for name in small_tables:
                connection.register(name, rows.dataset(layout, name))
            connection.execute("set enable_external_access = false")
            connection.execute("set lock_configuration = true")
            yield connection
        finally:
            connection.close()


def register_metrics(connection: "DuckDBPyConnection", layout: OutputLayout) -> None:
    """Give a connection `history`, the rows of all runs, and `metrics`, those that count today.

    Args:
        connection: A DuckDB connection that has no tables of these names yet.
        layout: The run folder's layout; one without rows gives empty views.

    Raises:
        MetricsError: A file of the metrics cannot be read.
    """
    files = metrics.row_files(layout)
    connection.register("history", metrics.dataset(layout))
    one_run = [file.path for file in files] == [metrics.compacted(layout, files[0].run_id)] if files else True
    connection.execute(_CURRENT_OF_ONE_RUN if one_run else _CURRENT.replace("{once}", _ONCE))


def columns(out: Path) -> dict[str, list[str]]:
    """The column names of every table of a run folder, by table.

    Args:
        out: The run folder.

    Raises:
        MetricsError: The folder has no tables, or one cannot be read.
    """
    with opened(out) as connection:
        names = ["metrics", "history", *rows.present_tables(OutputLayout(location(out)))]
        return {name: list(connection.table(name).columns) for name in names}


def query(out: Path, sql: str) -> pa.Table:
    """Run one SELECT in DuckDB over the tables of a run folder; see `opened`.

    Args:
        out: The run folder.
        sql: The statement, as the user typed it.

    Returns:
        The complete answer, in memory.

    Raises:
        MetricsError: The folder has no tables; or, with DuckDB's sentence, the SQL is wrong, writes, or reads files.
    """
    import duckdb

    with opened(out) as connection, _sentences(out, "the query"):
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise MetricsError("give one SELECT statement; the tables are for reading")
        return connection.sql(sql).to_arrow_table()


def tracks_where(out: Path, condition: str, most: int | None = None) -> Iterator[tuple[str, float | None]]:
    """The tracks of which at least one row fulfils a condition, as a stream.

    Only separations count, and of them the current rows: stems that are on the disk, and failures. Rows of
    `unbraid evaluate`, and of stems that another model has replaced, select nothing.

    Args:
        out: The run folder.
        condition: SQL that is true or false of a row of `metrics`; it may query the other tables in a subquery.
        most: How many tracks at most; None for all.

    Yields:
        (track id, seconds of audio, None where unknown).

    Raises:
        MetricsError: There are no rows, or DuckDB cannot make sense of the condition; the sentence is DuckDB's.
    """
    with opened(out) as connection, _sentences(out, f"the condition {condition!r}"):
        # The filter takes one expression: no statement can follow it.
        separations = connection.sql(_CURRENT_SEPARATIONS).filter(condition)
        tracks = separations.aggregate("track_id, max(duration_s) as seconds", "track_id")
        for batch in (tracks if most is None else tracks.limit(most)).to_arrow_reader(_BATCH):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


@contextlib.contextmanager
def _sentences(out: Path, what: str) -> Iterator[None]:
    """DuckDB's errors in the body as MetricsErrors of one sentence about `what`."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        first = str(error).strip().splitlines()[0]
        tables = ", ".join(["metrics", "history", *rows.present_tables(OutputLayout(location(out)))])
        raise MetricsError(
            f"{what} does not work: {first}{_candidates(str(error))}; the tables are {tables}"
        ) from error


def _candidates(message: str) -> str:
    """DuckDB's suggestions for a misspelt column or table, which it gives in its second line."""
    match = re.search(r"(?:Candidate bindings|Did you mean)\b:? ?(.*)", message)
    return f" (did you mean {match[1].strip().rstrip('?')}?)" if match else ""
