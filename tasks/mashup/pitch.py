"""A voice in another key that stays the same person's: its pitch moves, its formants do not."""

import numpy as np
import python_stretch
from scipy import signal as dsp

_WINDOW, _HOP = 2048, 512  # at 44.1 kHz
# In the cepstrum what lies below the pitch period is the vocal tract's, the period's peak and beyond the pitch's.
_PERIODS = (0.00125, 0.0125)  # s: 800 to 80 Hz
_SHARE_OF_PERIOD = 0.7
_QUEFRENCIES = (0.001, 0.004)
_MOST_DB = 20.0


def shift(audio: np.ndarray, rate: int, semitones: float, *, keep_formants: bool = True) -> np.ndarray:
    """The audio (channels, samples) moved by so many semitones, of the same length.

    Signalsmith Stretch moves everything, the formants too. They go back by a gain in every frame: the spectral
    envelope of the original over the same envelope moved (cepstral smoothing, Röbel & Rodet, DAFx 2005).
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
    transform = dsp.ShortTimeFFT(dsp.windows.hann(window, sym=False), hop, rate, fft_mode="onesided")
    if original.shape[1] < window:
        return moved
    envelope = _envelope(transform.stft(original.mean(axis=0)), rate, window)  # log, (bins, frames)
    bins = np.arange(envelope.shape[0])
    position = np.clip(bins / factor, 0, bins[-1])
    low = position.astype(int)
    share = (position - low)[:, None]
    high = np.minimum(low + 1, bins[-1])
    carried = envelope[low] * (1 - share) + envelope[high] * share
    limit = _MOST_DB * np.log(10) / 20
    gain = np.exp(np.clip(envelope - carried, -limit, limit))
    out = transform.istft(transform.stft(moved) * gain, k1=moved.shape[1])
    # The gains change the level a little; the voice should be as loud as it was.
    before, after = (float(np.sqrt(np.square(x).mean())) for x in (original, out))
    return (out * (before / after if after > 1e-9 else 1.0)).astype(np.float32)


def _envelope(spectrum: np.ndarray, rate: int, window: int) -> np.ndarray:
    """Log spectral envelope, (bins, frames), by cepstral smoothing up to half of each frame's pitch period."""
    size = np.abs(spectrum)
    logarithm = np.log(np.maximum(size, 1e-4 * size.max(initial=1e-9)))
    cepstrum = np.fft.irfft(logarithm, axis=0)
    shortest, longest = (round(seconds * rate) for seconds in _PERIODS)
    period = shortest + np.argmax(cepstrum[shortest:longest], axis=0)
    lowest, highest = (seconds * rate for seconds in _QUEFRENCIES)
    keep = np.clip(_SHARE_OF_PERIOD * period, lowest, highest)
    quefrency = np.minimum(np.arange(window), window - np.arange(window))[:, None]
    lifter = np.where(quefrency < keep, 0.5 + 0.5 * np.cos(np.pi * np.minimum(quefrency / keep, 1)), 0.0)
    return np.fft.rfft(cepstrum * lifter, axis=0).real
