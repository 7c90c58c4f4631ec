"""A spectral gate for what the separation left behind the voice. Off by default."""

import numpy as np

_WINDOW, _HOP = 2048, 512
KINDS = ("hard", "soft")


def gate(audio: np.ndarray, rate: int, kind: str, threshold_db: float = -45.0) -> np.ndarray:
    """The audio with its weak bins attenuated.

    "hard" zeroes every bin below the threshold, as the project that this one grew from did: isolated bins
    come and go and ring ("musical noise"), and consonants lose their breath. "soft" follows the power of a bin's
    neighbourhood with the gain of a Wiener filter, never below −30 dB.

    Args:
        audio: (channels, samples).
        rate: Sample rate in Hz.
        kind: "hard" or "soft".
        threshold_db: In dB relative to the loudest bin.

    Returns:
        float32 (channels, samples); the audio itself where it is silent or shorter than 2048 samples.

    Raises:
        ValueError: There is no such kind.
    """
    from scipy import ndimage  # not above: importing it takes longer than a mash-up needs for a minute of music
    from scipy import signal as dsp

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
