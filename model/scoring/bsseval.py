"""BSSEval v4 (images) as museval computes it, from short correlations instead of long convolutions.

The definitions are those of Vincent, Griesbaum & Gribonval 2006 and of museval 0.4: an estimate is split
into its reference s, the spatial error p − s, interference q − p and artifacts ŝ − q, where p and q are
its projections on 512 delays of its reference, and of all references. The filters belong to the
complete song, the energies to windows of a second whose signals are zero outside.

What museval does by convolving is done here by correlating. The energy of filters h on signals x,

    ‖Σ_a h_a * x_a‖² = Σ_ab Σ_lag W_ab[lag] · R_ab[lag],

needs of a window only the correlations R at lags below 512, which come from short FFTs of blocks of
the window, and of the filters only their correlations W, once per song. The song's correlations, which
the filters are solved from, are the sum of its windows' and of what crosses their borders.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from model.scoring.normal_equations import FILTER_LENGTH, projection

_FFT_LENGTH = 2500  # a block and 511 samples after it; 2²·5⁴, and 23 blocks per second at 44.1 kHz
_BORDER_LENGTH = 1536  # 511 samples on either side of a border, and 511 lags
_WINDOWS_AT_A_TIME = 4
_CHANNELS_AT_A_TIME = 16  # of z: the buffers of eight systems together would leave the cache
_BORDERS_AT_A_TIME = 16
_KEEP_BYTES = 300 << 20  # per system: so much of the windows' correlations is kept for the second pass; more is not
_CANCELLED = 1e-10  # an energy below this share of those it is the sum of has lost its digits


@dataclass(frozen=True)
class BSSEval:
    """Scores in dB per stem and window, float64 (stems, windows). NaN where museval says silence."""

    sdr: np.ndarray
    isr: np.ndarray
    sir: np.ndarray
    sar: np.ndarray


def bss_eval(references: np.ndarray, estimates: np.ndarray, window: int, *, device: str = "cpu") -> BSSEval:
    """Scores of one system's estimates; see `bss_eval_systems`.

    Args:
        references: float (stems, channels, samples).
        estimates: the same shape.
        window: in samples.
        device: where the arithmetic runs.

    Raises:
        ValueError: The shapes differ.
    """
    return bss_eval_systems(references, [estimates], window, device=device)[0]


def bss_eval_systems(
    references: np.ndarray, systems: Sequence[np.ndarray], window: int, *, device: str = "cpu"
) -> list[BSSEval]:
    """Scores of several systems' estimates of the same references.

    Each is equal to `museval.metrics.bss_eval(window=window, hop=window, compute_permutation=False,
    filters_len=512, framewise_filters=False)`; what is left after the last complete window shapes the filters
    and has no score. Where museval has no answer there is one here: a song with a silent stem has NaN in every
    window, a song shorter than a window has none, and of reference channels that are copies of each
    other one is enough. The references are transformed, and their matrix is factorised, once for all systems.

    Args:
        references: float (stems, channels, samples).
        systems: Each system's estimates, of the references' shape.
        window: in samples.
        device: where the arithmetic runs.

    Returns:
        The scores of each system, in order.

    Raises:
        ValueError: The shapes differ.
    """
    for estimates in systems:
        if references.shape != estimates.shape or references.ndim != 3:
            raise ValueError(f"references {references.shape} and estimates {estimates.shape} differ in shape")
    song = _Song(references, systems, window, torch.device(device))
    values = np.full((len(systems), 4, song.stems, song.windows), np.nan)
    audible = _audible(references, window)
    counted = [audible & _audible(estimates, window) for estimates in systems]
    if any(mask.any() for mask in counted):
        energies = {
            name: energy.reshape(len(systems), song.stems, song.windows) for name, energy in _energies(song).items()
        }
        with np.errstate(divide="ignore", invalid="ignore"):
            numerators = [energies[name] for name in ("true", "true", "own", "all")]
            denominators = [energies[name] for name in ("error", "spatial", "interference", "artifacts")]
            for index, (above, below) in enumerate(zip(numerators, denominators, strict=True)):
                values[:, index] = 10 * (np.log10(above) - np.log10(np.maximum(below, 0)))
        for system, mask in zip(values, counted, strict=True):
            system[:, :, ~mask] = np.nan
    return [BSSEval(*system) for system in values]


def _audible(signals: np.ndarray, window: int) -> np.ndarray:
    """Windows, (windows,), in which no stem's channels sum to zero at every sample."""
    windows = signals.shape[2] // window
    audible = np.ones(windows, bool)
    for index in range(windows):
        # float64, as museval's arrays are: in float32 near-opposite channels could round to silence.
        sums = signals[:, :, index * window : (index + 1) * window].sum(axis=1, dtype=np.float64)
        audible[index] = bool(sums.any(axis=1).all())
    return audible


class _Song:
    """The signals: distinct reference channels `x`, all systems' channels `y`, and how windows cut them.

    Estimates of all systems are numbered through, system by system; number e is one of stem `e % stems`.
    """

    def __init__(
        self, references: np.ndarray, systems: Sequence[np.ndarray], window: int, device: torch.device
    ) -> None:
        self.stems, self.channels, self.samples = references.shape
        self.window, self.windows, self.device = window, references.shape[2] // window, device
        flat = references.reshape(-1, self.samples)
        keep, self.column = _distinct(flat)
        self.x = [flat[index] for index in keep]
        self.y = [channel for estimates in systems for channel in estimates.reshape(-1, self.samples)]
        self.systems, self.estimates = len(systems), len(systems) * self.stems

    def own(self, stem: int) -> list[int]:
        """The distinct reference channels of a stem, each once."""
        return sorted({self.column[stem * self.channels + channel] for channel in range(self.channels)})

    def cut(self, start: int, stop: int) -> torch.Tensor:
        """x and y over a stretch, float64 (channels of x and y, samples), zero beyond the end."""
        inside = max(start, min(stop, self.samples))
        part = np.zeros((len(self.x) + len(self.y), stop - start))
        for row, signal in enumerate((*self.x, *self.y)):
            part[row, : inside - start] = signal[start:inside]
        return torch.from_numpy(part).to(self.device)

    def windows_at(self, first: int, windows: int) -> torch.Tensor:
        """x and y over some windows, (channels, windows, samples)."""
        part = self.cut(first * self.window, (first + windows) * self.window)
        return part.unflatten(1, (windows, self.window))

    def spans(self) -> Iterator[tuple[int, int]]:
        """(first window, number) of groups of windows; the part after the last window counts as one more."""
        count = -(-self.samples // self.window)
        for first in range(0, count, _WINDOWS_AT_A_TIME):
            yield first, min(_WINDOWS_AT_A_TIME, count - first)


def _distinct(signals: np.ndarray) -> tuple[list[int], list[int]]:
    """Rows that are no copies of earlier ones, and for every row its place among them."""
    keep: list[int] = []
    place: list[int] = []
    for index, signal in enumerate(signals):
        same = next((k for k, kept in enumerate(keep) if np.array_equal(signals[kept], signal)), None)
        if same is None:
            same = len(keep)
            keep.append(index)
        place.append(same)
    return keep, place


def _window_correlations(part: torch.Tensor, count: int) -> torch.Tensor:
    """R[w, a, b, lag] = Σ_n x_a[n] · z_b[n + lag] inside each window, z being x and then y; lags 0…511.

    part: (channels of z, windows, samples), of which the first `count` are x. Blocks of x against blocks of z
    that reach 511 samples further, never out of the window: one FFT per block, one matrix product per frequency, one
    inverse FFT per pair. Blocks of x are reversed in time, which conjugates their spectrum but for a delay.
    """
    channels, windows, samples = part.shape
    lags = FILTER_LENGTH - 1
    blocks = -(-samples // (_FFT_LENGTH - lags))
    size = -(-samples // blocks)
    room = (blocks - 1) * size + _FFT_LENGTH
    windowed = part.new_empty(windows, count, channels, FILTER_LENGTH)
    padded = part.new_zeros(channels, room)
    reversed_ = part.new_zeros(count, blocks, _FFT_LENGTH)
    # Buffers for all windows: large tensors made anew in each would cost more than what is computed in them.
    frequencies = _FFT_LENGTH // 2 + 1
    complex_ = partial(torch.empty, dtype=torch.complex128, device=part.device)
    x_spectra, x = complex_(count, blocks, frequencies), complex_(frequencies, count, blocks)
    groups = [range(channels)[first : first + _CHANNELS_AT_A_TIME] for first in range(0, channels, _CHANNELS_AT_A_TIME)]
    buffers = {
        many: (
            complex_(blocks, many, frequencies), complex_(frequencies, blocks, many),
            complex_(frequencies, count, many), complex_(count * many, frequencies),
            part.new_empty(count * many, _FFT_LENGTH),
        )
        for many in {len(group) for group in groups}
    }  # fmt: skip
    for window in range(windows):
        padded[:, :samples] = part[:, window]
        # What a block sees beyond its 511 samples only reaches lags that nobody reads.
        reaching = padded.unfold(1, _FFT_LENGTH, size)
        reversed_[..., :size] = reaching[:count, :, :size].flip(-1)
        torch.fft.rfft(reversed_, out=x_spectra)
        x.copy_(x_spectra.permute(2, 0, 1))
        for group in groups:
            z_spectra, z, products, by_pair, correlations = buffers[len(group)]
            torch.fft.rfft(reaching[group.start : group.stop].transpose(0, 1), out=z_spectra)
            z.copy_(z_spectra.permute(2, 0, 1))
            torch.bmm(x, z, out=products)
            by_pair.copy_(products.flatten(1).T)
            torch.fft.irfft(by_pair, n=_FFT_LENGTH, out=correlations)
            lagged = correlations[:, size - 1 : size + lags].unflatten(0, (count, len(group)))
            windowed[window, :, group.start : group.stop] = lagged
    return windowed


def _border_correlations(song: _Song) -> torch.Tensor:
    """Σ over borders of what `_window_correlations` leaves out: x before the border against z after it."""
    lags, count = FILTER_LENGTH - 1, len(song.x)
    total = torch.zeros(_BORDER_LENGTH // 2 + 1, count, count + len(song.y), dtype=torch.complex128, device=song.device)
    borders = range(song.window, song.samples, song.window)
    for first in range(0, len(borders), _BORDERS_AT_A_TIME):
        around = torch.stack([song.cut(at - lags, at + lags) for at in borders[first : first + _BORDERS_AT_A_TIME]])
        after = around.clone()
        after[..., :lags] = 0
        x = torch.fft.rfft(around[:, :count, :lags], n=_BORDER_LENGTH)
        z = torch.fft.rfft(after, n=_BORDER_LENGTH)
        total += torch.bmm(x.permute(2, 1, 0).conj(), z.permute(2, 0, 1))
    return torch.fft.irfft(total.permute(1, 2, 0), n=_BORDER_LENGTH)[..., :FILTER_LENGTH]


def _energies(song: _Song) -> dict[str, np.ndarray]:
    """Energies of the parts of every estimate in every window, each (estimates, windows)."""
    count = len(song.x)
    bytes_each = count * (count + len(song.y)) * FILTER_LENGTH * 8
    keep = song.windows * bytes_each <= _KEEP_BYTES * song.systems
    kept: list[torch.Tensor] = []
    energies = {name: np.zeros((song.estimates, song.windows)) for name in _NAMES}
    total = _border_correlations(song)
    for first, windows in song.spans():
        part = song.windows_at(first, windows)
        correlations = _window_correlations(part, count)
        total += correlations.sum(dim=0)
        if keep:
            kept.append(correlations)
        _put(energies, first, _plain_energies(song, part))
    forms = _Forms.of(song, total)
    for index, (first, windows) in enumerate(song.spans()):
        if first < song.windows:
            correlations = kept[index] if keep else _window_correlations(song.windows_at(first, windows), count)
            _put(energies, first, forms.energies(song, correlations))
    energies["artifacts"] += energies["estimate"] + energies["all"]
    for window in np.flatnonzero((energies["artifacts"] < _CANCELLED * energies["estimate"]).any(axis=0)):
        energies["artifacts"][:, window] = _artifacts(song, forms.linear, int(window))
    return energies


def _artifacts(song: _Song, filters: torch.Tensor, window: int) -> np.ndarray:
    """‖ŝ − q‖² of a window, (estimates,), by one long transform: for windows where nearly nothing is left of ŝ,
    so that the sum of large energies would be rounding and no more.
    """
    part = song.windows_at(window, 1)[:, 0]
    size = song.window + FILTER_LENGTH
    x, y = torch.fft.rfft(part[: len(song.x)], n=size), torch.fft.rfft(part[len(song.x) :], n=size)
    projected = torch.einsum("af,sacf->scf", x, torch.fft.rfft(filters, n=size))
    left = torch.fft.irfft(y.unflatten(0, (song.estimates, song.channels)) - projected, n=size)
    return left.square().sum(dim=(1, 2)).cpu().numpy()


def _put(energies: dict[str, np.ndarray], first: int, values: dict[str, torch.Tensor]) -> None:
    """Write values (estimates, windows) where they belong; those of the part after the last window fall away."""
    for name, value in values.items():
        room = energies[name][:, first : first + value.shape[1]]
        room += value[:, : room.shape[1]].cpu().numpy()


def _plain_energies(song: _Song, part: torch.Tensor) -> dict[str, torch.Tensor]:
    """What needs no filters: ‖s‖², ‖ŝ − s‖², ‖ŝ‖², each (estimates, windows)."""
    estimates = part[len(song.x) :].unflatten(0, (song.systems, song.stems, song.channels))
    references = part[torch.tensor(song.column, device=part.device)].unflatten(0, (song.stems, song.channels))
    return {
        "true": references.square().sum(dim=(1, 3)).repeat(song.systems, 1),
        "error": torch.cat([(system - references).square().sum(dim=(1, 3)) for system in estimates]),
        "estimate": estimates.square().sum(dim=(2, 4)).flatten(0, 1),
    }


_NAMES = ("true", "error", "estimate", "own", "spatial", "all", "interference", "artifacts")


@dataclass(frozen=True)
class _Forms:
    """What makes energies of a window's correlations: a matrix for those of x with x, one for x with y.

    quadratic: (x · x · lags, 4 · estimates), for ‖p‖², ‖p − s‖², ‖q‖², ‖q − p‖² of each estimate.
    linear: (estimates, x, channels, lags), the filters of q, for ⟨ŝ, q⟩.
    """

    quadratic: torch.Tensor
    linear: torch.Tensor

    @classmethod
    def of(cls, song: _Song, total: torch.Tensor) -> "_Forms":
        """From the correlations of the complete song."""
        count = len(song.x)
        columns, linear = [], []
        # One factorisation of all references serves every estimate, one of a stem's channels that stem's estimates.
        onto_all = projection(total, list(range(count)), [count + i for i in range(len(song.y))])
        onto_own = [_onto_own(song, total, stem) for stem in range(song.stems)]
        for number in range(song.estimates):
            system, stem = divmod(number, song.stems)
            first = number * song.channels
            everything = onto_all[:, first : first + song.channels]
            own = torch.zeros_like(everything)
            own[song.own(stem)] = onto_own[stem][:, system * song.channels : (system + 1) * song.channels]
            truth = torch.zeros_like(everything)
            for channel in range(song.channels):
                truth[song.column[stem * song.channels + channel], channel, 0] = 1
            columns += [_form(own), _form(own - truth), _form(everything), _form(everything - own)]
            linear.append(everything)
        return cls(torch.stack(columns, dim=1), torch.stack(linear))

    def energies(self, song: _Song, correlations: torch.Tensor) -> dict[str, torch.Tensor]:
        """From correlations (windows, x, z, lags), each (estimates, windows); "artifacts" lacks ‖ŝ‖² + ‖q‖²."""
        count = len(song.x)
        among = correlations[:, :, :count].flatten(1) @ self.quadratic
        own, spatial, everything, interference = among.unflatten(1, (song.estimates, 4)).permute(2, 1, 0)
        with_estimates = correlations[:, :, count:].unflatten(2, (song.estimates, song.channels))
        overlap = [with_estimates[:, :, e].flatten(1) @ self.linear[e].flatten() for e in range(song.estimates)]
        return {
            "own": own,
            "spatial": spatial,
            "all": everything,
            "interference": interference,
            "artifacts": -2 * torch.stack(overlap),
        }


def _onto_own(song: _Song, total: torch.Tensor, stem: int) -> torch.Tensor:
    """Filters that bring a stem's channels nearest to its estimates: (distinct channels, systems · channels, lags)."""
    rows = [
        len(song.x) + (system * song.stems + stem) * song.channels + channel
        for system in range(song.systems)
        for channel in range(song.channels)
    ]
    return projection(total, song.own(stem), rows)


def _form(filters: torch.Tensor) -> torch.Tensor:
    """V with ‖Σ_a h_a * x_a‖² = Σ V[a, b, lag] · R[a, b, lag] over lags 0…511, flattened.

    filters: (x, channels out, 512). V is the filters' correlation, Σ_i h_a[i] · h_b[i − lag] summed over the
    channels out; lags above 0 count twice, for themselves and for −lag with a and b exchanged.
    """
    spectra = torch.fft.rfft(filters, n=2 * FILTER_LENGTH)
    products = torch.einsum("acf,bcf->abf", spectra, spectra.conj())
    form = torch.fft.irfft(products, n=2 * FILTER_LENGTH)[..., :FILTER_LENGTH].clone()
    form[..., 1:] *= 2
    return form.flatten()
