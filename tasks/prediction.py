"""The columns of a stem's row that come from the model alone, without references."""

from typing import Any, TypedDict

from model.separation.evidence import Evidence
from model.separation.foreign import ForeignSeparator
from model.separation.prediction import VOCALS, predict, vocal_presence
from model.separation.stream import Separator
from storage.results.separation_rows import WindowScores


class Arithmetic(TypedDict):
    """What a network ran on."""

    device: str
    precision: str


def arithmetic_columns(separator: Separator | ForeignSeparator) -> Arithmetic:
    """What the network ran on: `device` and `precision`, both resolved.

    Args:
        separator: What separated the track.

    Returns:
        `device` is "cpu", "cuda" (without a number) or "mps", `precision` "float32", "bfloat16" or "int8".
    """
    return {"device": str(separator.device).partition(":")[0], "precision": separator.precision}


def predicted_columns(separator: Separator | ForeignSeparator, evidence: Evidence) -> dict[str, dict[str, Any]]:
    """The predicted scores of a track, by stem and column.

    Args:
        separator: What separated the track.
        evidence: The evidence of its stream, after the last piece.

    Returns:
        Stem → `predicted_sdr`, `predicted_low` and `predicted_high` in dB, `unpredicted` (why there are none), and
        `vocal_presence`, a probability that is the same for all stems; None for what cannot be said.
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
    """Per stem the predicted SDR of every second, and with that of the vocals the chance that there are any.

    Args:
        separator: What separated the track.
        evidence: The evidence of its stream, after the last piece.
        model_id: The model that the rows are filed under.
        track_id: The track that the rows are filed under.

    Returns:
        One entry per stem of which anything is predicted: SDR in dB and presence from 0 to 1, per window of one second.
    """
    _, presence = vocal_presence(evidence, separator.stems, separator.calibration)
    rows = []
    for stem, prediction in predict(evidence, separator.stems, separator.calibration).items():
        there = presence if stem == VOCALS else ()
        if prediction.windows or there:
            rows.append(WindowScores(model_id, track_id, stem, predicted_sdr=prediction.windows, vocal_presence=there))
    return rows
