"""The STFT front end: frames of a signal, and a signal from frames.

Spectra have shape (channels, frames, bins): time-major, as the store keeps them. Both windows are
periodic Hann and the hop is a quarter of the window, so that Σ w² is 1.5 at every sample and
`synthesis` undoes `analysis` exactly (Griffin & Lim 1984, eq. 6, with a constant denominator).
"""

import numpy as np
import torch

from model.spectra.windows import OVERLAP, FrontEnd

__all__ = ["OVERLAP", "FrontEnd", "analysis", "magnitudes", "spectrogram", "synthesis", "waveform"]

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
_FRAMES = 16  # of two channels are worked on at a time on a CPU: what fits into its cache is several times as fast
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
    window = torch.hann_window(n_fft, device=signal.device, dtype=signal.dtype)
    if signal.device.type != "cpu" or torch.is_grad_enabled():
        return torch.fft.rfft(framed * window)
    frames = framed.shape[-2]
    spectrum = torch.empty((*framed.shape[:-1], n_fft // 2 + 1), dtype=_COMPLEX[signal.dtype])
    signals = max(1, framed[..., 0, 0].numel())
    for part in _parts(frames, max(1, 2 * _FRAMES // signals)):
        spectrum[..., part, :] = torch.fft.rfft(framed[..., part, :] * window)
    return spectrum


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
    channels = spectrum.shape[-3]
    seen = channels if not mid_side else 4 if channels == 2 else channels + 1
    out = spectrum.new_empty((*spectrum.shape[:-3], seen, *spectrum.shape[-2:]), dtype=spectrum.real.dtype)
    frames = spectrum.shape[-2]
    for part in _parts(frames) if spectrum.device.type == "cpu" else [slice(0, frames)]:
        _write_magnitudes(spectrum[..., part, :], out[..., part, :])
    return out


def _write_magnitudes(spectrum: torch.Tensor, out: torch.Tensor) -> None:
    channels = spectrum.shape[-3]
    _write_size(spectrum, out[..., :channels, :, :])
    if out.shape[-3] == channels:
        return
    if channels != 2:
        out[..., channels, :, :] = 0
        return
    left, right = spectrum.unbind(-3)
    _write_size(left + right, out[..., 2, :, :])
    _write_size(left - right, out[..., 3, :, :])
    out[..., 2:, :, :] /= 2


def _parts(frames: int, size: int = _FRAMES) -> list[slice]:
    return [slice(start, start + size) for start in range(0, frames, size)]


def _write_size(spectrum: torch.Tensor, out: torch.Tensor) -> None:
    """Write |X| into `out`."""
    if spectrum.device.type == "cpu" and not spectrum.requires_grad:
        np.abs(spectrum.numpy(), out=out.numpy())  # a tenth of the time of `Tensor.abs`, which torch does not vectorise
        return
    # A third of that time; `Tensor.abs` guards against an overflow that audio cannot reach.
    real, imaginary = torch.view_as_real(spectrum).unbind(-1)
    out.copy_(real.square().add_(imaginary.square()).sqrt_())


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
    window = torch.hann_window(n_fft, device=spectrum.device, dtype=spectrum.real.dtype) / _WINDOW_POWER
    out = window.new_zeros(channels, frames + OVERLAP - 1, hop)
    # The last frames first: a sample's four frames are then added in one order, however the frames are parted.
    for part in reversed(_parts(frames)) if spectrum.device.type == "cpu" else [slice(0, frames)]:
        pieces = torch.fft.irfft(spectrum[:, part], n=n_fft) * window
        pieces = pieces.reshape(channels, -1, OVERLAP, hop)
        for lag in range(OVERLAP):
            out[:, part.start + lag : part.start + lag + pieces.shape[1]] += pieces[:, :, lag]
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
