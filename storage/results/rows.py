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
    """Write rows of one kind as a part of a run, named by their contents. Raises ValueError without rows."""
    if not rows:
        raise ValueError("there are no rows to write")
    name = next(name for name, kind in TABLES.items() if isinstance(rows[0], kind))
    values = [dataclasses.asdict(row) for row in rows]
    digest = hashlib.sha256(json.dumps(values, default=str, sort_keys=True).encode()).hexdigest()[:20]
    target = out.root / name / f"run_id={run_id}" / f"part-{digest}.parquet"
    return parquet.write_file(parquet.table(values, parquet.stored(schema(name))), target, out.staging)


def read_rows(out: OutputLayout, name: str, run_id: str | None = None) -> pa.Table:
    """All rows of a table in memory, of one run or of all; empty where there is none. Raises MetricsError."""
    return parquet.read(parquet.run_files(out.root / name, run_id), schema(name))


def dataset(out: OutputLayout, name: str) -> "ds.Dataset":
    """All rows of a table, of which only what is asked for is read. Raises MetricsError."""
    return parquet.dataset(parquet.run_files(out.root / name), schema(name))


def modernise(out: OutputLayout) -> None:
    """Bring the files of older versions to today's columns. Only for the process that writes to `out`."""
    for name in present_tables(out):
        parquet.modernise(parquet.run_files(out.root / name), schema(name), out.staging)


def present_tables(out: OutputLayout) -> list[str]:
    """The tables that have a part below `out`."""
    return [name for name in TABLES if any((out.root / name).glob("run_id=*/part-*.parquet"))]


def schema(name: str) -> pa.Schema:
    hints = typing.get_type_hints(TABLES[name])
    return pa.schema([("run_id", pa.string())] + [(field, _TYPES[_plain(hint)]) for field, hint in hints.items()])


def _plain(hint: type) -> type:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint
