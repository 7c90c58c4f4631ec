"""A voice in another key that remains the same person's: its pitch moves, its formants do not."""

import math
from functools import cache

import numpy as np
import torch

from model.spectra.frontend import OVERLAP, analysis, synthesis

_WINDOW = 2048  # at 44.1 kHz
# In the cepstrum, what lies below the pitch period is the vocal tract's; the peak at the period and all beyond is the
# pitch's.
_PERIODS = (0.00125, 0.0125)  # s: 800 to 80 Hz
_SHARE_OF_PERIOD = 0.7
_QUEFRENCIES = (0.001, 0.004)
_MOST_DB = 20.0
_FLOOR = 1e-4  # of the largest magnitude
_FRAMES_AT_ONCE = 256  # whose spectra stay in the processor's cache


@torch.inference_mode()
def with_formants_of(
    original: np.ndarray, moved: np.ndarray, rate: int, semitones: float, speed: float = 1.0
) -> np.ndarray:
    """A transposed voice with the formants of the original.

    Every frame gets a gain: the spectral envelope of the original over the same envelope moved (cepstral smoothing,
    Röbel & Rodet, DAFx 2005). The gains change the level a little.

    Args:
        original: float32 (channels, samples), the voice as it was.
        moved: float32 (channels, about samples / speed), the same transposed and played `speed` times as fast.
        rate: Sample rate of both, in Hz.
        semitones: By how much it was transposed upwards.
        speed: Above 1 for faster.

    Returns:
        float32, of the shape of `moved`; `moved` itself where it is shorter than a frame.
    """
    window = _WINDOW * max(1, round(rate / 44100))
    hop, samples = window // OVERLAP, moved.shape[1]
    if samples < window:
        return moved
    # Frame f is centred on sample (f + 1) · hop − window / 2, so that four frames cover every sample.
    frames = (samples - 1 + window) // hop
    lead = window - hop
    padded = torch.nn.functional.pad(torch.from_numpy(moved), (lead, (frames - 1) * hop + window - lead - samples))
    spectra = _magnitudes(original, window, speed * (hop * torch.arange(1.0, frames + 1) - window / 2))
    floor = _FLOOR * max(float(spectra.max()), 1e-5)
    out = torch.zeros_like(padded)
    for first in range(0, frames, _FRAMES_AT_ONCE):
        count = min(_FRAMES_AT_ONCE, frames - first)
        part = slice(first * hop, (first + count + OVERLAP - 1) * hop)
        spectrum = analysis(padded[:, part], window, hop)
        spectrum *= _gains(spectra[first : first + count], floor, rate, 2.0 ** (semitones / 12))
        out[:, part] += synthesis(spectrum, window)
    return out[:, lead : lead + samples].numpy()


def _magnitudes(audio: np.ndarray, window: int, centres: torch.Tensor) -> torch.Tensor:
    """Magnitudes (frames, bins) of the mean of the channels, around `centres` in samples; silence beyond its ends."""
    mono = torch.nn.functional.pad(torch.from_numpy(audio.mean(axis=0, dtype=np.float32)), (window, window))
    starts = (centres.round().long() + window // 2).clamp(0, len(mono) - window)
    frames, shape = mono.unfold(0, window, 1), torch.hann_window(window)
    out = torch.empty(len(starts), window // 2 + 1)
    for first in range(0, len(starts), _FRAMES_AT_ONCE):
        block = slice(first, first + _FRAMES_AT_ONCE)
        out[block] = torch.fft.rfft(frames[starts[block]] * shape).abs()
    return out


def _gains(spectra: torch.Tensor, floor: float, rate: int, factor: float) -> torch.Tensor:
    """Gains (frames, bins) that put back formants moved by `factor`: the envelope over the moved envelope.

    The envelope is the cepstrum up to half of each frame's pitch period, or so.
    """
    cepstrum = torch.fft.irfft(spectra.clamp(min=floor).log())
    shortest, longest = (round(seconds * rate) for seconds in _PERIODS)
    period = shortest + cepstrum[:, shortest:longest].argmax(dim=1)
    lowest, highest = (seconds * rate for seconds in _QUEFRENCIES)
    kept = (_SHARE_OF_PERIOD * period).clamp(lowest, highest)[:, None]
    changes = _changes(cepstrum.shape[1], int(highest) + 1, factor)
    quefrency = torch.arange(len(changes))
    lifter = 0.5 + 0.5 * torch.cos(math.pi * (quefrency / kept).clamp(max=1))  # 0 from `kept` on
    decibels = 20 / math.log(10)
    limit = _MOST_DB / decibels
    return torch.mm(cepstrum[:, : len(changes)] * lifter, changes).clamp_(-limit, limit).exp_()


@cache
def _changes(window: int, quefrencies: int, factor: float) -> torch.Tensor:
    """What each quefrency adds to the envelope less the envelope moved by `factor`, (quefrencies, bins)."""
    bins = torch.arange(window // 2 + 1, dtype=torch.float64)
    angles = 2 * math.pi / window * torch.arange(quefrencies, dtype=torch.float64)[:, None]
    moved = (bins / factor).clamp(max=bins[-1])
    # A cepstrum is symmetric: each quefrency but the first counts for its mirror image too.
    return (2 * (torch.cos(angles * bins) - torch.cos(angles * moved))).float()
