"""Where notes begin: how much louder than a moment before a signal is, over all of its bands and over the lowest."""

from functools import cache

import numpy as np
import torch

ANALYSIS_RATE = 22050
HOP = 256  # 11.6 ms
_WINDOW = 1024
_BANDS, _LOW_BANDS = 96, 6
_FRAMES_AT_ONCE = 512
_LEAST_POWER = 1e-10
_RANGE_DB = 80.0
_LINEAR_BELOW = 1000.0  # Hz, on Slaney's mel scale: 15 mels below, logarithmic above
_MELS_PER_HERTZ = 3 / 200
_MELS_PER_E_FOLD = 27 / np.log(6.4)


@torch.inference_mode()
def onset_envelopes(mono: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much the level rises from one frame to the next, averaged over bands.

    What `librosa.onset.onset_strength` makes of a mel spectrogram in decibels. librosa is not imported: it compiles its
    beat tracker at every import, which takes longer than listening to a song.

    Args:
        mono: float32 (samples,) at `ANALYSIS_RATE`.

    Returns:
        float32 (frames,) each, in dB per frame: over 96 bands, and over the lowest six. Frame f is centred on sample
        f · 256.
    """
    signal = torch.nn.functional.pad(torch.from_numpy(np.ascontiguousarray(mono, np.float32)), (_WINDOW // 2,) * 2)
    frames, window = signal.unfold(0, _WINDOW, HOP), torch.hann_window(_WINDOW)
    filters = torch.from_numpy(mel_filters()).T.contiguous()
    power = torch.empty(len(frames), _BANDS)
    for first in range(0, len(frames), _FRAMES_AT_ONCE):
        block = slice(first, first + _FRAMES_AT_ONCE)
        spectrum = torch.view_as_real(torch.fft.rfft(frames[block] * window))
        torch.mm(spectrum.square_().sum(dim=-1), filters, out=power[block])
    level = power.clamp_(min=_LEAST_POWER).log10_().mul_(10)
    level.clamp_(min=float(level.max()) - _RANGE_DB)
    rise = torch.zeros_like(level)
    torch.sub(level[1:], level[:-1], out=rise[1:])
    rise.clamp_(min=0)
    return rise.mean(dim=1).numpy(), rise[:, :_LOW_BANDS].mean(dim=1).numpy()


@cache
def mel_filters() -> np.ndarray:
    """Triangular filters (96, bins), evenly spaced on Slaney's mel scale from 0 Hz to half the rate, of equal area.

    As `librosa.filters.mel` has them (Slaney, Auditory Toolbox, 1998).
    """
    hertz = np.linspace(0, ANALYSIS_RATE / 2, _WINDOW // 2 + 1)
    highest = _LINEAR_BELOW * _MELS_PER_HERTZ + _MELS_PER_E_FOLD * np.log(ANALYSIS_RATE / 2 / _LINEAR_BELOW)
    mels = np.linspace(0, highest, _BANDS + 2)
    above = mels - _LINEAR_BELOW * _MELS_PER_HERTZ
    corners = np.where(above < 0, mels / _MELS_PER_HERTZ, _LINEAR_BELOW * np.exp(above / _MELS_PER_E_FOLD))
    widths = np.diff(corners)
    rising = (hertz - corners[:-2, None]) / widths[:-1, None]
    falling = (corners[2:, None] - hertz) / widths[1:, None]
    areas = (corners[2:] - corners[:-2])[:, None] / 2
    return (np.maximum(0, np.minimum(rising, falling)) / areas).astype(np.float32)
