"""A mixture into stems, as a stream: constant memory, and the same samples whatever the blocks.

Frames are on a grid that starts with the file, segments on a grid of frames, and a segment is processed when its frames
and their context are complete. Blocks move neither grid, so a file in blocks passes the same arithmetic. Each segment
is computed on one thread: neither the number of cores nor the size of a batch changes a bit of it.
"""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from model.checkpoint import Weights
from model.errors import ModelError
from model.networks import int8
from model.preset import Preset
from model.separation.arrays import as_channels, like
from model.separation.evidence import Evidence, mask_sums
from model.separation.masking import Masker, padded
from model.separation.prediction import Calibration
from model.spectra.frontend import OVERLAP, analysis, magnitudes, synthesis

# Estimates are rounded to 24-bit steps: of integers, mixture − vocals is then exact in float32, and stems add up to it.
_STEP = 2.0**-23
TRAINING_PRECISIONS = ("auto", "float32", "bfloat16")
PRECISIONS = (*TRAINING_PRECISIONS, "int8")


@dataclass(frozen=True)
class Piece:
    """A stretch of the song: the mixture and its stems, each float32 (channels, samples)."""

    mixture: np.ndarray
    stems: dict[str, np.ndarray]


class Separator:
    """A network ready to separate. Build it once and use it for every file; it holds no state of a file.

    It takes `network` over: what training needs of it (batch norms, full precision) is folded away. On a CPU it
    works on as many segments side by side as torch has threads when it is made (`torch.set_num_threads`).
    """

    def __init__(
        self, preset: Preset, network: torch.nn.Module, *, model_id: str = "", device: str = "cpu",
        precision: str = "auto", calibration: Calibration | None = None,
    ) -> None:  # fmt: skip
        self.preset = preset
        self.calibration = calibration
        self.model_id = model_id
        self.device = torch.device(device)
        self.precision = separating_precision(precision, self.device, network)
        # A GPU is fastest with many segments at once. A CPU is as fast with one, and needs half the memory.
        self.batch = preset.inference.batch if self.device.type != "cpu" else 1
        self._masker = Masker(preset, network, self.device, self.precision)
        threads = torch.get_num_threads()
        self.side_by_side = threads if self.device.type == "cpu" else 1
        # Segments have one thread of torch's each: with more, sums are cut up otherwise and the last bits differ.
        self._threads = ThreadPoolExecutor(self.side_by_side, "separate", _compute_alone, (threads,))

    @classmethod
    def from_weights(cls, weights: Weights, **options) -> "Separator":
        """A separator of stored weights.

        Args:
            weights: The weights; their preset is the separator's.
            options: Arguments of the class: `model_id`, `device`, `precision`.

        Raises:
            CheckpointError: The weights do not fit their network, or their calibration this version.
        """
        fields = weights.calibrations.get(weights.preset.name)
        calibration = None if fields is None else Calibration.from_dict(fields)
        return cls(weights.preset, weights.network(), calibration=calibration, **options)

    @property
    def stems(self) -> tuple[str, ...]:
        return self.preset.stems

    def stream(self, rate: int, channels: int) -> "SeparationStream":
        """A stream for one file of this sample rate in Hz and number of channels."""
        return SeparationStream(self, rate, channels)

    def separate(self, audio: np.ndarray, rate: int) -> dict[str, np.ndarray]:
        """Stems of a complete mixture; arguments, result and errors are those of `separate_whole`."""
        return separate_whole(self, audio, rate)

    def begin(self, segments: list["_Segment"]) -> Future:
        """Start on segments of one file; the result is what `_estimates` returns for them."""
        return self._threads.submit(self._estimates, segments)

    @torch.inference_mode()
    def _estimates(self, segments: list["_Segment"]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Per segment its stems (stems, channels, (frames + 3) · hop), ends not yet overlapped, and `mask_sums`."""
        spectra = [analysis(segment.samples, segment.n_fft, segment.hop) for segment in segments]
        seen = [
            padded(magnitudes(spectrum, mid_side=self.preset.mid_side), (0, 0, segment.before, segment.after))
            for segment, spectrum in zip(segments, spectra, strict=True)
        ]
        channels = len(spectra[0])
        masks = self._masker.masks(seen, channels, self.batch)
        return [
            (
                torch.stack([synthesis(segment.core(spectrum) * mask, segment.n_fft) for mask in of_segment]),
                mask_sums(segment.core(magnitude[:channels, segment.before :]), of_segment),
            )
            for segment, spectrum, magnitude, of_segment in zip(segments, spectra, seen, masks, strict=True)
        ]


class SeparationStream:
    """One file: `push` blocks and take pieces, `finish` gives the rest; `evidence` is what its masks said so far."""

    def __init__(self, separator: Separator, rate: int, channels: int) -> None:
        self._stems = separator.stems
        views = separator.preset.inference.views
        self.evidence = Evidence(len(separator.stems), rate)
        self._views = [_View(separator, round(rate * factor), channels, self.evidence) for factor in views]
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
            views = torch.stack([estimate.stems for estimate in taken]) if len(taken) > 1 else None
            stems = taken[0].stems if views is None else views.mean(0)
            piece = adding_up(taken[0].mixture, stems, self._stems)
            self.evidence.add_samples(piece.mixture, list(piece.stems.values()), views)
            yield piece


@dataclass(frozen=True)
class _Estimate:
    """A stretch of the mixture (channels, samples) and a view's estimates of it (stems, channels, samples)."""

    mixture: torch.Tensor
    stems: torch.Tensor

    def until(self, samples: int) -> "_Estimate":
        return _Estimate(self.mixture[:, :samples], self.stems[..., :samples])

    def since(self, samples: int) -> "_Estimate":
        return _Estimate(self.mixture[:, samples:], self.stems[..., samples:])


@dataclass(frozen=True)
class _Segment:
    """Samples (channels, samples) that cover `frames` frames of a file and the context that the file has for them.

    `before` and `after` count the frames of context that lie outside the file, `first` the frame the core begins with.
    """

    samples: torch.Tensor
    n_fft: int
    hop: int
    first: int
    frames: int
    before: int
    after: int

    def core(self, spectrum: torch.Tensor) -> torch.Tensor:
        """The frames that are separated, of the spectrum of all samples."""
        return spectrum[:, self.first : self.first + self.frames]

    @property
    def mixture(self) -> torch.Tensor:
        """The samples that are ready when this segment is, frames · hop."""
        return self.samples[:, self.first * self.hop :][:, : self.frames * self.hop]


class _View:
    """One view of the file: the front end of a rate, and the network on its frames."""

    def __init__(self, separator: Separator, rate: int, channels: int, evidence: Evidence) -> None:
        preset = separator.preset
        self._separator = separator
        self._evidence = evidence
        self._front_end = preset.front_end.at_rate(rate)
        self._core = preset.inference.core_frames * preset.interleave
        self._context = preset.inference.context_frames * preset.interleave
        # Three hops of silence before the file let four frames cover its first sample.
        self._lead = self._front_end.n_fft - self._front_end.hop
        self._buffer = torch.zeros(channels, self._lead)
        self._first = 0  # the frame with which the buffer begins
        self._next = 0  # the first frame not yet cut into a segment
        self._samples = 0
        self._emitted = 0
        self._tails = torch.zeros(len(preset.estimated), channels, (OVERLAP - 1) * self._front_end.hop)
        self._ready: list[_Segment] = []  # less than a batch
        self._running: deque[tuple[list[_Segment], Future]] = deque()
        self._side_by_side = separator.side_by_side

    def push(self, block: np.ndarray) -> Iterator[_Estimate]:
        """Add samples (channels, samples); yield what they complete."""
        self._buffer = torch.cat([self._buffer, torch.from_numpy(np.ascontiguousarray(block))], dim=1)
        self._samples += block.shape[1]
        while self._complete_frames() >= self._next + self._core + self._context:
            self._cut(self._next + self._core, self._next + self._core + self._context)
            if len(self._ready) == self._separator.batch:
                self._begin()
            while len(self._running) > self._side_by_side:
                yield from self._oldest()

    def finish(self) -> Iterator[_Estimate]:
        """Yield the rest of the file; in all as many samples as were pushed."""
        total = self._front_end.frames(self._samples)
        needed = (total - 1 - self._first) * self._front_end.hop + self._front_end.n_fft
        self._buffer = torch.nn.functional.pad(self._buffer, (0, max(0, needed - self._buffer.shape[1])))
        while self._next < total:
            stop = min(total, self._next + self._core)
            self._cut(stop, min(total, stop + self._context))
            if len(self._ready) == self._separator.batch or self._next == total:
                self._begin()
        while self._running:
            yield from self._oldest()

    def _complete_frames(self) -> int:
        inside = self._buffer.shape[1] - self._front_end.n_fft
        return self._first + inside // self._front_end.hop + 1 if inside >= 0 else self._first

    def _cut(self, stop: int, seen: int) -> None:
        """Make a segment of frames next…stop, with context up to `seen`, and forget what no later one needs."""
        n_fft, hop = self._front_end.n_fft, self._front_end.hop
        self._ready.append(
            _Segment(
                samples=self._buffer[:, : (seen - self._first - 1) * hop + n_fft].clone(),
                n_fft=n_fft,
                hop=hop,
                first=self._next - self._first,
                frames=stop - self._next,
                before=self._context - (self._next - self._first),
                after=self._context - (seen - stop),
            )
        )
        self._next = stop
        first = max(0, self._next - self._context)
        self._buffer = self._buffer[:, (first - self._first) * hop :].clone()
        self._first = first

    def _begin(self) -> None:
        if self._ready:
            self._running.append((self._ready, self._separator.begin(self._ready)))
            self._ready = []

    @torch.inference_mode()
    def _oldest(self) -> list[_Estimate]:
        """What the group that was begun first gives, its ends overlapped with its neighbours'."""
        segments, future = self._running.popleft()
        estimates = []
        for segment, (signals, sums) in zip(segments, future.result(), strict=True):
            self._evidence.add_frames(sums, self._emitted - self._lead + segment.n_fft / 2, segment.hop)
            signals[..., : self._tails.shape[-1]] += self._tails
            ready = segment.frames * segment.hop
            self._tails = signals[..., ready:].clone()
            estimates.append(self._within_file(segment.mixture, signals[..., :ready]))
        return estimates

    def _within_file(self, mixture: torch.Tensor, stems: torch.Tensor) -> _Estimate:
        """Cut off what lies before the first and after the last sample."""
        start = max(0, self._lead - self._emitted)
        stop = max(start, min(mixture.shape[1], self._lead + self._samples - self._emitted))
        self._emitted += mixture.shape[1]
        return _Estimate(mixture[:, start:stop].clone(), stems[..., start:stop])


def separate_whole(separator, audio: np.ndarray, rate: int) -> dict[str, np.ndarray]:
    """A complete mixture through a separator's stream.

    Args:
        separator: What has `stems` and `stream(rate, channels)`, which has `push` and `finish`.
        audio: The mixture, (samples,), (channels, samples) or, as soundfile reads it, (samples, channels).
        rate: Its sample rate in Hz.

    Returns:
        Per stem an array of the mixture's shape, float32.

    Raises:
        InputError: The array is not audio, see `model.separation.arrays.as_channels`.
    """
    return separate_with_evidence(separator, audio, rate)[0]


def separate_with_evidence(separator, audio: np.ndarray, rate: int) -> tuple[dict[str, np.ndarray], Evidence]:
    """What `separate_whole` returns, and what the masks said about it; arguments and errors are the same."""
    signal = as_channels(audio, rate)
    stream = separator.stream(int(rate), signal.shape[0])
    pieces = [*stream.push(signal), *stream.finish()]
    empty = np.zeros((signal.shape[0], 0), np.float32)
    stems = {s: np.concatenate([empty, *(p.stems[s] for p in pieces)], axis=1) for s in separator.stems}
    return {stem: like(signal, audio) for stem, signal in stems.items()}, stream.evidence


def adding_up(mixture: torch.Tensor, estimates: torch.Tensor, stems: tuple[str, ...]) -> Piece:
    """Estimates (all stems but the last, channels, samples) rounded, and the last stem as what they leave."""
    signals = {}
    rest = mixture
    for name, estimate in zip(stems[:-1], estimates, strict=True):
        rounded = torch.round(estimate / _STEP) * _STEP
        signals[name] = rounded.numpy()
        rest = rest - rounded
    signals[stems[-1]] = rest.numpy()
    return Piece(mixture.numpy(), signals)


def _compute_alone(threads: int) -> None:
    """Let torch use one thread in this thread; threads that start later get `threads` as before.

    `torch.set_num_threads` sets the calling thread's number and that of later threads. A thread adopts the process's
    number when it first reads its number, so it must read before it is given another.
    """
    torch.get_num_threads()
    torch.set_num_threads(1)
    others = threading.Thread(target=torch.set_num_threads, args=(threads,))
    others.start()
    others.join()


def resolved_device(device: str) -> str:
    """The device that a choice means here: for "auto" the GPU where there is one.

    Args:
        device: "cpu", "cuda" or "auto".

    Raises:
        ModelError: "cuda" was chosen, and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("there is no CUDA device here; use --device cpu, or a worker that has one")
    return device


def separating_precision(precision: str, device: torch.device, network: torch.nn.Module | type[torch.nn.Module]) -> str:
    """The precision that a network separates with.

    Args:
        precision: One of PRECISIONS.
        device: Where it runs.
        network: The network or its class; those with a method `quantise` can compute in 8-bit integers.

    Returns:
        "int8", "bfloat16" or "float32". For "auto" the fastest: 8-bit integers where the network has them and the
        processor multiplies them (its estimates differ from float32's by −40 dB), else that of `resolved_precision`.

    Raises:
        ModelError: There is no such precision, or not here.
    """
    if precision not in PRECISIONS:
        raise ModelError(f"{precision} is not a precision; choose one of {', '.join(PRECISIONS)}")
    able = device.type == "cpu" and int8.supported() and hasattr(network, "quantise")
    if precision == "int8" and not able:
        raise ModelError(
            "int8 needs a processor with VNNI, the device cpu and a network that has it (stereo, hq, four-stem); "
            "use --precision auto"
        )
    return "int8" if able and precision in ("auto", "int8") else resolved_precision(precision, device)


def resolved_precision(precision: str, device: torch.device) -> str:
    """ "bfloat16" or "float32"; for "auto" bfloat16 where the device multiplies it faster.

    Args:
        precision: One of TRAINING_PRECISIONS.
        device: Where the network runs.

    Raises:
        ModelError: There is no such precision.
    """
    if precision not in TRAINING_PRECISIONS:
        raise ModelError(f"{precision} is not a precision; choose one of {', '.join(TRAINING_PRECISIONS)}")
    if precision != "auto":
        return precision
    if device.type != "cpu":
        return "bfloat16"
    # Without AMX's tiles bfloat16 is slower, even with AVX-512's instructions (docs/experiments.md, "Sound II").
    return "bfloat16" if torch.cpu._is_amx_tile_supported() else "float32"
