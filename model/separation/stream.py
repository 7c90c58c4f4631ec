"""A mixture into stems, as a stream: constant memory, and the same samples whatever the blocks.

Frames are on a grid that starts with the file, segments on a grid of frames, and a segment is processed when its frames
and their context are complete. Blocks move neither grid, so a file in blocks passes the same arithmetic. Each segment
is computed on one thread: neither the number of cores nor the size of a batch changes a bit of it.
"""

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from model.checkpoint import Weights
from model.errors import ModelError
from model.preset import Preset
from model.separation.arithmetic import compute_alone, separating_precision
from model.separation.arrays import as_channels, like
from model.separation.evidence import Evidence, mask_sums
from model.separation.masking import Masker, padded
from model.separation.prediction import Calibration
from model.separation.repetition import use_repetition
from model.separation.segments import Segment
from model.separation.shared_batch import SharedBatches
from model.separation.spatial import stem_spectra
from model.spectra.frontend import OVERLAP, analysis, magnitudes, synthesis

# Estimates are rounded to 24-bit steps: of integers, mixture − vocals is then exact in float32, and stems add up to it.
_STEP = 2.0**-23


@dataclass(frozen=True)
class Piece:
    """A stretch of the song: the mixture and its stems, each float32 (channels, samples)."""

    mixture: np.ndarray
    stems: dict[str, np.ndarray]


class Separator:
    """A network ready to separate. Build it once and use it for every file; it holds no state of a file.

    It takes `network` over: what training needs of it (batch norms, full precision) is folded away. On a CPU it
    works on as many segments side by side as torch has threads when it is made (`torch.set_num_threads`). On a GPU
    its streams share batches (`model.separation.shared_batch`): give it several files at a time, a thread each.

    Args:
        preset: The network's input and output, and how segments are laid out.
        network: The network.
        model_id: The id that rows name it by.
        device: Where it runs, resolved (`model.separation.arithmetic.resolved_device`).
        precision: One of `model.separation.arithmetic.PRECISIONS`.
        calibration: What its scores are predicted with.
        batch: How many segments share a batch. By default the preset's number on a GPU; none do on a CPU, which is as
            fast with one segment at a time, and needs half the memory.

    Raises:
        ModelError: The precision is not available there, or allows no batches.
    """

    def __init__(
        self, preset: Preset, network: torch.nn.Module, *, model_id: str = "", device: str = "cpu",
        precision: str = "auto", calibration: Calibration | None = None, batch: int | None = None,
    ) -> None:  # fmt: skip
        self.preset = preset
        self.calibration = calibration
        self.model_id = model_id
        self.device = torch.device(device)
        self.precision = separating_precision(precision, self.device, network)
        self.batch = 1  # segments of one file that are computed as one task
        self._masker = Masker(preset, network, self.device, self.precision)
        self._shared: SharedBatches | None = None
        if batch and self.precision == "int8":
            raise ModelError("int8 has one scale per batch; share batches in float32 or bfloat16")
        if batch or self.device.type != "cpu":
            self._shared = SharedBatches(preset, self._masker, self.device, batch or preset.inference.batch)
        threads = torch.get_num_threads()
        # Of one file, so that it alone keeps the device busy; what is ahead is in memory.
        self.side_by_side = self._shared.batch if self._shared else threads
        # Segments have one thread of torch's each: with more, sums are cut up otherwise and the last bits differ.
        self._threads = ThreadPoolExecutor(self.side_by_side, "separate", compute_alone, (threads,))

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
        """A stream for one file.

        Args:
            rate: The file's sample rate in Hz.
            channels: How many channels it has.
        """
        return SeparationStream(self, rate, channels)

    def separate(self, audio: np.ndarray, rate: int) -> dict[str, np.ndarray]:
        """Stems of a complete mixture; see `separate_whole`.

        Args:
            audio: The mixture, (samples,), (channels, samples) or (samples, channels).
            rate: Its sample rate in Hz.

        Returns:
            Per stem an array of the mixture's shape, float32.

        Raises:
            InputError: The array is not audio.
        """
        return separate_whole(self, audio, rate)

    def begin(self, segments: list[Segment]) -> Future:
        """Start on segments of one file.

        Args:
            segments: At most `batch` of them, in the file's order.

        Returns:
            A future of what `_estimates` returns for them.
        """
        if self._shared is not None:
            (segment,) = segments
            return self._shared.submit(segment)
        return self._threads.submit(self._estimates, segments)

    @torch.inference_mode()
    def _estimates(self, segments: list[Segment]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Per segment its stems (stems, channels, (frames + 3) · hop), ends not yet overlapped, and `mask_sums`."""
        spectra = [analysis(segment.samples, segment.n_fft, segment.hop) for segment in segments]
        seen = [
            padded(magnitudes(spectrum, mid_side=self.preset.mid_side), (0, 0, segment.before, segment.after))
            for segment, spectrum in zip(segments, spectra, strict=True)
        ]
        channels = len(spectra[0])
        estimates = []
        for segment, spectrum, magnitude, masks in zip(
            segments, spectra, seen, self._masker.masks(seen, channels, self.batch), strict=True
        ):
            mixture = segment.core(magnitude[:channels, segment.before :])
            use_repetition(mixture, masks, self.preset.repetition_bins)
            stems = stem_spectra(segment.core(spectrum), masks, self.preset.spatial_bins)
            signals = torch.stack([synthesis(stem, segment.n_fft) for stem in stems])
            estimates.append((signals, mask_sums(mixture, masks)))
        return estimates


class SeparationStream:
    """One file: `push` blocks and take pieces, `finish` gives the rest; `evidence` is what its masks said so far."""

    def __init__(self, separator: Separator, rate: int, channels: int) -> None:
        self._stems = separator.stems
        views = separator.preset.inference.views
        self.evidence = Evidence(len(separator.stems), rate)
        self._views = [_View(separator, round(rate * factor), channels, self.evidence) for factor in views]
        self._waiting: list[list[_Estimate]] = [[] for _ in views]

    def push(self, block: np.ndarray) -> Iterator[Piece]:
        """Add samples.

        Args:
            block: Of any length, float32 (channels, samples).

        Yields:
            What they complete.
        """
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
            self.evidence.add_samples(list(piece.stems.values()), None if views is None else views.numpy())
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
        self._ready: list[Segment] = []  # less than a batch
        self._running: deque[tuple[list[Segment], Future]] = deque()
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
            Segment(
                samples=self._buffer[:, : (seen - self._first - 1) * hop + n_fft],
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
        # Views: the next block's arrival copies what is left, and a file given as one block has but one copy.
        self._buffer = self._buffer[:, (first - self._first) * hop :]
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
    """What `separate_whole` returns, and what the masks said about it.

    Args:
        separator: As there; its stream has `evidence` too.
        audio: The mixture, as there.
        rate: Its sample rate in Hz.

    Raises:
        InputError: The array is not audio.
    """
    signal = as_channels(audio, rate)
    stream = separator.stream(int(rate), signal.shape[0])
    pieces = [*stream.push(signal), *stream.finish()]
    empty = np.zeros((signal.shape[0], 0), np.float32)
    stems = {s: np.concatenate([empty, *(p.stems[s] for p in pieces)], axis=1) for s in separator.stems}
    return {stem: like(signal, audio) for stem, signal in stems.items()}, stream.evidence


def adding_up(mixture: torch.Tensor, estimates: torch.Tensor, stems: tuple[str, ...]) -> Piece:
    """A piece whose stems sum to the mixture exactly: estimates are rounded, and the last stem is what they leave.

    Args:
        mixture: (channels, samples).
        estimates: All stems but the last, (stems - 1, channels, samples).
        stems: The stems' names, the last one included.

    Raises:
        ModelError: An estimate is NaN or infinite.
    """
    if not math.isfinite(float(estimates.sum())):
        raise ModelError(
            "the model gives samples that are no numbers: its weights are damaged, or the audio is beyond any level"
        )
    signals = {}
    rest = mixture
    for name, estimate in zip(stems[:-1], estimates, strict=True):
        rounded = torch.round(estimate / _STEP) * _STEP
        signals[name] = rounded.numpy()
        rest = rest - rounded
    signals[stems[-1]] = rest.numpy()
    return Piece(mixture.numpy(), signals)
