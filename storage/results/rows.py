"""Small Parquet tables beside the metrics: one row per decision, trial or mash-up.

    OUT/<table>/run_id=<run>/<part>.parquet

Each kind of row is a frozen dataclass; its fields are the columns, and what `unbraid query` sees under the
table's name.
"""

import dataclasses
import datetime
import hashlib
import json
import types
import typing
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from storage.files.layout import OutputLayout
from storage.results import parquet

_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(),
          datetime.datetime: pa.timestamp("ms", tz="UTC")}  # fmt: skip


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclasses.dataclass(frozen=True)
class DecisionRow:
    """What the gate of a retraining decided. Scores are medians over the test split's common tracks, in dB.

    `rise` is the median over songs of what vocals gained, `rise_low` … `rise_high` its 90 % interval (null for too
    few songs), `least_rise` what was required; `looks` counts the decisions taken by this test split so far.
    """

    preset: str
    challenger: str
    champion: str | None
    promoted: bool
    reason: str
    dataset: str
    tracks: int
    challenger_vocals: float | None
    champion_vocals: float | None
    challenger_medians: str
    champion_medians: str
    rise: float | None = None
    rise_low: float | None = None
    rise_high: float | None = None
    least_rise: float | None = None
    looks: int | None = None
    decided_at: datetime.datetime = dataclasses.field(default_factory=now)


@dataclasses.dataclass(frozen=True)
class TrialRow:
    """A trial of a search: what was tried (JSON) and how it ended; `csdr` is on validation tracks, in dB."""

    trial: int
    preset: str
    settings: str
    status: str
    csdr: float | None = None
    best_step: int | None = None
    steps: int | None = None
    seconds: float | None = None
    weights: str | None = None
    error: str | None = None
    finished_at: datetime.datetime = dataclasses.field(default_factory=now)


@dataclasses.dataclass(frozen=True)
class MashupRow:
    """A mash-up: A's vocals over B's accompaniment. Tempi in beats a minute, times in seconds, levels in LUFS.

    `status` is ok, or misfit for a pair that does not go together, or failed; `error` then says why.
    """

    vocals_of: str
    accompaniment_of: str
    status: str
    error: str | None = None
    model_id: str | None = None
    folder: str | None = None
    tempo_a: float | None = None
    tempo_b: float | None = None
    tempo_factor: float | None = None
    stretch_median: float | None = None
    stretch_min: float | None = None
    stretch_max: float | None = None
    offset_beats: int | None = None
    beat_distance_median: float | None = None
    beat_distance_p95: float | None = None
    alignment_score: float | None = None
    key_a: str | None = None
    key_b: str | None = None
    key_confidence_a: float | None = None
    key_confidence_b: float | None = None
    semitones: int | None = None
    loudness_vocals: float | None = None
    loudness_accompaniment: float | None = None
    vocal_gain_db: float | None = None
    true_peak_db: float | None = None
    duration_s: float | None = None
    seconds: float | None = None
    finished_at: datetime.datetime = dataclasses.field(default_factory=now)


@dataclasses.dataclass(frozen=True)
class AnalysisRow:
    """What a mash-up must know of a separated track. `predicted_sdr` of the vocals in dB, from the stems alone."""

    track_id: str
    path: str
    model_id: str
    source_fingerprint: str | None
    duration_s: float
    tempo: float
    clarity: float
    tonic: int
    minor: bool
    key_confidence: float
    vocal_activity: float
    predicted_sdr: float | None
    seconds: float
    error: str | None = None
    finished_at: datetime.datetime = dataclasses.field(default_factory=now)


@dataclasses.dataclass(frozen=True)
class PairRow:
    """A pair of a catalog as a mash-up: how well it would go, and why; `score` is between 0 and 1."""

    rank: int
    vocals_of: str
    accompaniment_of: str
    vocals_id: str
    accompaniment_id: str
    score: float
    reason: str
    model_id: str
    speed: float
    semitones: int
    key_distance: int
    vocal_activity: float
    predicted_sdr: float | None


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


def dataset(out: OutputLayout, name: str) -> ds.Dataset:
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
