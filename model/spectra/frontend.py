"""The STFT front end: frames of a signal, and a signal from frames.

Spectra have shape (channels, frames, bins): time-major, as the store keeps them. Both windows are
periodic Hann and the hop is a quarter of the window, so that Σ w² is 1.5 at every sample and
`synthesis` undoes `analysis` exactly (Griffin & Lim 1984, eq. 6, with a constant denominator).
"""

import torch

from model.spectra.windows import OVERLAP, FrontEnd

__all__ = ["OVERLAP", "FrontEnd", "analysis", "magnitudes", "spectrogram", "synthesis", "waveform"]

_WINDOW_POWER = 1.5  # Σ over the four overlapping frames of a squared periodic Hann window


def analysis(signal: torch.Tensor, n_fft: int, hop: int) -> torch.Tensor:
    """STFT frames of a signal, without padding: only frames that lie completely inside it.

    Args:
        signal: (…, channels, samples), float.
        n_fft: Window length in samples.
        hop: Samples from one frame to the next.

    Returns:
        Complex (…, channels, frames, bins), with n_fft / 2 + 1 bins.
    """
    framed = signal.unfold(-1, n_fft, hop)
    return torch.fft.rfft(framed * torch.hann_window(n_fft, device=signal.device, dtype=signal.dtype))


def magnitudes(spectrum: torch.Tensor, *, mid_side: bool = False) -> torch.Tensor:
    """What a network sees of a spectrum: |X| and, with `mid_side`, one or two channels more.

    Of two channels these are |L + R| / 2 and |L − R| / 2. For any other number they are not defined, and one
    channel of zeros follows: the side signal of a channel by itself, whose mid is the channel.

    Args:
        spectrum: Complex (…, channels, frames, bins).
        mid_side: Whether the network was built to see mid and side (`Preset.mid_side`).

    Returns:
        Real (…, seen channels, frames, bins): the channels in order, then mid and side, or the zeros.
    """
    if not mid_side:
        return _size(spectrum)
    channels = spectrum.shape[-3]
    seen = 4 if channels == 2 else channels + 1
    out = spectrum.new_empty((*spectrum.shape[:-3], seen, *spectrum.shape[-2:]), dtype=spectrum.real.dtype)
    out[..., :channels, :, :] = _size(spectrum)
    if channels != 2:
        out[..., channels, :, :] = 0
        return out
    left, right = spectrum.unbind(-3)
    out[..., 2, :, :] = _size(left + right).div_(2)
    out[..., 3, :, :] = _size(left - right).div_(2)
    return out


def _size(spectrum: torch.Tensor) -> torch.Tensor:
    """|X|, in a third of the time of `Tensor.abs`, which guards against an overflow that audio cannot reach."""
    real, imaginary = torch.view_as_real(spectrum).unbind(-1)
    return real.square().add_(imaginary.square()).sqrt_()


def synthesis(spectrum: torch.Tensor, n_fft: int) -> torch.Tensor:
    """Overlap-add of frames at hop n_fft / 4.

    The first and last 3 · hop samples are covered by fewer than four frames; a caller that streams
    adds them to its neighbours', one that does not cuts them off.

    Args:
        spectrum: Complex (channels, frames, bins), as `analysis` returns it at that hop.
        n_fft: Window length in samples.

    Returns:
        Float (channels, (frames + 3) · hop).
    """
    channels, frames, _ = spectrum.shape
    hop = n_fft // OVERLAP
    pieces = torch.fft.irfft(spectrum, n=n_fft)
    pieces = pieces * (torch.hann_window(n_fft, device=pieces.device, dtype=pieces.dtype) / _WINDOW_POWER)
    pieces = pieces.reshape(channels, frames, OVERLAP, hop)
    out = pieces.new_zeros(channels, frames + OVERLAP - 1, hop)
    for part in range(OVERLAP):
        out[:, part : part + frames] += pieces[:, :, part]
    return out.reshape(channels, -1)


def spectrogram(signal: torch.Tensor, front_end: FrontEnd) -> torch.Tensor:
    """STFT of a complete signal, padded so that four frames cover every sample.

    Frame f begins at sample (f + 1) · hop − n_fft. An empty signal has no frames.

    Args:
        signal: (channels, samples), float32.
        front_end: Window length and hop; `waveform` undoes it where the hop is n_fft / 4.

    Returns:
        complex64 (channels, frames, bins).
    """
    n_fft, hop = front_end.n_fft, front_end.hop
    frames, samples = front_end.frames(signal.shape[-1]), signal.shape[-1]
    if not frames:
        return signal.new_zeros((signal.shape[0], 0, front_end.bins), dtype=torch.complex64)
    lead = n_fft - hop
    return analysis(torch.nn.functional.pad(signal, (lead, (frames - 1) * hop + n_fft - lead - samples)), n_fft, hop)


def waveform(spectrum: torch.Tensor, front_end: FrontEnd, samples: int) -> torch.Tensor:
    """The signal whose `spectrogram` this is.

    Args:
        spectrum: Complex (channels, frames, bins), changed or not since `spectrogram` returned it.
        front_end: The one that `spectrogram` was given, with a hop of n_fft / 4.
        samples: Length of the signal.

    Returns:
        Float (channels, samples).
    """
    lead = front_end.n_fft - front_end.hop
    return synthesis(spectrum, front_end.n_fft)[:, lead : lead + samples]
