"""Which pitch classes sound when: what beats (changes of harmony) and keys are both read from."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import soxr
from scipy import fft

_RATE = 11025
_WINDOW, _HOP = 4096, 1024  # 372 ms, every 93 ms
_PER_SEMITONE = 3  # so that a band that tunes a little high or low is met in the middle
_HIGHEST = 2100.0  # Hz; above it overtones outnumber fundamentals
_FRAMES_AT_ONCE = 512
# A drum hit lasts two frames of a spectrum at half the rate, a note longer: the median of five drops the hit.
_SUSTAIN_STRIDE, _SUSTAIN_FRAMES = 2, 5


@dataclass(frozen=True)
class Chromagram:
    """Pitch classes over time.

    Attributes:
        energy: float32 (12, frames), the power in each pitch class, C first.
        sustained: (12,), the mean share of each pitch class in sound that is held rather than struck.
        seconds: Time between two frames.
    """

    energy: np.ndarray
    sustained: np.ndarray
    seconds: float


def chromagram(audio: np.ndarray, rate: int) -> Chromagram:
    """The pitch classes of a signal, taken from one short transform at 11 kHz.

    Args:
        audio: float (channels, samples).
        rate: Sample rate in Hz.

    Returns:
        A chromagram; without frames, and with `sustained` of zeros, for less than a second or silence.
    """
    mono = audio.mean(axis=0, dtype=np.float32)
    if rate != _RATE:
        mono = soxr.resample(mono, rate, _RATE, "HQ")
    if len(mono) < _RATE or np.abs(mono).max() < 1e-4:
        return Chromagram(np.zeros((12, 0), np.float32), np.zeros(12), _HOP / _RATE)
    magnitude = _magnitude(mono)
    fine, tuned = _filters()
    held = _median(magnitude[::_SUSTAIN_STRIDE])
    classes = held @ fine.T  # (frames, 36)
    tuning = max(range(-1, 2), key=lambda thirds: classes[:, thirds % _PER_SEMITONE :: _PER_SEMITONE].sum())
    folded = np.roll(classes, 1 - tuning, axis=1).reshape(len(classes), 12, _PER_SEMITONE).sum(axis=2)
    peaks = folded.max(axis=1, keepdims=True)
    sustained = np.mean(folded / np.maximum(peaks, 1e-9), axis=0)
    return Chromagram((np.square(magnitude) @ tuned.T).T, sustained, _HOP / _RATE)


def _magnitude(mono: np.ndarray) -> np.ndarray:
    """(frames, bins) below 2.1 kHz, frames centred on multiples of the hop."""
    window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    padded = np.pad(mono, _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    bins = _bins()
    return np.concatenate([
        np.abs(fft.rfft(frames[first : first + _FRAMES_AT_ONCE] * window, axis=1)[:, :bins])
        for first in range(0, len(frames), _FRAMES_AT_ONCE)
    ])  # fmt: skip


def _median(magnitude: np.ndarray) -> np.ndarray:
    """The median over time of each bin and its neighbours, (frames, bins)."""
    reach = _SUSTAIN_FRAMES // 2
    padded = np.pad(magnitude, ((reach, reach), (0, 0)), mode="edge")
    shifted = np.stack([padded[place : place + len(magnitude)] for place in range(_SUSTAIN_FRAMES)])
    return np.partition(shifted, reach, axis=0)[reach]


def _bins() -> int:
    return int(_HIGHEST * _WINDOW / _RATE) + 1


@cache
def _filters() -> tuple[np.ndarray, np.ndarray]:
    """Weights of bins in thirds of a semitone (36, bins), and in semitones (12, bins), C in the first place."""
    import librosa

    bins = _bins()
    fine, tuned = (
        librosa.filters.chroma(sr=_RATE, n_fft=_WINDOW, n_chroma=classes, tuning=0.0)[:, :bins].astype(np.float32)
        for classes in (12 * _PER_SEMITONE, 12)
    )
    return fine, tuned
