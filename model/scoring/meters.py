"""Loudness, true peak and activity of a signal that arrives in blocks."""

import numpy as np
import torch

from model.scoring.weighting import KWeighting

SILENCE_LUFS = -70.0  # BS.1770-4's absolute gate
_BLOCK_PARTS = 4  # a gating block is 400 ms and starts every 100 ms
_ACTIVE_BELOW_MIXTURE = 20.0  # LU under the mixture's loudness at which a stem stops counting as active
_TAPS_PER_PHASE = 12
_OVERSAMPLING = 4
RUN = 1 << 16  # samples that are measured at a time: what fits into a core's cache is twice as fast


class LoudnessMeter:
    """Integrated loudness after ITU-R BS.1770-4.

    Args:
        rate: Sample rate in Hz.
        channels: Channels of the signal, in WAV order.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self._weighting = KWeighting(rate, channels)
        self._weights = np.array(_channel_weights(channels))
        self._part = max(1, round(rate * 0.4 / _BLOCK_PARTS))
        self._samples = 0
        self._open = 0.0  # sum of the squares of a part that is not complete
        self._powers: list[np.ndarray] = []

    @classmethod
    def of(cls, audio: np.ndarray, rate: int) -> "LoudnessMeter":
        """A meter that a complete signal has passed.

        Args:
            audio: (channels, samples), full scale 1.0.
            rate: Its sample rate in Hz.
        """
        meter = cls(rate, audio.shape[0])
        meter.push(audio)
        return meter

    def push(self, block: np.ndarray) -> None:
        """Add samples.

        Args:
            block: The signal's next samples, (channels, samples), of any length.
        """
        for start in range(0, block.shape[1], RUN):
            self.add(self.weighted(block[:, start : start + RUN]))

    def weighted(self, block: np.ndarray) -> np.ndarray:
        """Samples as `add` takes them; `push` is both.

        Weighting is linear: the sum of several signals' weighted samples is that of their sum.

        Args:
            block: The signal's next samples, (channels, samples), at most `RUN` of them for speed.

        Returns:
            K-weighted, float64, of the same shape.
        """
        return self._weighting.push(block)

    def add(self, weighted: np.ndarray) -> None:
        """Measure weighted samples.

        Args:
            weighted: The next samples, (channels, samples).
        """
        power = self._weights @ np.square(weighted)
        missing = min(-self._samples % self._part, len(power))  # of the part that is open
        self._samples += len(power)
        self._open += float(power[:missing].sum())
        starts = np.arange(missing, len(power), self._part)
        sums = [self._open, *(np.add.reduceat(power, starts) if len(starts) else ())]
        # The last is open again unless it ends here; the first was none where no part was open.
        self._open = sums.pop() if self._samples % self._part else 0.0
        self._powers.append(np.array(sums[0 if missing else 1 :]) / self._part)

    def blocks(self) -> np.ndarray:
        """Loudness of every 400 ms block in LUFS, −inf where it is silent."""
        parts = np.concatenate(self._powers) if self._powers else np.zeros(0)
        if len(parts) < _BLOCK_PARTS:
            return np.zeros(0)
        sums = np.convolve(parts, np.ones(_BLOCK_PARTS), mode="valid") / _BLOCK_PARTS
        return _lufs(np.maximum(sums, 0))

    def integrated(self) -> float | None:
        """LUFS of the signal after both gates; None below 400 ms or where all of it is under the absolute gate."""
        loudness = self.blocks()
        loud = loudness[loudness > SILENCE_LUFS]
        if not len(loud):
            return None
        relative = _lufs(np.mean(_power(loud))) - 10.0
        return float(_lufs(np.mean(_power(loud[loud > relative]))))


class TruePeakMeter:
    """The largest magnitude between the samples, by fourfold oversampling (BS.1770-4, annex 2).

    A stretch whose samples cannot reach the peak so far, whatever lies between them, is passed over:
    the result is the same and the work a small part.

    Args:
        channels: Channels of the signal.
    """

    _STRETCH = 2048

    def __init__(self, channels: int) -> None:
        self._phases = oversampling_phases()
        self._gain = float(self._phases.abs().sum(dim=0).max())
        self._before = np.zeros((channels, _TAPS_PER_PHASE), np.float32)
        self._peak = 0.0

    def push(self, block: np.ndarray) -> None:
        """Add samples.

        Args:
            block: The signal's next samples, (channels, samples), of any length.
        """
        for start in range(0, block.shape[1], RUN):
            self._push(block[:, start : start + RUN])

    def _push(self, block: np.ndarray) -> None:
        signal = np.concatenate([self._before, block], axis=1)
        self._before = signal[:, -_TAPS_PER_PHASE:].copy()
        sizes = np.abs(signal).max(axis=0)
        self._peak = max(self._peak, float(sizes[_TAPS_PER_PHASE:].max()))
        starts = range(_TAPS_PER_PHASE, signal.shape[1], self._STRETCH)
        stretches = [slice(start - _TAPS_PER_PHASE, start + self._STRETCH) for start in starts]
        peaks = [float(sizes[stretch].max()) for stretch in stretches]
        for index in np.argsort(peaks)[::-1]:
            if peaks[index] * self._gain <= self._peak:
                break
            # What ends before the stretch's own samples belongs to the one before.
            stretch = torch.from_numpy(signal[:, stretches[index]]).double()
            windows = stretch[:, 1:].unfold(-1, _TAPS_PER_PHASE, 1)
            between = torch.matmul(windows.reshape(-1, _TAPS_PER_PHASE), self._phases)
            self._peak = max(self._peak, float(between.abs().amax()) if len(between) else 0.0)

    def decibels(self) -> float | None:
        """dBTP, None for silence."""
        return 20 * float(np.log10(self._peak)) if self._peak else None


def oversampling_phases() -> torch.Tensor:
    """The filter by phases: as a matrix (12, 4) it makes of twelve samples the four values in their middle; float64."""
    return torch.from_numpy(oversampling_filter().reshape(_TAPS_PER_PHASE, _OVERSAMPLING)[::-1].copy())


def oversampling_filter() -> np.ndarray:
    """The low-pass filter that puts three values between every two samples: a sinc in a Kaiser window (β = 5).

    Returns:
        (48,); every fourth value belongs to the same place between samples.
    """
    taps = _OVERSAMPLING * _TAPS_PER_PHASE
    places = (np.arange(taps) - (taps - 1) / 2) / _OVERSAMPLING
    low_pass = np.sinc(places) * np.kaiser(taps, 5.0)
    return low_pass / low_pass.sum() * _OVERSAMPLING


def activity(stem: np.ndarray, mixture_loudness: float | None) -> float | None:
    """How much of the time a stem sounds.

    Args:
        stem: Loudness of the stem's blocks of 400 ms, in LUFS.
        mixture_loudness: Integrated loudness of the mixture in LUFS, None where it is silent.

    Returns:
        The share of blocks, 0 … 1, that are less than 20 LU below the mixture; None without blocks.
    """
    if not len(stem) or mixture_loudness is None:
        return None
    return float(np.mean(stem > max(SILENCE_LUFS, mixture_loudness - _ACTIVE_BELOW_MIXTURE)))


def _channel_weights(channels: int) -> list[float]:
    """BS.1770's: surrounds count 1.41; in 5.1 the LFE, fourth in WAV order, does not count."""
    return {5: [1, 1, 1, 1.41, 1.41], 6: [1, 1, 1, 0, 1.41, 1.41]}.get(channels, [1.0] * channels)


def _lufs(power):
    with np.errstate(divide="ignore"):
        return -0.691 + 10 * np.log10(power)


def _power(lufs):
    return 10 ** ((lufs + 0.691) / 10)
