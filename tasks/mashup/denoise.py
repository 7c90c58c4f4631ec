"""A gate in the spectrum for what the separation left behind the voice. Off unless asked for."""

import numpy as np
from scipy import ndimage
from scipy import signal as dsp

_WINDOW, _HOP = 2048, 512
KINDS = ("hard", "soft")


def gate(audio: np.ndarray, rate: int, kind: str, threshold_db: float = -45.0) -> np.ndarray:
    """The audio (channels, samples) with its weak bins taken out; the threshold is below the loudest bin.

    "hard" zeroes every bin below the threshold, as the project that this one grew from tried it: isolated bins
    come and go and ring ("musical noise"), and consonants lose their breath. "soft" follows the level of a bin's
    neighbourhood, in power, with the gain of a Wiener filter, never below −30 dB.
    """
    if kind not in KINDS:
        raise ValueError(f"a gate is {' or '.join(KINDS)}, not {kind}")
    if audio.shape[1] < _WINDOW:
        return audio
    transform = dsp.ShortTimeFFT(dsp.windows.hann(_WINDOW, sym=False), _HOP, rate)
    spectrum = transform.stft(audio)
    power = np.square(np.abs(spectrum))
    threshold = power.max(initial=0) * 10 ** (threshold_db / 10)
    if not threshold:
        return audio
    if kind == "hard":
        gain = (power >= threshold).astype(np.float64)
    else:
        around = ndimage.uniform_filter(power, (1, 7, 5), mode="nearest")
        gain = np.maximum(around / (around + threshold / 4), 10 ** (-30 / 20))
    return transform.istft(spectrum * gain, k1=audio.shape[1]).astype(np.float32)
