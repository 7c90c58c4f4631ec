"""Rows that separations and evaluations leave: one per stem, and the scores of a stem's windows.

Workers make them and the flow's process writes them, so nothing here needs Arrow.
"""

import datetime
from dataclasses import dataclass, field
from typing import Any

OK, FAILED = "ok", "failed"
INTERRUPTED = "interrupted"  # new stems were to replace a track's, and the run died before it could say that they did
SCORES = ("sdr", "isr", "sir", "sar")
PREDICTIONS = ("predicted_sdr", "vocal_presence")


def now() -> datetime.datetime:
    """The present moment in UTC, as rows carry it."""
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class StemRow:
    """One row. A failed track has one, with `stem` None. Scores are None where there is no reference.

    `scenario` names the stems that were scored together: it decides which windows count as silent. `device` and
    `precision` are those the network ran with, resolved. `predicted_low` and `predicted_high` bound `predicted_sdr`
    (dB), `unpredicted` says why there is none; `vocal_presence` is between 0 and 1. `source` is the file or URL that
    was read, `genre` its tag, `format` that of the stem's file, or the one a failed track was to be written in.
    `stem_path` is relative to OUT.
    """

    model_id: str
    track_id: str
    path: str
    stem: str | None
    status: str
    error: str | None = None
    error_class: str | None = None
    sdr: float | None = None
    isr: float | None = None
    sir: float | None = None
    sar: float | None = None
    sdr_mean: float | None = None
    usdr: float | None = None
    si_sdr: float | None = None
    windows: int | None = None
    silent_windows: int | None = None
    magnitude_mse: float | None = None
    magnitude_snr: float | None = None
    scenario: str | None = None
    duration_s: float | None = None
    sample_rate: int | None = None
    channels: int | None = None
    loudness_lufs: float | None = None
    true_peak_db: float | None = None
    activity: float | None = None
    predicted_sdr: float | None = None
    predicted_low: float | None = None
    predicted_high: float | None = None
    vocal_presence: float | None = None
    unpredicted: str | None = None
    device: str | None = None
    precision: str | None = None
    seconds: float | None = None
    stem_path: str | None = None
    source_fingerprint: str | None = None
    settings_hash: str | None = None
    source: str | None = None
    format: str | None = None
    genre: str | None = None
    finished_at: datetime.datetime = field(default_factory=now)


@dataclass(frozen=True)
class WindowScores:
    """What is known of a stem's windows of one second each; None where a window has no value.

    SDR, ISR, SIR and SAR in dB where there are references, else empty; the predicted SDR in dB and the probability of
    vocals where the model predicts them, else empty.
    """

    model_id: str
    track_id: str
    stem: str
    sdr: tuple[float | None, ...] = ()
    isr: tuple[float | None, ...] = ()
    sir: tuple[float | None, ...] = ()
    sar: tuple[float | None, ...] = ()
    predicted_sdr: tuple[float | None, ...] = ()
    vocal_presence: tuple[float | None, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """One row per window, by column; a column that is shorter than the longest is None beyond its end.

        `scored` tells a window that was compared with a reference, and may have no score because it is silent, from one
        that was not compared.
        """
        columns = {name: getattr(self, name) for name in (*SCORES, *PREDICTIONS)}
        return [
            {
                "model_id": self.model_id, "track_id": self.track_id, "stem": self.stem, "window": window,
                **{name: values[window] if window < len(values) else None for name, values in columns.items()},
                "scored": window < len(self.sdr),
            }
            for window in range(max(map(len, columns.values())))
        ]  # fmt: skip
