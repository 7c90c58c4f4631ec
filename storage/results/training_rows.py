"""Rows that trainings leave: the decisions of a retraining, the trials of a search."""

import dataclasses
import datetime

from storage.results.separation_rows import now


@dataclasses.dataclass(frozen=True)
class DecisionRow:
    """What the gate of a retraining decided. Scores are medians over the test split's common tracks, in dB.

    `rise` is the median over songs of what vocals gained, `rise_low` … `rise_high` its 90 % interval (null for too
    few songs), `least_rise` what was required; `looks` counts the decisions taken by this test split so far. `score` is
    `measured`, against references, or `predicted`, by each model of its own stems.
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
    score: str = "measured"


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
