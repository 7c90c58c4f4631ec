"""How good a stem probably is, from what the masks said: a fitted prediction in dB, with its error.

The figure knows doubt, not confident mistakes: a network that takes a saxophone for a voice without hesitating is
given a good prediction.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from model.bounds import excerpt
from model.errors import CheckpointError
from model.separation.evidence import APART, CERTAIN, ENERGY, SHARED, SIDE, Evidence

VERSION = 1
LEVEL = 0.8  # the share of tracks whose score the interval is to hold
VOCALS = "vocals"
# A window counts where the stem is at most this far below its loud windows: pauses say nothing about the singing.
_ACTIVE_DB = 25.0
_LOUD_QUANTILE = 0.9
_SILENT = 1e-9  # mean square of a stem below which nothing can be said of it: −90 dB of full scale
_FLOOR, _CEILING = -40.0, 40.0  # dB, of features
FEATURES = ("doubt", "doubt_total", "doubt_low", "doubt_squared", "level", "apart")
WINDOW_FEATURES = ("doubt", "doubt_squared", "level")
PRESENCE_FEATURES = ("doubt", "level", "width", "doubt_of_rest")
_LARGEST = 1e6  # of a calibration's numbers; ours are some tens
_NARROWEST = -15.0  # dB; a voice in the middle is no more in the middle than a mono file


@dataclass(frozen=True)
class Prediction:
    """What is expected of one stem of a track, in dB of cSDR.

    `low` and `high` hold the true score in about four of five tracks. All three are None where nothing can be said, and
    `reason` says why. `windows` are predicted SDRs per second, None where the stem is silent.
    """

    sdr: float | None
    low: float | None
    high: float | None
    reason: str | None = None
    windows: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class StemFit:
    """A line through features. `weights` and `window_weights` begin with the constant; errors are of held-out songs."""

    weights: tuple[float, ...]
    window_weights: tuple[float, ...]
    low: float
    high: float
    error: float
    songs: int


@dataclass(frozen=True)
class Calibration:
    """What was fitted for one model: per stem a line, and for vocals the chance that there are any.

    `presence` and `window_presence` are weights of a logistic curve, constant first, over `PRESENCE_FEATURES` of the
    half of a track's windows with most voice and of a window; None where there was no music without a voice to fit.
    """

    stems: dict[str, StemFit]
    presence: tuple[float, ...] | None = None
    window_presence: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Calibration":
        """The calibration that `to_dict` wrote.

        Args:
            fields: Its entry in a weights file's header: `version`, `stems`, `presence` and `window_presence`.

        Raises:
            CheckpointError: The fields are not those of a calibration of this version, or hold NaN or infinity.
        """
        try:
            if fields["version"] != VERSION:
                raise ValueError(f"version {fields['version']}")
            stems = {str(name): _stem_fit(fit) for name, fit in fields["stems"].items()}
            track, window = (
                None if fields[name] is None else _numbers(fields[name], 1 + len(PRESENCE_FEATURES))
                for name in ("presence", "window_presence")
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CheckpointError(
                f"the calibration of the predicted scores does not fit this version ({excerpt(error)})"
            ) from error
        return cls(stems, track, window)


def _stem_fit(fields: dict[str, Any]) -> StemFit:
    low, high, error = _numbers([fields["low"], fields["high"], fields["error"]], 3)
    weights = _numbers(fields["weights"], 1 + len(FEATURES))
    window_weights = _numbers(fields["window_weights"], 1 + len(WINDOW_FEATURES))
    return StemFit(weights, window_weights, low, high, error, int(fields["songs"]))


def _numbers(values: list[float], count: int) -> tuple[float, ...]:
    numbers = np.array(values, np.float64)
    if numbers.shape != (count,) or not (np.abs(numbers) <= _LARGEST).all():
        raise ValueError(f"{count} numbers of at most {_LARGEST:g} were expected")
    return tuple(numbers.tolist())


def track_features(evidence: Evidence, stem: int) -> np.ndarray | None:
    """`FEATURES` of one stem, over the windows in which it sounds; None where it is silent.

    Args:
        evidence: The sums of the complete song.
        stem: The stem's index.

    Returns:
        The medians over windows of doubt (sure against shared energy, dB) and of level (against the other stems, dB),
        doubt of all windows together, its lower quartile, its square / 10, and how far views agree (dB), in the order
        of `FEATURES`.
    """
    active = _active(evidence, stem)
    if not active.any():
        return None
    doubts, levels, _ = _window_decibels(evidence, stem)[active].T
    total = evidence.sums[active, stem].sum(axis=0)
    doubt = np.median(doubts)
    doubt_total, apart = _decibels(total[CERTAIN], total[SHARED]), _decibels(total[ENERGY], total[APART])
    return np.array([doubt, doubt_total, np.quantile(doubts, 0.25), _square(doubt), np.median(levels), apart])


def window_features(evidence: Evidence, stem: int) -> np.ndarray:
    """`WINDOW_FEATURES` of one stem: doubt, its square / 10, and level, in dB.

    Args:
        evidence: The sums of the song.
        stem: The stem's index.

    Returns:
        (windows, 3), one row per second.
    """
    doubt, level, _ = _window_decibels(evidence, stem).T
    return np.stack([doubt, _square(doubt), level], axis=1)


def _square(decibels):
    """dB² / 10, constant below −10 dB, where there is nothing but doubt."""
    return np.square(np.maximum(decibels, -10.0)) / 10


def window_presence_features(evidence: Evidence, stem: int) -> np.ndarray:
    """`PRESENCE_FEATURES` of one stem per window, in dB.

    Args:
        evidence: The sums of the song.
        stem: The stem's index, the vocals'.

    Returns:
        (windows, 4), one row per second: doubt, level against the other stems, width, doubt of the others together.
    """
    doubt, level, width = _window_decibels(evidence, stem).T
    rest = np.delete(evidence.sums, stem, axis=1).sum(axis=1)
    doubt_of_rest = _decibels(rest[:, CERTAIN], rest[:, SHARED])
    return np.stack([doubt, level, np.clip(width, _NARROWEST, 0), doubt_of_rest], axis=1)


def presence_features(evidence: Evidence, stem: int) -> np.ndarray:
    """`PRESENCE_FEATURES` of a track: means over the half of the windows in which the stem is strongest.

    Args:
        evidence: The sums of the complete song, of at least one window.
        stem: The stem's index, the vocals'.

    Returns:
        (4,), in dB.
    """
    windows = window_presence_features(evidence, stem)
    strongest = np.argsort(windows[:, 1])[-((len(windows) + 1) // 2) :]
    return windows[strongest].mean(axis=0)


def _window_decibels(evidence: Evidence, stem: int) -> np.ndarray:
    """(windows, 3): doubt, level against the other stems, and width of one stem, in dB."""
    sums = evidence.sums
    certain, shared = sums[:, stem, CERTAIN], sums[:, stem, SHARED]
    others = (sums[..., CERTAIN] + sums[..., SHARED]).sum(axis=1) - certain - shared
    width = _decibels(sums[:, stem, SIDE], sums[:, stem, ENERGY])
    return np.stack([_decibels(certain, shared), _decibels(certain + shared, others), width], axis=1)


def predict(evidence: Evidence, stems: tuple[str, ...], calibration: Calibration | None) -> dict[str, Prediction]:
    """A prediction per stem.

    Args:
        evidence: The sums of the complete song.
        stems: Its stems, in order.
        calibration: What was fitted for the model, None where nothing was.
    """
    return {stem: _predicted(evidence, index, calibration, stem) for index, stem in enumerate(stems)}


def _predicted(evidence: Evidence, index: int, calibration: Calibration | None, stem: str) -> Prediction:
    if calibration is None or stem not in calibration.stems:
        return Prediction(None, None, None, "the model has no calibration for this stem")
    fit = calibration.stems[stem]
    features = track_features(evidence, index)
    if features is None:
        return Prediction(None, None, None, "the stem is silent")
    active = _audible(evidence, index)
    line = np.array(fit.window_weights)
    per_window = line[0] + window_features(evidence, index) @ line[1:]
    windows = tuple(float(value) if on else None for value, on in zip(per_window, active, strict=True))
    sdr = fit.weights[0] + float(features @ np.array(fit.weights[1:]))
    return Prediction(sdr, sdr + fit.low, sdr + fit.high, None, windows)


def vocal_presence(
    evidence: Evidence, stems: tuple[str, ...], calibration: Calibration | None
) -> tuple[float | None, tuple[float | None, ...]]:
    """The chance that the track has vocals, and that each of its windows has.

    Args:
        evidence: The sums of the complete song.
        stems: Its stems, in order.
        calibration: What was fitted for the model, None where nothing was.

    Returns:
        The track's chance, 0…1, and one per second; (None, ()) where nothing was fitted or the model has no vocals.
    """
    if calibration is None or calibration.presence is None or calibration.window_presence is None:
        return None, ()
    if VOCALS not in stems or not len(evidence.sums):
        return None, ()
    index = stems.index(VOCALS)
    audible = _audible(evidence, index)
    track = _logistic(calibration.presence, presence_features(evidence, index)[None])[0] if audible.any() else 0.0
    windows = np.where(audible, _logistic(calibration.window_presence, window_presence_features(evidence, index)), 0)
    return float(track), tuple(windows.tolist())


def _logistic(weights: tuple[float, ...], features: np.ndarray) -> np.ndarray:
    line = np.array(weights)
    return 1 / (1 + np.exp(-np.clip(line[0] + features @ line[1:], -50, 50)))


def _active(evidence: Evidence, stem: int) -> np.ndarray:
    """Per window: does the stem sound, at most `_ACTIVE_DB` below its loud windows?"""
    energy = evidence.sums[:, stem, ENERGY]
    audible = _audible(evidence, stem)
    if not audible.any():
        return audible
    return audible & (energy >= np.quantile(energy, _LOUD_QUANTILE) * 10 ** (-_ACTIVE_DB / 10))


def _audible(evidence: Evidence, stem: int) -> np.ndarray:
    return evidence.sums[:, stem, ENERGY] > _SILENT * min(evidence.rate, evidence.samples)


def _decibels(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 10 * np.log10(np.maximum(numerator, 1e-30) / np.maximum(denominator, 1e-30))
    return np.clip(ratio, _FLOOR, _CEILING)
