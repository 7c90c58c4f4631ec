"""Separators from other packages behind our interface: streamed, at any rate, adding up to the mixture.

A separator from another package joins by an entry point of the group `unbraid.separators`:

    [project.entry-points."unbraid.separators"]
    mine = "my_package:load"

where `load(name, device)` returns a `ForeignModel`; `--model mine:NAME` then works wherever a model id does.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

import numpy as np
import torch

from model.errors import ModelError
from model.separation.evidence import Evidence, stem_sums
from model.separation.stream import Piece, adding_up, separate_whole

GROUP = "unbraid.separators"
_EVIDENCE_WINDOW = 4096
_CORE_SECONDS, _CONTEXT_SECONDS, _FADE_SECONDS = 60.0, 6.0, 0.5


@dataclass(frozen=True)
class ForeignModel:
    """A function from a waveform and its rate to named stems, and what to know of it.

    `separate(audio, rate)` takes float32 (channels, samples) and returns the same shape for each of `stems`.
    `sample_rate` (Hz) and `channels` are those it requires, None where any will do. `model_id` must change when the
    weights do: a catalog's rows record it.
    """

    model_id: str
    stems: tuple[str, ...]
    separate: Callable[[np.ndarray, int], dict[str, np.ndarray]]
    sample_rate: int | None = None
    channels: int | None = None


def is_foreign(name: str) -> bool:
    """Whether this is the name of a foreign model, such as demucs:htdemucs.

    Args:
        name: What the user gave as the model: a preset, a model id, a file or `family:name`.

    Returns:
        True where the part before the colon is an installed entry point of `GROUP`.
    """
    return name.partition(":")[0] in _entry_points()


def load_foreign(name: str, device: str) -> "ForeignSeparator":
    """The separator behind `family:name`.

    Args:
        name: The entry point's name in `GROUP`, a colon, and what its `load` takes as a name.
        device: "cpu" or "cuda", passed on to `load`.

    Raises:
        ModelError: The family's package cannot be imported, or its `load` says that it has no such model.
    """
    family, _, model = name.partition(":")
    try:
        load = _entry_points()[family].load()
    except (ImportError, AttributeError) as error:
        raise ModelError(f"the separators {family} cannot be loaded ({error}); install their package again") from error
    return ForeignSeparator(load(model, device), device)


def weights_digest(module: torch.nn.Module) -> str:
    """Eight hex digits that change when a module's weights do, for a model id.

    Args:
        module: A network, on any device.

    Returns:
        The first eight hex digits of the SHA-256 of its parameters' and buffers' names and bytes.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:8]


class ForeignSeparator:
    """A `ForeignModel` with the interface of `model.separation.stream.Separator`."""

    calibration = None  # others' weights carry none, so their scores are not predicted
    precision = "float32"

    def __init__(self, model: ForeignModel, device: str = "cpu") -> None:
        self._model = model
        self.device = device
        self.model_id = model.model_id
        self.stems = _with_rest(model.stems)

    def stream(self, rate: int, channels: int) -> "ForeignStream":
        """A stream for one file.

        Args:
            rate: The file's sample rate in Hz.
            channels: Its channels.
        """
        return ForeignStream(self._model, self.stems, rate, channels)

    def separate(self, audio: np.ndarray, rate: int) -> dict[str, np.ndarray]:
        """Stems of a complete mixture.

        Args:
            audio: Floating point, (samples,), (channels, samples) or (samples, channels); full scale 1.0.
            rate: Its sample rate in Hz.

        Returns:
            Per stem an array of the mixture's shape, float32.

        Raises:
            InputError: The array is not audio, see `model.separation.arrays.as_channels`.
        """
        return separate_whole(self, audio, rate)


class ForeignStream:
    """One file in constant memory: parts of a minute with context on either side, cross-faded over a second.

    The parts' grid starts with the file, so how it is pushed changes nothing.
    """

    def __init__(self, model: ForeignModel, stems: tuple[str, ...], rate: int, channels: int) -> None:
        self._model, self._stems, self._rate, self._channels = model, stems, rate, channels
        self._core, self._context = round(_CORE_SECONDS * rate), round(_CONTEXT_SECONDS * rate)
        self._fade = round(_FADE_SECONDS * rate)
        self._buffer = np.zeros((channels, 0), np.float32)
        self._first = 0  # the sample with which the buffer begins
        self._part = 0
        self.evidence = Evidence(len(stems), rate)
        self._tail: np.ndarray | None = None  # the last part's estimate around its end

    def push(self, block: np.ndarray) -> Iterator[Piece]:
        """Add samples; yield what they complete.

        Args:
            block: The file's next samples, (channels, samples), of any length.

        Yields:
            Stretches of the mixture with their stems, in order, without gaps.
        """
        self._buffer = np.concatenate([self._buffer, np.asarray(block, np.float32)], axis=1)
        while self._first + self._buffer.shape[1] > (self._part + 1) * self._core + self._context:
            yield self._separate(last=False)

    def finish(self) -> Iterator[Piece]:
        """Yield the rest of the file."""
        while self._buffer.shape[1] and self._first + self._buffer.shape[1] > self._part * self._core - self._fade:
            yield self._separate(last=self._first + self._buffer.shape[1] <= (self._part + 1) * self._core)

    def _separate(self, *, last: bool) -> Piece:
        """The next part: from `fade` before its core to `fade` before its end, or to the end of the file."""
        begin, end = self._part * self._core, (self._part + 1) * self._core
        seen = self._buffer[:, : end + self._context - self._first]
        estimates = self._estimate(seen)
        start = max(0, begin - self._fade) - self._first
        stop = seen.shape[1] if last else end - self._fade - self._first
        if self._tail is not None:
            width = min(self._tail.shape[-1], stop - start)
            rising = np.linspace(0, 1, self._tail.shape[-1], dtype=np.float32)[:width]
            faded = estimates[..., start : start + width]
            estimates[..., start : start + width] = faded * rising + self._tail[..., :width] * (1 - rising)
        mixture = self._buffer[:, start:stop].copy()
        piece = adding_up(torch.from_numpy(mixture), torch.from_numpy(estimates[..., start:stop]), self._stems)
        every = list(piece.stems.values())
        sums = stem_sums(mixture, every, _EVIDENCE_WINDOW)
        self.evidence.add_frames(sums, self._first + start + _EVIDENCE_WINDOW / 2, _EVIDENCE_WINDOW / 4)
        self.evidence.add_samples(every)
        self._tail = None if last else estimates[..., stop : stop + 2 * self._fade].copy()
        self._part += 1
        keep = seen.shape[1] if last else max(0, end - self._context - self._first)
        self._buffer = self._buffer[:, keep:].copy()
        self._first += keep
        return piece

    def _estimate(self, audio: np.ndarray) -> np.ndarray:
        """(stems but the last, channels, samples), at the file's rate and channels."""
        import soxr

        model, channels = self._model, self._model.channels or self._channels
        groups = [audio] if channels == self._channels else [np.repeat(row[None], channels, axis=0) for row in audio]
        grouped = []
        for group in groups:
            rate = model.sample_rate or self._rate
            mixture = group if rate == self._rate else soxr.resample(group.T, self._rate, rate, "HQ").T
            stems = model.separate(np.ascontiguousarray(mixture, np.float32), rate)
            estimates = np.stack([np.asarray(stems[stem], np.float32) for stem in self._stems[:-1]])
            if rate != self._rate:
                estimates = np.stack([soxr.resample(stem.T, rate, self._rate, "HQ").T for stem in estimates])
            estimates = _to_length(estimates, audio.shape[1])
            grouped.append(estimates if channels == self._channels else estimates.mean(axis=1, keepdims=True))
        return np.ascontiguousarray(np.concatenate(grouped, axis=1), np.float32)


def _with_rest(stems: tuple[str, ...]) -> tuple[str, ...]:
    """The stems, ending with the one that is what the others leave of the mixture."""
    for rest in ("other", "accompaniment"):
        if rest in stems:
            return (*(stem for stem in stems if stem != rest), rest)
    return (*stems, "accompaniment" if stems == ("vocals",) else "other")


def _to_length(audio: np.ndarray, samples: int) -> np.ndarray:
    audio = audio[..., :samples]
    return np.pad(audio, [(0, 0)] * (audio.ndim - 1) + [(0, samples - audio.shape[-1])])


def _entry_points() -> dict[str, metadata.EntryPoint]:
    return {entry.name: entry for entry in metadata.entry_points(group=GROUP)}
