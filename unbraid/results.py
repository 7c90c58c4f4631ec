"""The tables of a run folder, for questions in SQL."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


class Results:
    """The tables that separate, evaluate, train and mashup wrote into a folder, as views of its Parquet files.

    `metrics` holds the rows that count today, `history` those of all runs; `mashups`, `decisions`, `trials` and others
    are there where they have rows. Close it, or use it in a `with` block, to give its memory back.
    """

    def __init__(self, out: str | os.PathLike) -> None:
        from storage.files.location import location
        from storage.results.query import opened

        self._stack = ExitStack()
        self._connection = self._stack.enter_context(opened(location(out)))

    @property
    def tables(self) -> list[str]:
        """The names of the tables."""
        rows = self._connection.sql("select table_name from information_schema.tables order by table_name")
        return [name for (name,) in rows.fetchall()]

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """Ask in SQL; nothing but the tables is within its reach.

        Args:
            query: One statement in DuckDB's dialect.

        Returns:
            A relation, computed when it is read: `.fetchall()`, `.df()` (pandas), `.pl()` (polars),
            `.to_arrow_table()`, or `print` it.

        Raises:
            MetricsError: The SQL is wrong or reaches for files; DuckDB's sentence says how.
        """
        import duckdb

        from storage.errors import MetricsError

        try:
            return self._connection.sql(query)
        except duckdb.Error as error:
            raise MetricsError(f"the query does not work: {str(error).strip().splitlines()[0]}") from error

    def close(self) -> None:
        """Let go of the files."""
        self._stack.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_results(out: str | os.PathLike) -> Results:
    """Open the tables of a run folder.

    Args:
        out: The folder that was given as `--out`, or its URL.

    Raises:
        MetricsError: The folder has no tables, or one cannot be read.
    """
    return Results(out)
