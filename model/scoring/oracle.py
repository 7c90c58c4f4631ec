"""The ceiling: the best that a mask could do if it knew the stems."""

import numpy as np
import torch

from model.spectra.frontend import FrontEnd, spectrogram, waveform

_CEILING_FRONT_END = FrontEnd(44100, 4096, 1024)


def ideal_ratio_mask(stems: dict[str, np.ndarray], mixture: np.ndarray, rate: int) -> dict[str, np.ndarray]:
    """Estimates of every stem by the ideal ratio mask |S| / Σ|S| on the mixture's STFT (SiSEC 2018's IRM1).

    Args:
        stems: Per stem its true signal, (channels, samples).
        mixture: The mixture, of the same shape.
        rate: Sample rate in Hz; the STFT is the default preset's at this rate.

    Returns:
        Per stem its estimate, float32 of the same shape.
    """
    front_end = _CEILING_FRONT_END.at_rate(rate)

    def spectrum(signal: np.ndarray) -> torch.Tensor:
        return spectrogram(torch.from_numpy(np.array(signal, np.float32)), front_end)

    sizes = {stem: spectrum(signal).abs() for stem, signal in stems.items()}
    mixed = spectrum(mixture)
    total = sum(sizes.values()) + 1e-10
    return {stem: waveform(mixed * (size / total), front_end, mixture.shape[1]).numpy() for stem, size in sizes.items()}
