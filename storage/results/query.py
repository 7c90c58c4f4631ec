"""SQL over a run folder's tables, read-only: the query sees those it is given and nothing else."""

from pathlib import Path

import pyarrow as pa

from storage.errors import MetricsError
from storage.files.layout import OutputLayout
from storage.files.location import location
from storage.results.metrics import read_all, standing_files
from storage.results.rows import present_tables, read_rows

# `metrics` holds what stands now: of several runs over one track with one model, the latest.
_CURRENT = """
create table metrics as
select history.* from history join (
    select track_id, model_id, arg_max(run_id, finished_at) as run_id from history group by all
) using (track_id, model_id, run_id)
"""


def query(out: Path, sql: str) -> pa.Table:
    """Run one SELECT in DuckDB over `metrics` (the rows that stand), `history` (all rows of all runs) and those of
    `storage.results.rows` that are there.

    Raises MetricsError with DuckDB's sentence when the SQL is wrong, writes, or reaches for files.
    """
    import duckdb

    layout = OutputLayout(location(out))
    extra = present_tables(layout)
    if not extra and (not layout.metrics.is_dir() or not standing_files(layout)):
        raise MetricsError(f"{out} has no metrics; separate or evaluate into it first")
    connection = duckdb.connect(config={"python_enable_replacements": "false"})
    try:
        connection.register("all_rows", read_all(layout))
        connection.execute("create table history as select * from all_rows")
        connection.unregister("all_rows")
        connection.execute(_CURRENT)
        for name in extra:
            connection.register("all_rows", read_rows(layout, name))
            connection.execute(f"create table {name} as select * from all_rows")
            connection.unregister("all_rows")
        # From here on no file, no network and no setting is within the query's reach.
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise MetricsError("give one SELECT statement; the tables are for reading")
        return connection.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        first = str(error).strip().splitlines()[0]
        raise MetricsError(
            f"the query does not work: {first}; the tables are {', '.join(['metrics', 'history', *extra])}"
        ) from error
    finally:
        connection.close()
