"""The STFT front end: frames of a signal, and a signal from frames.

Spectra have shape (channels, frames, bins): time-major, as the store keeps them. Both windows are
periodic Hann and the hop is a quarter of the window, so that Σ w² is 1.5 at every sample and
`synthesis` undoes `analysis` exactly (Griffin & Lim 1984, eq. 6, with a constant denominator).
"""

from dataclasses import dataclass

import torch

OVERLAP = 4
_WINDOW_POWER = 1.5  # Σ over the four overlapping frames of a squared periodic Hann window
_DETUNING = 0.005  # bins may lie this much (9 cents) off the network's own: less than any singer's vibrato


@dataclass(frozen=True)
class FrontEnd:
    """Window length `n_fft` and `hop`, both in samples at `sample_rate`."""

    sample_rate: int
    n_fft: int
    hop: int

    @property
    def bins(self) -> int:
        return self.n_fft // 2 + 1

    def at_rate(self, rate: int) -> "FrontEnd":
        """The front end with the same bin spacing in Hz at another sample rate, its hop n_fft / 4.

        A file is thus taken apart at its own rate and the network sees the frequencies it knows.
        The window is rounded to a length that Fourier transforms like, at most 0.5 % off.
        """
        ideal = self.n_fft * rate / self.sample_rate
        return FrontEnd(rate, _window_near(ideal), _window_near(ideal) // OVERLAP)

    def frames(self, samples: int) -> int:
        """How many frames cover every sample of a signal four times."""
        return -(-(samples + self.n_fft - self.hop) // self.hop) if samples else 0


def _window_near(ideal: float) -> int:
    """The multiple of 4 within the tolerance whose largest prime factor is smallest, then the nearest."""
    lowest = max(OVERLAP, int(ideal * (1 - _DETUNING)))
    near = [n for n in range(lowest, int(ideal * (1 + _DETUNING)) + 2) if n % OVERLAP == 0]
    if not near:
        near = [max(OVERLAP, OVERLAP * round(ideal / OVERLAP))]
    return min(near, key=lambda n: (_largest_prime(n) > 7, abs(n - ideal)))


def _largest_prime(n: int) -> int:
    largest, factor = 1, 2
    while n > 1:
        while n % factor == 0:
            largest, n = factor, n // factor
        factor += 1
    return largest


def analysis(signal: torch.Tensor, n_fft: int, hop: int) -> torch.Tensor:
    """Frames of `signal` (channels, samples) that lie wholly inside it: complex (channels, frames, bins)."""
    framed = signal.unfold(-1, n_fft, hop)
    return torch.fft.rfft(framed * torch.hann_window(n_fft, device=signal.device, dtype=signal.dtype))


def magnitudes(spectrum: torch.Tensor, *, mid_side: bool = False) -> torch.Tensor:
    """What a network sees of a spectrum (…, channels, frames, bins): |X| and, with `mid_side`, two channels more.

    Of two channels these are |L + R| / 2 and |L − R| / 2. Of any other number they are not defined, and one
    channel of zeros follows: the side signal of a channel by itself, whose mid is the channel.
    """
    size = _size(spectrum)
    if not mid_side:
        return size
    if spectrum.shape[-3] != 2:
        return torch.cat([size, torch.zeros_like(size[..., :1, :, :])], dim=-3)
    left, right = spectrum.unbind(-3)
    return torch.cat([size, torch.stack([_size(left + right) / 2, _size(left - right) / 2], dim=-3)], dim=-3)


def _size(spectrum: torch.Tensor) -> torch.Tensor:
    """|X|, in a third of the time of `Tensor.abs`, which guards against an overflow that audio cannot reach."""
    real, imaginary = torch.view_as_real(spectrum).unbind(-1)
    return (real.square() + imaginary.square()).sqrt_()


def synthesis(spectrum: torch.Tensor, n_fft: int) -> torch.Tensor:
    """Overlap-add of frames at hop n_fft/4: (channels, (frames + 3) · hop).

    The first and last 3 · hop samples are covered by fewer than four frames; a caller that streams
    adds them to its neighbours', one that does not cuts them off.
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
    """Complex STFT (channels, frames, bins) of a whole signal, padded so that four frames cover every sample.

    Frame f begins at sample (f + 1) · hop − n_fft. An empty signal has no frames.
    """
    n_fft, hop = front_end.n_fft, front_end.hop
    frames, samples = front_end.frames(signal.shape[-1]), signal.shape[-1]
    if not frames:
        return signal.new_zeros((signal.shape[0], 0, front_end.bins), dtype=torch.complex64)
    lead = n_fft - hop
    return analysis(torch.nn.functional.pad(signal, (lead, (frames - 1) * hop + n_fft - lead - samples)), n_fft, hop)


def waveform(spectrum: torch.Tensor, front_end: FrontEnd, samples: int) -> torch.Tensor:
    """The signal (channels, samples) whose `spectrogram` this is."""
    lead = front_end.n_fft - front_end.hop
    return synthesis(spectrum, front_end.n_fft)[:, lead : lead + samples]
