"""The columns of a stem's row that come from the model alone, without references."""

from typing import Any, TypedDict

from model.separation.evidence import Evidence
from model.separation.foreign import ForeignSeparator
from model.separation.prediction import VOCALS, predict, vocal_presence
from model.separation.stream import Separator
from storage.results.windows import WindowScores


class Arithmetic(TypedDict):
    """What a network ran on."""

    device: str
    precision: str


def arithmetic_columns(separator: Separator | ForeignSeparator) -> Arithmetic:
    """What the network ran on: `device` and `precision`, both resolved."""
    return {"device": str(separator.device).partition(":")[0], "precision": separator.precision}


def predicted_columns(separator: Separator | ForeignSeparator, evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Per stem the values of `predicted_sdr`, `_low`, `_high`, of `unpredicted` (why there are none) and, the same for
    all stems, of `vocal_presence`.

    Args:
        separator: What separated the track.
        evidence: Its stream's, after the last piece.
    """
    presence, _ = vocal_presence(evidence, separator.stems, separator.calibration)
    return {
        stem: {
            "predicted_sdr": prediction.sdr,
            "predicted_low": prediction.low,
            "predicted_high": prediction.high,
            "unpredicted": prediction.reason,
            "vocal_presence": presence,
        }
        for stem, prediction in predict(evidence, separator.stems, separator.calibration).items()
    }


def predicted_windows(
    separator: Separator | ForeignSeparator, evidence: Evidence, model_id: str, track_id: str
) -> list[WindowScores]:
    """Per stem the predicted SDR of every second, and beside that of the vocals the chance that there are any."""
    _, presence = vocal_presence(evidence, separator.stems, separator.calibration)
    rows = []
    for stem, prediction in predict(evidence, separator.stems, separator.calibration).items():
        there = presence if stem == VOCALS else ()
        if prediction.windows or there:
            rows.append(WindowScores(model_id, track_id, stem, predicted_sdr=prediction.windows, vocal_presence=there))
    return rows
