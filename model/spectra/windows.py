"""The numbers of an STFT front end. Arithmetic alone: what plans a run reads presets and needs no torch."""

from dataclasses import dataclass

OVERLAP = 4
_DETUNING = 0.005  # how far bins may be (9 cents) from those the network was trained on: less than any singer's vibrato


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

        A file is thus analysed at its original rate, and the network sees the frequencies it was trained on.
        The window is rounded to a length that suits the FFT, at most 0.5 % off.

        Args:
            rate: The file's sample rate in Hz.
        """
        ideal = self.n_fft * rate / self.sample_rate
        return FrontEnd(rate, _window_near(ideal), _window_near(ideal) // OVERLAP)

    def frames(self, samples: int) -> int:
        """How many frames cover every sample of a signal n_fft / hop times; 0 for an empty one.

        Args:
            samples: Length of the signal.
        """
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
