"""A voice in another key that remains the same person's: its pitch moves, its formants do not."""

from functools import partial

import numpy as np
import python_stretch
import torch
from scipy import fft

_WINDOW, _HOP = 2048, 512  # at 44.1 kHz
# In the cepstrum, what lies below the pitch period is the vocal tract's; the peak at the period and all beyond is the
# pitch's.
_PERIODS = (0.00125, 0.0125)  # s: 800 to 80 Hz
_SHARE_OF_PERIOD = 0.7
_QUEFRENCIES = (0.001, 0.004)
_MOST_DB = 20.0
_FRAMES_AT_ONCE = 1024


def shift(audio: np.ndarray, rate: int, semitones: float, *, keep_formants: bool = True) -> np.ndarray:
    """The audio transposed, of the same length.

    Signalsmith Stretch moves everything, the formants too. They are put back by a gain in every frame: the spectral
    envelope of the original over the same envelope moved (cepstral smoothing, Röbel & Rodet, DAFx 2005).

    Args:
        audio: float32 (channels, samples).
        rate: Sample rate in Hz.
        semitones: Upwards; negative for downwards.
        keep_formants: Whether to put the formants back.

    Returns:
        float32 (channels, samples); the audio itself for 0 semitones.
    """
    if not semitones:
        return audio
    processor = python_stretch.Signalsmith.Stretch()
    processor.preset(audio.shape[0], rate)
    processor.setTransposeSemitones(float(semitones))
    moved = np.asarray(processor.process(np.ascontiguousarray(audio, np.float32)))
    moved = np.pad(moved[:, : audio.shape[1]], ((0, 0), (0, max(0, audio.shape[1] - moved.shape[1]))))
    return _with_formants_of(audio, moved, rate, 2.0 ** (semitones / 12)) if keep_formants else moved


def _with_formants_of(original: np.ndarray, moved: np.ndarray, rate: int, factor: float) -> np.ndarray:
    scale = max(1, round(rate / 44100))
    window, hop = _WINDOW * scale, _HOP * scale
    if original.shape[1] < window:
        return moved
    shape = torch.hann_window(window)
    transform = partial(
        torch.stft, n_fft=window, hop_length=hop, window=shape, pad_mode="constant", return_complex=True
    )
    spectrum = transform(torch.from_numpy(original.mean(axis=0))).abs().T.contiguous().numpy()  # (frames, bins)
    floor = 1e-4 * spectrum.max(initial=1e-9)
    transformed = transform(torch.from_numpy(moved))  # (channels, bins, frames)
    for first in range(0, len(spectrum), _FRAMES_AT_ONCE):
        block = slice(first, first + _FRAMES_AT_ONCE)
        transformed[..., block] *= torch.from_numpy(_gains(spectrum[block], floor, rate, factor)).T
    out = torch.istft(transformed, window, hop, window=shape, length=moved.shape[1]).numpy()
    # The gains change the level a little; the voice should be as loud as it was.
    before, after = (float(np.sqrt(np.square(x).mean())) for x in (original, out))
    return (out * (before / after if after > 1e-9 else 1.0)).astype(np.float32)


def _gains(spectrum: np.ndarray, floor: float, rate: int, factor: float) -> np.ndarray:
    """Gains (frames, bins) that put back formants moved by `factor`: the envelope over the moved envelope."""
    envelope = _envelope(spectrum, floor, rate)
    bins = np.arange(envelope.shape[1])
    position = np.clip(bins / factor, 0, bins[-1])
    low = position.astype(int)
    share = (position - low).astype(np.float32)
    carried = envelope[:, low] * (1 - share) + envelope[:, np.minimum(low + 1, bins[-1])] * share
    limit = _MOST_DB * np.log(10) / 20
    return np.exp(np.clip(envelope - carried, -limit, limit))


def _envelope(spectrum: np.ndarray, floor: float, rate: int) -> np.ndarray:
    """Log spectral envelope, (frames, bins), by cepstral smoothing up to half of each frame's pitch period."""
    cepstrum = fft.irfft(np.log(np.maximum(spectrum, np.float32(floor))), axis=1)
    window = cepstrum.shape[1]
    shortest, longest = (round(seconds * rate) for seconds in _PERIODS)
    period = shortest + np.argmax(cepstrum[:, shortest:longest], axis=1)
    lowest, highest = (seconds * rate for seconds in _QUEFRENCIES)
    keep = np.clip(_SHARE_OF_PERIOD * period, lowest, highest)[:, None]
    # Nothing beyond the longest quefrency is kept: the lifter is made up to there, and mirrored.
    reach = int(_QUEFRENCIES[1] * rate) + 1
    quefrency = np.arange(reach)
    lifter = np.where(quefrency < keep, 0.5 + 0.5 * np.cos(np.pi * np.minimum(quefrency / keep, 1)), 0.0)
    lifter = lifter.astype(np.float32)
    cepstrum[:, :reach] *= lifter
    cepstrum[:, reach : window - reach + 1] = 0
    cepstrum[:, window - reach + 1 :] *= lifter[:, :0:-1]
    return fft.rfft(cepstrum, axis=1).real
