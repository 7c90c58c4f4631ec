"""Small Parquet tables beside the metrics: one row per decision, trial, mash-up, analysed song or pair of songs.

    OUT/<table>/run_id=<run>/<part>.parquet

Each kind of row is a frozen dataclass of `storage.results.training_rows` or `storage.results.mashup_rows`; its fields
are the columns, and what `unbraid query` sees under the table's name.
"""

import dataclasses
import datetime
import hashlib
import json
import types
import typing
from pathlib import Path

import pyarrow as pa

from storage.files.layout import OutputLayout
from storage.results import parquet
from storage.results.mashup_rows import AnalysisRow, MashupRow, PairRow
from storage.results.training_rows import DecisionRow, TrialRow

if typing.TYPE_CHECKING:
    import pyarrow.dataset as ds

_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(),
          datetime.datetime: pa.timestamp("ms", tz="UTC")}  # fmt: skip


TABLES = {"decisions": DecisionRow, "trials": TrialRow, "mashups": MashupRow, "analyses": AnalysisRow, "pairs": PairRow}


def write_rows(out: OutputLayout, run_id: str, rows: list) -> Path:
    """Write rows of one kind as a part of a run, named by their contents: the same rows twice are the same file.

    Args:
        out: The output's layout.
        run_id: The run that made the rows.
        rows: Instances of one of the dataclasses in `TABLES`.

    Returns:
        The part.

    Raises:
        ValueError: There are no rows.
    """
    if not rows:
        raise ValueError("there are no rows to write")
    name = next(name for name, kind in TABLES.items() if isinstance(rows[0], kind))
    values = [dataclasses.asdict(row) for row in rows]
    digest = hashlib.sha256(json.dumps(values, default=str, sort_keys=True).encode()).hexdigest()[:20]
    target = out.root / name / f"run_id={run_id}" / f"part-{digest}.parquet"
    return parquet.write_file(parquet.table(values, parquet.stored(schema(name))), target, out.staging)


def read_rows(out: OutputLayout, name: str, run_id: str | None = None) -> pa.Table:
    """All rows of a table in memory, of one run or of all; empty where there is none.

    Args:
        out: The output's layout.
        name: The table, one of `TABLES`.
        run_id: The run; None for all.

    Raises:
        MetricsError: A part cannot be read.
    """
    return parquet.read(parquet.run_files(out.root / name, run_id), schema(name))


def dataset(out: OutputLayout, name: str) -> "ds.Dataset":
    """All rows of a table as a dataset from which only what a query needs is read.

    Args:
        out: The output's layout.
        name: The table, one of `TABLES`.

    Raises:
        MetricsError: A part cannot be read.
    """
    return parquet.dataset(parquet.run_files(out.root / name), schema(name))


def modernise(out: OutputLayout) -> None:
    """Bring the files of older versions to today's columns. Only for the process that writes to `out`.

    Args:
        out: The output's layout.
    """
    for name in present_tables(out):
        parquet.modernise(parquet.run_files(out.root / name), schema(name), out.staging)


def present_tables(out: OutputLayout) -> list[str]:
    """The names of the tables that have a part below `out`, in the order of `TABLES`.

    Args:
        out: The output's layout.
    """
    return [name for name in TABLES if any((out.root / name).glob("run_id=*/part-*.parquet"))]


def schema(name: str) -> pa.Schema:
    """The columns of a table as readers see them: `run_id`, then the fields of its rows.

    Args:
        name: The table, one of `TABLES`.

    Raises:
        KeyError: There is no such table.
    """
    hints = typing.get_type_hints(TABLES[name])
    return pa.schema([("run_id", pa.string())] + [(field, _TYPES[_plain(hint)]) for field, hint in hints.items()])


def _plain(hint: type) -> type:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint
