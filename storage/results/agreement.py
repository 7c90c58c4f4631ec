"""How well predicted scores agree with true ones, in a run that has both."""

from dataclasses import dataclass

from storage.files.layout import OutputLayout
from storage.results import metrics

_LEAST = 3  # tracks; with fewer a correlation says nothing


@dataclass(frozen=True)
class Agreement:
    """How well predicted and true SDR of one stem agree.

    Attributes:
        stem: The stem.
        tracks: How many tracks have both scores.
        r: Pearson's correlation; None with fewer than three tracks, or where either score never varies.
        error: The mean absolute error in dB.
        coverage: The share of true scores within their predicted interval, 0 … 1.
    """

    stem: str
    tracks: int
    r: float | None
    error: float
    coverage: float

    def __str__(self) -> str:
        correlation = "r not known (fewer than 3 tracks)" if self.r is None else f"r {self.r:.2f}"
        return (
            f"predicted SDR of {self.stem}, {self.tracks} tracks: {correlation}, mean error {self.error:.1f} dB, "
            f"{100 * self.coverage:.0f} % of the scores in their interval"
        )


def agreements(out: OutputLayout, run_id: str, model_id: str) -> list[Agreement]:
    """One entry per stem of a model that has tracks with both scores.

    Args:
        out: The output's layout.
        run_id: The run, an evaluation.
        model_id: The model.

    Raises:
        MetricsError: The rows cannot be read.
    """
    import numpy as np

    columns = ["model_id", "stem", "sdr", "predicted_sdr", "predicted_low", "predicted_high"]
    rows = [
        row
        for row in metrics.read_all(out, run_id, columns).to_pylist()
        if row["model_id"] == model_id and row["sdr"] is not None and row["predicted_sdr"] is not None
    ]
    entries = []
    for stem in dict.fromkeys(row["stem"] for row in rows):
        true, predicted, low, high = (
            np.array([row[name] for row in rows if row["stem"] == stem])
            for name in ("sdr", "predicted_sdr", "predicted_low", "predicted_high")
        )
        varies = len(true) >= _LEAST and true.std() > 0 and predicted.std() > 0
        entries.append(
            Agreement(
                stem,
                len(true),
                float(np.corrcoef(true, predicted)[0, 1]) if varies else None,
                float(np.abs(true - predicted).mean()),
                float(((low <= true) & (true <= high)).mean()),
            )
        )
    return entries
