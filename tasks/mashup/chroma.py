"""Which pitch classes sound when: what beats (changes of harmony) and keys are both read from."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import soxr
import torch

_RATE = 11025
_WINDOW, _HOP = 4096, 1024  # 372 ms, every 93 ms
_PER_SEMITONE = 3  # so that a band that tunes a little high or low is met in the middle
_HIGHEST = 2100.0  # Hz; above it overtones outnumber fundamentals
_FRAMES_AT_ONCE = 64
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


@torch.inference_mode()
def _magnitude(mono: np.ndarray) -> np.ndarray:
    """(frames, bins) below 2.1 kHz, frames centred on multiples of the hop."""
    padded = torch.nn.functional.pad(torch.from_numpy(mono), (_WINDOW // 2, _WINDOW // 2))
    frames, window = padded.unfold(0, _WINDOW, _HOP), torch.hann_window(_WINDOW)
    out = torch.empty(len(frames), _bins())
    for first in range(0, len(frames), _FRAMES_AT_ONCE):
        block = slice(first, first + _FRAMES_AT_ONCE)
        torch.abs(torch.fft.rfft(frames[block] * window)[:, : _bins()], out=out[block])
    return out.numpy()


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
    return chroma_filters(12 * _PER_SEMITONE), chroma_filters(12)


def chroma_filters(classes: int) -> np.ndarray:
    """Weights (classes, bins) of the bins below 2.1 kHz in each pitch class: Gaussians about every octave of it.

    As `librosa.filters.chroma` has them (Ellis, "Chroma feature analysis and synthesis", 2007).

    Args:
        classes: Pitch classes per octave, a multiple of 12; the first is C.
    """
    octaves = np.log2(np.arange(1, _WINDOW) * (_RATE / _WINDOW) / (440 / 16))  # above the A of 27.5 Hz
    places = classes * np.concatenate([[octaves[0] - 1.5], octaves])
    widths = np.append(np.maximum(np.diff(places), 1), 1)
    apart = (places - np.arange(classes)[:, None] + classes / 2) % classes - classes / 2
    weights = np.exp(-0.5 * np.square(2 * apart / widths))
    weights /= np.linalg.norm(weights, axis=0)
    weights *= np.exp(-0.5 * np.square((places / classes - 5) / 2))  # music is in the octaves about the fifth
    return np.roll(weights, -3 * (classes // 12), axis=0)[:, : _bins()].astype(np.float32)
