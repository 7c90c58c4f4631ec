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
# Every other frame: frames overlap by three quarters, and half of them tell the same for half the time.
_EVERY = 2


def mask_sums(magnitude: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Sums over channels and bins of some frames.

    Args:
        magnitude: The mixture's |X|, (channels, frames, bins).
        masks: Masks of all stems but the last, (stems − 1, channels, frames, bins).

    Returns:
        (stems, every second frame, 2): CERTAIN and SHARED of each stem, the last being what the others leave.
    """
    seen = magnitude[:, ::_EVERY]
    rest = seen
    sums = []
    for mask in masks:
        estimate = seen * mask[:, ::_EVERY]
        sums.append(_certain_and_shared(estimate, seen))
        rest = rest - estimate
    if len(masks) == 1:  # |X| − m|X|: its sums follow from the mixture's and the other stem's
        certain, shared = sums[0].unbind(-1)
        mixture = torch.linalg.vecdot(seen, seen).sum(0)
        sums.append(torch.stack([(mixture - certain - 2 * shared).clamp(min=0), shared], dim=-1))
    else:
        sums.append(_certain_and_shared(rest, seen))
    return torch.stack(sums)


def _certain_and_shared(estimate: torch.Tensor, mixture: torch.Tensor) -> torch.Tensor:
    certain = torch.linalg.vecdot(estimate, estimate).sum(0)
    return torch.stack([certain, (torch.linalg.vecdot(estimate, mixture).sum(0) - certain).clamp(min=0)], dim=-1)


class Evidence:
    """The sums of one song, per window of a second.

    Args:
        stems: How many stems there are.
        rate: Samples per second of the song.
    """

    def __init__(self, stems: int, rate: int) -> None:
        self.rate = rate
        self._sums = np.zeros((16, stems, _COLUMNS))
        self._mixture = np.zeros((16, 2))  # ENERGY and SIDE of the mixture
        self.samples = 0

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    @property
    def sums(self) -> np.ndarray:
        """(windows, stems, 5): columns CERTAIN … APART. A last, partial second counts only where it is all there is."""
        return self._sums[: self._windows()]

    @property
    def mixture(self) -> np.ndarray:
        """(windows, 2): Σ x² over all channels, and the part of it in (L − R)/√2."""
        return self._mixture[: self._windows()]

    def add_frames(self, sums: torch.Tensor, first: float, hop: float) -> None:
        """Add `mask_sums` of frames.

        Args:
            sums: (stems, frames, 2).
            first: The sample in the middle of the first frame that was summed; negative before the file's start.
            hop: Samples from one frame to the next in what `mask_sums` was given.
        """
        middles = first + hop * _EVERY * np.arange(sums.shape[1])
        windows = np.maximum(0, middles // self.rate).astype(int)
        self._grow(int(windows[-1]) + 1 if len(windows) else 0)
        np.add.at(self._sums[..., :2], windows, sums.double().numpy().transpose(1, 0, 2))

    def add_samples(self, mixture: np.ndarray, stems: list[np.ndarray], views: torch.Tensor | None = None) -> None:
        """Add a stretch of the song, the next in order.

        Args:
            mixture: (channels, samples).
            stems: The same of every stem.
            views: Each view's estimates of all stems but the last (views, stems − 1, channels, samples), or None.
        """
        for window, part in self._cut(mixture.shape[1]):
            self._mixture[window] += _energies(mixture[:, part])
            for index, stem in enumerate(stems):
                self._sums[window, index, ENERGY : SIDE + 1] += _energies(stem[:, part])
            if views is not None:
                seen = views[..., part]
                apart = (seen - seen.mean(0)).square().sum((0, 2, 3)).double().numpy()
                self._sums[window, :, APART] += [*apart, apart.sum()]
        self.samples += mixture.shape[1]

    def _cut(self, samples: int) -> Iterator[tuple[int, slice]]:
        """(window, its part of the next `samples` samples)."""
        start = 0
        while start < samples:
            window = (self.samples + start) // self.rate
            stop = min(samples, (window + 1) * self.rate - self.samples)
            self._grow(window + 1)
            yield window, slice(start, stop)
            start = stop

    def _windows(self) -> int:
        return max(1, self.samples // self.rate) if self.samples else 0

    def _grow(self, windows: int) -> None:
        missing = windows - len(self._sums)
        if missing > 0:
            more = max(missing, len(self._sums))
            self._sums = np.concatenate([self._sums, np.zeros((more, *self._sums.shape[1:]))])
            self._mixture = np.concatenate([self._mixture, np.zeros((more, 2))])


def _energies(signal: np.ndarray) -> tuple[float, float]:
    """Σ s² over (channels, samples), and of two channels the part in (L − R)/√2; of another number that is 0."""
    rows = [np.ascontiguousarray(row) for row in signal]
    energy = sum(float(np.dot(row, row)) for row in rows)
    if len(rows) != 2:
        return energy, 0.0
    return energy, max(0.0, energy / 2 - float(np.dot(rows[0], rows[1])))


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
