"""The numbers of an STFT front end. Arithmetic alone: what plans a run reads presets and needs no torch."""

from dataclasses import dataclass

OVERLAP = 4
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
