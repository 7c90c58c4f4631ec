"""Rows that mash-ups leave: the mash-ups themselves, the analyses of songs, and which songs go together."""

import dataclasses
import datetime

from storage.results.separation_rows import now

MISFIT = "misfit"  # the status of a pair that does not go together


@dataclasses.dataclass(frozen=True)
class MashupRow:
    """A mash-up: A's vocals over B's accompaniment. Tempi in beats per minute, times in seconds, levels in LUFS.

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
    """What a mash-up must know of a separated track. `predicted_sdr` is that of the vocals, in dB, from stems alone."""

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
