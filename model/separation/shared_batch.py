"""Segments of several files, computed together on one device.

A GPU is fast with many segments at once, and idle while a file is decoded or written. So all streams of a process hand
their segments to one `SharedBatches`, which computes those of one shape together: transform, network, masks and inverse
on the device; only samples cross the bus. While one batch is computed, the next is copied in and the last copied out.

A file's samples do not depend on its neighbours. A shape always goes in batches of one size, with silence in the places
that are left, so that every kernel has the same dimensions whatever is beside a segment: full segments go `batch` at a
time, a file's shorter last one goes alone. No segment is filled up further than `Masker.filled` says.
"""

import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from model.errors import DeviceLostError, ModelError
from model.preset import Preset
from model.separation.arithmetic import compute_alone
from model.separation.evidence import mask_sums
from model.separation.masking import Masker
from model.separation.repetition import use_repetition
from model.separation.segments import Segment
from model.separation.spatial import filter_together
from model.spectra.frontend import OVERLAP, analysis, magnitudes, synthesis

# How long the first segment waits for neighbours: less than a file takes to come to its next one.
_PATIENCE_SECONDS = 0.02
_UNDER_WAY = 2  # batches on the device: one computed, one copied

Estimates = list[tuple[torch.Tensor, torch.Tensor]]  # per segment its stems and `mask_sums`, as Separator.begin says


@dataclass(frozen=True)
class Shape:
    """What two segments must share to be computed together. `frames` includes context and what fills a short one up."""

    channels: int
    n_fft: int
    hop: int
    frames: int

    @property
    def samples(self) -> int:
        return (self.frames - 1) * self.hop + self.n_fft


@dataclass(frozen=True)
class _Entry:
    segment: Segment
    estimates: Future
    since: float


class SharedBatches:
    """Takes segments from any thread and computes them in batches, until it is garbage.

    Args:
        preset: What the network sees and how segments are laid out.
        masker: The network, on `device`.
        device: Where the arithmetic runs. On a CPU it is done by one thread, for tests of what a GPU would do.
        batch: How many full segments of the preset's rate and channels go together.
    """

    def __init__(self, preset: Preset, masker: Masker, device: torch.device, batch: int) -> None:
        self.batch = batch
        self._masker = masker
        self._context = preset.inference.context_frames * preset.interleave
        together = Together(preset, masker, device, batch)
        self._waiting = _Waiting(together.size)
        # The thread holds what it needs and not this object, whose end ends it.
        arguments = self._waiting, together, torch.get_num_threads()
        threading.Thread(target=_serve, args=arguments, name="shared-batch", daemon=True).start()
        weakref.finalize(self, self._waiting.close)

    def submit(self, segment: Segment) -> Future:
        """Queue a segment.

        Args:
            segment: A segment of any file. How many of its segments wait at a time is up to its stream.

        Returns:
            The future `Estimates` of this segment, a list of one, on the CPU. It raises ModelError where the device has
            too little memory, and DeviceLostError where this process can use it no longer.
        """
        frames = self._masker.filled(self._context + segment.frames + self._context)
        shape = Shape(len(segment.samples), segment.n_fft, segment.hop, frames)
        return self._waiting.put(shape, segment)


class Together:
    """The arithmetic on a batch of segments of one shape.

    Args:
        preset: What the network sees and how segments are laid out.
        masker: The network, on `device`.
        device: Where the arithmetic runs.
        batch: How many full segments of the preset's rate and channels go together.
    """

    def __init__(self, preset: Preset, masker: Masker, device: torch.device, batch: int) -> None:
        self.device = device
        self._preset, self._masker, self._batch = preset, masker, batch
        self._context = preset.inference.context_frames * preset.interleave
        self._full = (preset.inference.core_frames * preset.interleave) + 2 * self._context

    def size(self, shape: Shape) -> int:
        """How many segments of a shape are computed together: the same at all times, whatever waits.

        Args:
            shape: The shape. Files of more channels or a higher rate than the preset's go fewer at a time, so that a
                batch never takes more memory.
        """
        if shape.frames < self._full:
            return 1
        preset = self._preset
        items = shape.channels if shape.channels != preset.channels else 1
        weight = max(items, shape.channels / preset.channels) * max(1.0, shape.n_fft / preset.n_fft)
        return max(1, int(self._batch / weight))

    def samples(self, shape: Shape, segments: list[Segment]) -> torch.Tensor:
        """The segments' samples on the host, (size, channels, samples), zero where there is no file or no segment.

        A file begins with silence and ends with it, so frames outside of it are exactly those of zero samples.

        Args:
            shape: The shape of all of them.
            segments: At most `size(shape)`.
        """
        pinned = self.device.type == "cuda"
        samples = torch.zeros(self.size(shape), shape.channels, shape.samples, pin_memory=pinned)
        for row, segment in zip(samples, segments, strict=False):
            start = segment.before * segment.hop
            row[:, start : start + segment.samples.shape[1]] = segment.samples
        return samples

    @torch.inference_mode()
    def estimates(
        self, samples: torch.Tensor, shape: Shape, frames: list[int]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Stems of a batch, on its device.

        Args:
            samples: What `samples` returned, on the device.
            shape: Its shape.
            frames: How many frames each segment separates; places without a segment are left out.

        Returns:
            Stems (segments, estimated stems, channels, (core frames + 3) · hop), ends not yet overlapped, and each
            segment's `mask_sums`.
        """
        spectra = analysis(samples, shape.n_fft, shape.hop)
        seen = magnitudes(spectra, mid_side=self._preset.mid_side)
        masks = self._masker.together(seen, shape.channels)
        core = slice(self._context, shape.frames - self._context)
        # What fills a segment up is silence, so the frames beyond its own add zeros to the last of its samples.
        mixtures = [
            magnitude[: shape.channels, core][:, :count] for magnitude, count in zip(seen, frames, strict=False)
        ]
        for mixture, of_segment, count in zip(mixtures, masks, frames, strict=False):
            use_repetition(mixture, of_segment[:, :, :count], self._preset.repetition_bins)
        stems = spectra[:, None, :, core] * masks
        for stem, spectrum, of_segment, count in zip(stems, spectra[:, :, core], masks, frames, strict=False):
            filter_together(
                spectrum[:, :count], of_segment[:, :, :count], self._preset.spatial_bins, stem[:, :, :count]
            )
        signals = synthesis(stems.flatten(0, 2), shape.n_fft).unflatten(0, stems.shape[:3])
        sums = [
            mask_sums(mixture, of_segment[:, :, :count])
            for mixture, of_segment, count in zip(mixtures, masks, frames, strict=False)
        ]
        return signals[: len(frames)], sums


class _Waiting:
    """Segments by shape, until there are enough of one or the oldest has waited long enough."""

    def __init__(self, size: Callable[[Shape], int]) -> None:
        self._size = size
        self._condition = threading.Condition()
        self._entries: dict[Shape, deque[_Entry]] = {}
        self._closed = False

    def put(self, shape: Shape, segment: Segment) -> Future:
        entry = _Entry(segment, Future(), time.monotonic())
        with self._condition:
            self._entries.setdefault(shape, deque()).append(entry)
            self._condition.notify()
        return entry.estimates

    def take(self) -> tuple[Shape, list[_Entry]] | None:
        """The next batch; None once nobody can put anything."""
        with self._condition:
            while not self._closed:
                full = [shape for shape, entries in self._entries.items() if len(entries) >= self._size(shape)]
                due = min(full or self._entries, key=lambda shape: self._entries[shape][0].since, default=None)
                if due is None:
                    self._condition.wait()
                    continue
                patience = self._entries[due][0].since + _PATIENCE_SECONDS - time.monotonic()
                if full or patience <= 0:
                    return due, self._taken(due)
                self._condition.wait(patience)
            return None

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify()

    def _taken(self, shape: Shape) -> list[_Entry]:
        entries = self._entries[shape]
        taken = [entries.popleft() for _ in range(min(len(entries), self._size(shape)))]
        if not entries:
            del self._entries[shape]
        return taken


def _serve(waiting: _Waiting, together: Together, threads: int) -> None:
    """Compute what waits, batch by batch; results are handed out by a second thread, in their order.

    Other threads of the process have `threads` of torch's each.
    """
    compute_alone(threads)
    lanes = _Cuda(together.device) if together.device.type == "cuda" else _Direct(together.device)
    room = threading.Semaphore(_UNDER_WAY)
    with ThreadPoolExecutor(1, "shared-batch-results") as results:
        while (taken := waiting.take()) is not None:
            shape, entries = taken
            room.acquire()
            try:
                finished = _begin(lanes, together, shape, [entry.segment for entry in entries])
            except Exception as error:
                _fail(entries, error)
                room.release()
            else:
                results.submit(_hand_out, finished, entries, room)
            del taken, entries  # a segment's samples and future are its stream's while this thread waits


def _begin(lanes: "_Cuda | _Direct", together: Together, shape: Shape, segments: list[Segment]) -> "_Finished":
    """Put a batch on the device."""
    frames = [segment.frames for segment in segments]
    counts: list[int] = []

    def compute(samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        signals, sums = together.estimates(samples, shape, frames)
        counts[:] = [of_segment.shape[1] for of_segment in sums]
        return signals, torch.cat(sums, dim=1)  # one copy back for all

    try:
        results = lanes.run(together.samples(shape, segments), compute)
    except torch.cuda.OutOfMemoryError:
        # What other processes held for a moment, or this one kept for another shape.
        torch.cuda.empty_cache()
        time.sleep(_PATIENCE_SECONDS)
        results = lanes.run(together.samples(shape, segments), compute)
    return _Finished(results, counts)


@dataclass(frozen=True)
class _Finished:
    """A batch on the device: `results` waits for its stems and sums, `counts` says how the sums are cut."""

    results: Callable[[], list[torch.Tensor]]
    counts: list[int]


@torch.inference_mode()
def _hand_out(finished: _Finished, entries: list[_Entry], room: threading.Semaphore) -> None:
    """Wait for a batch and give each segment its part."""
    try:
        signals, sums = finished.results()
        for signal, of_segment, entry in zip(signals, sums.split(finished.counts, dim=1), entries, strict=True):
            ready = (entry.segment.frames + OVERLAP - 1) * entry.segment.hop
            # Copies: the batch's own memory is pinned, and goes back as a whole.
            entry.estimates.set_result([(signal[..., :ready].clone(), of_segment.clone())])
    except Exception as error:
        _fail(entries, error)
    finally:
        room.release()


def _fail(entries: list[_Entry], error: Exception) -> None:
    """End what waits for a batch that cannot be computed, in words a user can act on where they are known."""
    first = str(error).partition("\n")[0]
    for entry in entries:
        if entry.estimates.done():
            continue
        if isinstance(error, torch.cuda.OutOfMemoryError):
            told: Exception = ModelError(
                "the GPU has too little memory left for a batch of segments; give it fewer processes (--workers), or "
                "use --device cpu"
            )
        elif isinstance(error, torch.cuda.AcceleratorError):
            told = DeviceLostError(f"the GPU failed, and this process can no longer use it ({first})")
        else:
            told = error
        entry.estimates.set_exception(told)


class _Direct:
    """A device that computes when it is called: the CPU, and Apple's GPU, whose queue is one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def run(
        self, samples: torch.Tensor, compute: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
    ) -> Callable[[], list[torch.Tensor]]:
        results = [result.cpu() for result in compute(samples.to(self._device))]
        return lambda: results


class _Cuda:
    """A CUDA device with a stream each for copies in, arithmetic and copies out, so that they go on side by side."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._inwards, self._arithmetic, self._outwards = (torch.cuda.Stream(device) for _ in range(3))

    def run(
        self, samples: torch.Tensor, compute: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
    ) -> Callable[[], list[torch.Tensor]]:
        """Queue the copy of pinned samples, their arithmetic, and the copy of its results into pinned memory."""
        with torch.cuda.stream(self._inwards):
            there = samples.to(self._device, non_blocking=True)
        self._arithmetic.wait_stream(self._inwards)
        there.record_stream(self._arithmetic)
        with torch.cuda.stream(self._arithmetic), _repeatable():
            results = compute(there)
        self._outwards.wait_stream(self._arithmetic)
        with torch.cuda.stream(self._outwards):
            copies = []
            for result in results:
                result.record_stream(self._outwards)
                pinned = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
                copies.append(pinned.copy_(result, non_blocking=True))
            # Blocking: the thread that waits sleeps, since the cores are the decoders'.
            ended = torch.cuda.Event(blocking=True)
            ended.record(self._outwards)

        def wait() -> list[torch.Tensor]:
            ended.synchronize()
            return copies

        return wait


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """cuDNN's algorithms chosen by the shape alone, and float32 as it is: TF32 has 10 bits where float32 has 23."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
