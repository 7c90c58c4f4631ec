"""A mixture into stems, as a stream: constant memory, and the same samples however it is fed.

Frames lie on a grid that starts with the file, segments on a grid of frames, and a group of segments
is processed when all its frames and their context are there. What a caller pushes at a time moves
neither grid, so a file in one piece and a file in blocks go through the same arithmetic.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from model.checkpoint import Weights
from model.errors import ModelError
from model.preset import Preset
from model.spectra.frontend import OVERLAP, analysis, magnitudes, synthesis

# Estimates are rounded to 24-bit steps. A mixture decoded from integers then has its accompaniment
# (mixture − vocals) exactly in float32, and the stems add up to it exactly.
_STEP = 2.0**-23
# Above the network's band the mask goes on with its mean over this share of the band's top.
_EXTENSION_SHARE = 0.25


@dataclass(frozen=True)
class Piece:
    """A stretch of the song: the mixture and its stems, each float32 (channels, samples)."""

    mixture: np.ndarray
    stems: dict[str, np.ndarray]


class Separator:
    """A network ready to separate. Build it once and use it for every file; it holds no state of a file.

    It takes `network` over: what training needs of it (batch norms, full precision) is folded away.
    """

    def __init__(
        self, preset: Preset, network: torch.nn.Module, *, model_id: str = "", device: str = "cpu",
        precision: str = "auto",
    ) -> None:  # fmt: skip
        self.preset = preset
        self.model_id = model_id
        self.device = torch.device(device)
        self.precision = resolved_precision(precision, self.device)
        # A GPU wants many segments at once. A CPU is as fast with one, needs half the memory, and gives the same
        # bits whatever else is in the work.
        self.batch = preset.inference.batch if self.device.type != "cpu" else 1
        self._network = network.to(self.device).eval()
        fuse = getattr(network, "fuse", None)
        if fuse is not None:
            fuse(torch.bfloat16 if self.precision == "bfloat16" else torch.float32)

    @classmethod
    def from_weights(cls, weights: Weights, **options) -> "Separator":
        return cls(weights.preset, weights.network(), **options)

    @property
    def stems(self) -> tuple[str, ...]:
        return self.preset.stems

    def stream(self, rate: int, channels: int) -> "SeparationStream":
        return SeparationStream(self, rate, channels)

    def separate(self, audio: np.ndarray, rate: int) -> dict[str, np.ndarray]:
        """Stems of a whole mixture: audio (channels, samples) or (samples,) in, the same shape out for each stem."""
        return separate_whole(self, audio, rate)

    @torch.inference_mode()
    def masks(self, magnitude: torch.Tensor, channels: int, core: int, context: int) -> torch.Tensor:
        """Masks for frames of a group, of a file with so many `channels`.

        magnitude: what `model.spectra.frontend.magnitudes` makes of the file's spectrum, (seen, context + frames +
        context, bins), zero outside the file. Returns (estimated stems, channels, frames, bins); `core` and
        `context` count these frames.
        """
        frames, bins = magnitude.shape[1] - 2 * context, magnitude.shape[2]
        core = self._shorter(core, context, frames)
        looks = _looks(channels, self.preset)
        segments = -(-frames // core)
        inputs = _fit(magnitude, self.preset.bins)
        inputs = torch.nn.functional.pad(inputs, (0, 0, 0, segments * core - frames))
        # (seen, segments, network bins, core + 2·context) → items of the channels the network sees
        cut = inputs.unfold(1, core + 2 * context, core)
        step = self.preset.interleave
        items = [
            cut[list(look.seen), segment, :, phase::step]
            for look in looks
            for segment in range(segments)
            for phase in range(step)
        ]
        masks = self._forward(items)[..., context // step : (context + core) // step]
        masks = masks.unflatten(0, (len(looks), segments, step))
        # (looks, segments, phases, stems, look channels, bins, frames of a phase) → frames in order
        masks = masks.permute(3, 0, 4, 1, 6, 2, 5).flatten(3, 5)[:, :, :, :frames]
        givers = [
            [(look, row) for look, given in enumerate(looks) for row, own in enumerate(given.file) if own == channel]
            for channel in range(channels)
        ]
        joined = torch.stack([torch.stack([masks[:, look, row] for look, row in own]).mean(0) for own in givers], dim=1)
        return _extend(joined, bins)

    def _shorter(self, core: int, context: int, frames: int) -> int:
        """The core of a single segment that need not be whole: a short file, or the end of a long one, is not filled
        up with silence that costs time and that a network which looks at the mean would hear.
        """
        multiple = getattr(self._network, "multiple", 0) * self.preset.interleave
        if not multiple or frames >= core:
            return core
        return min(core, -(-(frames + 2 * context) // multiple) * multiple - 2 * context)

    def _forward(self, items: list[torch.Tensor]) -> torch.Tensor:
        out = []
        for start in range(0, len(items), self.batch):
            batch = torch.stack(items[start : start + self.batch]).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                out.append(self._network(batch)[:, : len(self.preset.estimated)].float().cpu())
        return torch.cat(out)


class SeparationStream:
    """One file on its way: `push` blocks, take pieces; `finish` gives the rest."""

    def __init__(self, separator: Separator, rate: int, channels: int) -> None:
        self._stems = separator.stems
        views = separator.preset.inference.views
        self._views = [_View(separator, round(rate * factor), channels) for factor in views]
        self._waiting: list[list[_Estimate]] = [[] for _ in views]

    def push(self, block: np.ndarray) -> Iterator[Piece]:
        """Add samples (channels, samples); yield what they complete."""
        for view, waiting in zip(self._views, self._waiting, strict=True):
            waiting += view.push(block)
        yield from self._pieces()

    def finish(self) -> Iterator[Piece]:
        """Yield the rest of the file; in all as many samples as were pushed."""
        for view, waiting in zip(self._views, self._waiting, strict=True):
            waiting += view.finish()
        yield from self._pieces()

    def _pieces(self) -> Iterator[Piece]:
        """What all views have estimated, as long as the view that is least far with its oldest estimate."""
        while all(self._waiting):
            ready = min(waiting[0].mixture.shape[1] for waiting in self._waiting)
            taken = []
            for waiting in self._waiting:
                first = waiting.pop(0)
                taken.append(first.until(ready))
                if first.mixture.shape[1] > ready:
                    waiting.insert(0, first.since(ready))
            stems = taken[0].stems if len(taken) == 1 else torch.stack([estimate.stems for estimate in taken]).mean(0)
            yield adding_up(taken[0].mixture, stems, self._stems)


@dataclass(frozen=True)
class _Estimate:
    """A stretch of the mixture (channels, samples) and a view's estimates of it (stems, channels, samples)."""

    mixture: torch.Tensor
    stems: torch.Tensor

    def until(self, samples: int) -> "_Estimate":
        return _Estimate(self.mixture[:, :samples], self.stems[..., :samples])

    def since(self, samples: int) -> "_Estimate":
        return _Estimate(self.mixture[:, samples:], self.stems[..., samples:])


class _View:
    """One way of looking at the file: the front end of a rate, and the network on its frames."""

    def __init__(self, separator: Separator, rate: int, channels: int) -> None:
        preset = separator.preset
        self._separator = separator
        self._front_end = preset.front_end.at_rate(rate)
        self._core = preset.inference.core_frames * preset.interleave
        self._context = preset.inference.context_frames * preset.interleave
        self._group = self._core * separator.batch
        # Three hops of silence before the file let four frames cover its first sample.
        self._lead = self._front_end.n_fft - self._front_end.hop
        self._buffer = torch.zeros(channels, self._lead)
        self._first = 0  # the frame with which the buffer begins
        self._next = 0  # the first frame not yet separated
        self._samples = 0
        self._emitted = 0
        self._tails = torch.zeros(len(preset.estimated), channels, (OVERLAP - 1) * self._front_end.hop)

    def push(self, block: np.ndarray) -> Iterator[_Estimate]:
        """Add samples (channels, samples); yield what they complete."""
        self._buffer = torch.cat([self._buffer, torch.from_numpy(np.ascontiguousarray(block))], dim=1)
        self._samples += block.shape[1]
        while self._complete_frames() >= self._next + self._group + self._context:
            yield self._separate(self._next + self._group, self._next + self._group + self._context)

    def finish(self) -> Iterator[_Estimate]:
        """Yield the rest of the file; in all as many samples as were pushed."""
        total = self._front_end.frames(self._samples)
        needed = (total - 1 - self._first) * self._front_end.hop + self._front_end.n_fft
        self._buffer = torch.nn.functional.pad(self._buffer, (0, max(0, needed - self._buffer.shape[1])))
        while self._next < total:
            stop = min(total, self._next + self._group)
            yield self._separate(stop, min(total, stop + self._context))

    def _complete_frames(self) -> int:
        inside = self._buffer.shape[1] - self._front_end.n_fft
        return self._first + inside // self._front_end.hop + 1 if inside >= 0 else self._first

    @torch.inference_mode()
    def _separate(self, stop: int, seen: int) -> _Estimate:
        """Separate frames next…stop, having looked at frames up to `seen`."""
        n_fft, hop = self._front_end.n_fft, self._front_end.hop
        spectrum = analysis(self._buffer[:, : (seen - self._first - 1) * hop + n_fft], n_fft, hop)
        before = self._context - (self._next - self._first)
        after = self._context - (seen - stop)
        seen_by_network = magnitudes(spectrum, mid_side=self._separator.preset.mid_side)
        padded = torch.nn.functional.pad(seen_by_network, (0, 0, before, after))
        masks = self._separator.masks(padded, len(spectrum), self._core, self._context)
        frames = spectrum[:, self._next - self._first : stop - self._first]
        ready = (stop - self._next) * hop
        estimates = []
        for index, mask in enumerate(masks):
            signal = synthesis(frames * mask, n_fft)
            signal[:, : self._tails.shape[2]] += self._tails[index]
            self._tails[index] = signal[:, ready:]
            estimates.append(signal[:, :ready])
        begin = (self._next - self._first) * hop
        estimate = self._within_file(self._buffer[:, begin : begin + ready], torch.stack(estimates))
        self._next = stop
        first = max(0, self._next - self._context)
        self._buffer = self._buffer[:, (first - self._first) * hop :].clone()
        self._first = first
        return estimate

    def _within_file(self, mixture: torch.Tensor, stems: torch.Tensor) -> _Estimate:
        """Cut off what lies before the first and after the last sample."""
        start = max(0, self._lead - self._emitted)
        stop = max(start, min(mixture.shape[1], self._lead + self._samples - self._emitted))
        self._emitted += mixture.shape[1]
        return _Estimate(mixture[:, start:stop].clone(), stems[..., start:stop])


def separate_whole(separator, audio: np.ndarray, rate: int) -> dict[str, np.ndarray]:
    """A whole mixture through a separator's stream, which has `push` and `finish`; shapes as `Separator.separate`."""
    signal = np.atleast_2d(np.asarray(audio, np.float32))
    stream = separator.stream(rate, signal.shape[0])
    pieces = [*stream.push(signal), *stream.finish()]
    empty = np.zeros((signal.shape[0], 0), np.float32)
    whole = {s: np.concatenate([empty, *(p.stems[s] for p in pieces)], axis=1) for s in separator.stems}
    return {stem: part.reshape(np.shape(audio)) for stem, part in whole.items()}


def adding_up(mixture: torch.Tensor, estimates: torch.Tensor, stems: tuple[str, ...]) -> Piece:
    """Estimates (all stems but the last, channels, samples) rounded, and the last stem as what they leave."""
    found = {}
    rest = mixture
    for name, estimate in zip(stems[:-1], estimates, strict=True):
        rounded = torch.round(estimate / _STEP) * _STEP
        found[name] = rounded.numpy()
        rest = rest - rounded
    found[stems[-1]] = rest.numpy()
    return Piece(mixture.numpy(), found)


def resolved_device(device: str) -> str:
    """ "cuda" or "cpu"; for "auto" the GPU where there is one. Raises ModelError when CUDA is asked for in vain."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("there is no CUDA device here; use --device cpu, or a worker that has one")
    return device


def resolved_precision(precision: str, device: torch.device) -> str:
    """ "bfloat16" where the device multiplies it faster than float32, else "float32"; for "auto" alone."""
    if precision != "auto":
        return precision
    if device.type != "cpu":
        return "bfloat16"
    flags = torch.backends.cpu.get_cpu_capability()
    native = flags.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if native else "float32"


@dataclass(frozen=True)
class _Look:
    """Which rows of the seen magnitudes enter the network together, and for which channels of the file."""

    seen: tuple[int, ...]
    file: tuple[int, ...]


def _looks(channels: int, preset: Preset) -> list[_Look]:
    """Pairs of channels where there are two, else each by itself, in the middle of a pair."""
    wanted, sides = preset.channels, (2, 3) if preset.mid_side else ()
    if channels == wanted:
        own = tuple(range(channels))
        return [_Look(own + sides, own)]
    # Its mid is the channel itself; its side is the row of zeros that follows the channels.
    own_sides = [(channel, channels) if preset.mid_side else () for channel in range(channels)]
    return [_Look((channel,) * wanted + own_sides[channel], (channel,) * wanted) for channel in range(channels)]


def _fit(magnitude: torch.Tensor, bins: int) -> torch.Tensor:
    """Cut or zero-pad the frequency axis to the network's."""
    return torch.nn.functional.pad(magnitude, (0, bins - magnitude.shape[-1]))


def _extend(masks: torch.Tensor, bins: int) -> torch.Tensor:
    """Masks for all bins of the file: cut, or continued by the mean over the top of the network's band."""
    known = masks.shape[-1]
    if bins <= known:
        return masks[..., :bins]
    top = masks[..., known - round(known * _EXTENSION_SHARE) :].mean(-1, keepdim=True)
    return torch.cat([masks, top.expand(*masks.shape[:-1], bins - known)], dim=-1)
