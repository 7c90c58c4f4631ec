"""What the masks say about the stems, summed window by window while a song is separated.

A mask m that is the chance of a bin being the stem's errs by m(1 − m)|X|² where stems overlap. So Σ m²|X|² against
Σ m(1 − m)|X|² says how sure the network was, without any reference. Sums are kept per stem and window of one second
(SDR's windows): some hundred bytes per second of audio, whatever its rate.
"""

from collections.abc import Iterator

import numpy as np
import torch

# Per stem and window. CERTAIN: Σ m²|X|². SHARED: Σ m(1 − m)|X|². ENERGY, SIDE: Σ s² of the stem's samples over all
# channels, and the part of it in (L − R)/√2. APART: Σ of squared differences of the views' estimates from their mean.
CERTAIN, SHARED, ENERGY, SIDE, APART = range(5)
_COLUMNS = 5
# Every other frame: frames overlap by three quarters, and half of them tell the same for half the time. (With every
# fourth, predictions of vocals moved by 0.3 dB.)
_EVERY = 2
_RUN = 4096  # samples that are added up at a time


def mask_sums(magnitude: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Sums over channels and bins of some frames.

    Args:
        magnitude: The mixture's |X|, (channels, frames, bins).
        masks: Masks of all stems but the last, (stems − 1, channels, frames, bins).

    Returns:
        (stems, every second frame, 2): CERTAIN and SHARED of each stem, the last being what the others leave.
    """
    mixture = magnitude[:, ::_EVERY]
    estimates = [mixture * mask[:, ::_EVERY] for mask in masks]
    sums = [_certain_and_shared(estimate, mixture) for estimate in estimates]
    if len(estimates) == 1:  # |X| − m|X|: its sums follow from the mixture's and the other stem's
        certain, shared = sums[0].unbind(-1)
        left = _dots(mixture, mixture) - certain - 2 * shared
        return torch.stack([sums[0], torch.stack([left.clamp(min=0), shared], dim=-1)])
    rest = mixture - estimates[0]
    for estimate in estimates[1:]:
        rest -= estimate
    return torch.stack([*sums, _certain_and_shared(rest, mixture)])


def _certain_and_shared(estimate: torch.Tensor, mixture: torch.Tensor) -> torch.Tensor:
    certain = _dots(estimate, estimate)
    return torch.stack([certain, (_dots(estimate, mixture) - certain).clamp(min=0)], dim=-1)


def _dots(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Per frame the sum of products over channels and bins: (channels, frames, bins) twice to (frames,)."""
    if one.device.type != "cpu":
        return (one * other).sum((0, 2))
    return torch.from_numpy(_products(one.numpy(), other.numpy()).sum(0))


def _products(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Sums of products over the last axis.

    By one dot product per row, of a few thousand numbers: BLAS shares longer ones among threads, which wait for each
    other at full speed and add up in an order that their number decides. torch's `vecdot` copies the rows first.
    """
    return np.matmul(one[..., None, :], other[..., None])[..., 0, 0]


class Evidence:
    """The sums of one song, per window of a second.

    Args:
        stems: How many stems there are.
        rate: Samples per second of the song.
    """

    def __init__(self, stems: int, rate: int) -> None:
        self.rate = rate
        self._sums = np.zeros((16, stems, _COLUMNS))
        self.samples = 0

    @property
    def sums(self) -> np.ndarray:
        """(windows, stems, 5): columns CERTAIN … APART. A last, partial second counts only where it is all there is."""
        return self._sums[: max(1, self.samples // self.rate) if self.samples else 0]

    def add_frames(self, sums: torch.Tensor, first: float, hop: float) -> None:
        """Add `mask_sums` of frames.

        Args:
            sums: (stems, frames, 2).
            first: The sample in the middle of the first frame that was summed; negative before the file's start.
            hop: Samples from one frame to the next in what `mask_sums` was given.
        """
        if not sums.shape[1]:
            return
        middles = first + hop * _EVERY * np.arange(sums.shape[1])
        windows = np.maximum(0, middles // self.rate).astype(int)
        self._grow(int(windows[-1]) + 1)
        starts = np.flatnonzero(np.diff(windows, prepend=-1))  # of each window's frames
        frames = sums.double().numpy().transpose(1, 0, 2)
        self._sums[windows[starts], :, : SHARED + 1] += np.add.reduceat(frames, starts)

    def add_samples(self, stems: list[np.ndarray], views: np.ndarray | None = None) -> None:
        """Add a stretch of the song, the next in order.

        Args:
            stems: Every stem, (channels, samples) each.
            views: Each view's estimates of all stems but the last, whose means are these stems
                (views, stems − 1, channels, samples); None where there is one view.
        """
        samples = stems[0].shape[1]
        for window, part in self._cut(samples):
            sums = self._sums[window]
            for index, stem in enumerate(stems):
                sums[index, ENERGY : SIDE + 1] += _energies(stem[:, part])
            if views is not None:
                for index, stem in enumerate(stems[:-1]):
                    apart = (views[:, index, :, part] - stem[:, part]).reshape(-1, part.stop - part.start)
                    # What the views add to one stem, they take from the last.
                    sums[[index, -1], APART] += _inner(apart, apart)
        self.samples += samples

    def _cut(self, samples: int) -> Iterator[tuple[int, slice]]:
        """(window, its part of the next `samples` samples)."""
        start = 0
        while start < samples:
            window = (self.samples + start) // self.rate
            stop = min(samples, (window + 1) * self.rate - self.samples)
            self._grow(window + 1)
            yield window, slice(start, stop)
            start = stop

    def _grow(self, windows: int) -> None:
        missing = windows - len(self._sums)
        if missing > 0:
            more = max(missing, len(self._sums))
            self._sums = np.concatenate([self._sums, np.zeros((more, *self._sums.shape[1:]))])


def _energies(signal: np.ndarray) -> tuple[float, float]:
    """Σ s² over (channels, samples), and of two channels the part in (L − R)/√2; of another number that is 0."""
    energy = _inner(signal, signal)
    if len(signal) != 2:
        return energy, 0.0
    return energy, max(0.0, energy / 2 - _inner(signal[:1], signal[1:]))


def _inner(one: np.ndarray, other: np.ndarray) -> float:
    """Sum of the products of two arrays (rows, samples), in float64 from `_RUN` to `_RUN` samples."""
    runs = one.shape[1] // _RUN
    total = 0.0
    if runs:
        cut = [signal[:, : runs * _RUN].reshape(len(signal), runs, _RUN) for signal in (one, other)]
        total = float(_products(*cut).sum(dtype=np.float64))
    return total + float(_products(one[:, runs * _RUN :], other[:, runs * _RUN :]).sum(dtype=np.float64))


def stem_sums(mixture: np.ndarray, stems: list[np.ndarray], n_fft: int = 4096) -> torch.Tensor:
    """`mask_sums` of stems that came without masks: their magnitudes against the sum of all give the masks back.

    Args:
        mixture: (channels, samples).
        stems: The same of every stem, the last included.

    Returns:
        (stems, frames, 2), of frames n_fft long and, as `Evidence.add_frames` counts every second, n_fft / 4 apart.
    """
    samples = mixture.shape[1]
    window = torch.hann_window(n_fft)
    signals = torch.from_numpy(np.stack(stems)).flatten(0, 1)
    signals = torch.nn.functional.pad(signals, (0, max(0, n_fft - samples)))
    spectra = torch.stft(signals, n_fft, n_fft * _EVERY // 4, window=window, center=False, return_complex=True)
    sizes = spectra.abs().unflatten(0, (len(stems), -1)).transpose(-1, -2)  # (stems, channels, frames, bins)
    total = sizes.sum(0)
    return torch.stack([_certain_and_shared(size, total) for size in sizes])
