"""Training examples from the store: spans read once, many patches cut from each, stems of different songs mixed.

Every example is a function of (seed, its number) alone, so a run that was killed goes on with the examples it would
have had. It is made in two steps: its ingredients are read and drawn, by whoever has the store at hand; a batch of them
is mixed at once, on the device that learns from it.
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from model.learning import mixing
from model.learning.trainer import Batch
from model.preset import MixingSettings, Preset
from storage.errors import StoreError
from storage.files.location import location
from storage.store import Store, StoredTrack
from tasks.training.spans import Span, SpanPool

LANES = 8  # pools of spans: example n is made of those of lane n modulo LANES, by whoever makes it
_SPANS, _SPAN_SECONDS = 3, 20.0  # per stem and lane at a time
_SPECTRAL_SPANS, _SPECTRAL_FRAMES = 1, 1024  # a stereo span of spectra holds 34 MB
_EXAMPLES_PER_SPAN = 5


class ExampleSource(Protocol):
    """Whatever reads what examples are made of, and mixes batches of it."""

    def ingredients(self, number: int) -> Any:
        """What an example is made of; it can be passed from one process to another.

        Args:
            number: The example's number in the run, from 0; it decides all that is drawn.
        """
        ...

    def mixed(self, ingredients: Sequence[Any], device: str = "cpu") -> Batch:
        """The batch of some examples.

        Args:
            ingredients: What `ingredients` gave for each.
            device: Torch device that mixes them and holds the batch.
        """
        ...

    def batch(self, step: int, device: str = "cpu") -> Batch:
        """The batch of a training step.

        Args:
            step: The step, from 0: its examples are numbers step · batch size and on.
            device: Torch device that mixes them and holds the batch.
        """
        ...


def example_source(store_path: str, tracks: list[StoredTrack], preset: Preset, seed: int) -> ExampleSource:
    """Batches of random mixtures of `tracks` for a preset.

    Args:
        store_path: Path or URL of the store.
        tracks: The store's tracks to learn from.
        preset: Its stems, its mixing, and whether examples come from waveforms or spectra.
        seed: The run's seed, which decides every example.

    Raises:
        StoreError: The store lacks one of the preset's stems, or spectra of its front end where examples are made
            from them.
    """
    kind = SpectrogramExamples if preset.training.source == "spectrogram" else WaveformExamples
    return kind(store_path, tracks, preset, seed)


class _PooledExamples(abc.ABC):
    """Examples cut from a pool of spans: `size` spans of every stem per lane, each of `length` samples or frames."""

    def __init__(
        self, store_path: str, tracks: list[StoredTrack], preset: Preset, seed: int, *, size: int, length: int,
        spectra: bool = False,
    ) -> None:  # fmt: skip
        self._preset, self._seed, self._size = preset, seed, size
        self._pool = SpanPool(
            store_path, tracks, seed, stems=preset.stems, size=size, length=length, spectra=spectra,
            favour=preset.training.favour, part_db=preset.mixing.part_db,
        )  # fmt: skip

    def batch(self, step: int, device: str = "cpu") -> Batch:
        """The batch of a training step."""
        size = self._preset.training.batch_size
        return self.mixed([self.ingredients(step * size + i) for i in range(size)], device)

    @abc.abstractmethod
    def ingredients(self, number: int) -> Any:
        """What the example of this number is made of."""

    @abc.abstractmethod
    def mixed(self, ingredients: Sequence[Any], device: str = "cpu") -> Batch:
        """The batch of these examples, made on a device."""

    def _spans_of(self, number: int) -> tuple[list[list[Span]], np.random.Generator]:
        """The spans that an example is cut from, one list per stem, and its source of chance."""
        spans = self._pool.block(number % LANES, number // (LANES * self._size * _EXAMPLES_PER_SPAN))
        return spans, np.random.default_rng([self._seed, 1, number])

    def _chosen(self, spans: list[list[Span]], random: np.random.Generator) -> list[Span]:
        """Spans that give every stem once: of one song, of a song each, or vocals of one and a backing of another."""
        chosen: list[Span] = []
        stem = 0
        while stem < len(spans):
            span = spans[stem][random.integers(len(spans[stem]))]
            if not (span.partners and random.random() < self._preset.mixing.same_track):
                span = replace(span, partners=())
            chosen.append(span)
            stem += 1 + len(span.partners)
        return chosen


@dataclass(frozen=True)
class WaveformIngredients:
    """The parts of an example, and the frequency at which their content ends, in Hz."""

    parts: mixing.Parts
    bandwidth: float


class WaveformExamples(_PooledExamples):
    """Examples from waveforms, with every augmentation the preset names."""

    def __init__(self, store_path: str, tracks: list[StoredTrack], preset: Preset, seed: int) -> None:
        self._rate = Store.open(location(store_path)).format.sample_rate
        super().__init__(store_path, tracks, preset, seed, size=_SPANS, length=int(_SPAN_SECONDS * self._rate))
        length = (preset.training.frames - 1) * preset.hop + preset.n_fft
        self._samples = -(-length * self._rate // preset.sample_rate)  # at the store's rate
        self._length = length  # at the preset's

    def ingredients(self, number: int) -> WaveformIngredients:
        """Patches of the stems of an example, and what is to be done to them.

        Args:
            number: The example's number in the run, from 0.
        """
        spans, random = self._spans_of(number)
        settings = self._preset.mixing
        patches, bandwidth = self._drawn(spans, random)
        last = len(patches) - 1
        sources = [self._source(patch, factor, stem, random) for stem, (patch, factor) in enumerate(patches)]
        for chance, stem, limits in ((settings.second_voice, 0, (-12, 0)), (settings.second_backing, last, (-9, 3))):
            if random.random() < chance:
                patch, factor = self._another(spans[stem], random)
                second = self._source(patch, factor, stem, random)
                sources.append(replace(second, against_db=float(random.uniform(*limits))))
        parts = mixing.Parts(tuple(sources), mixing.balance(settings, random, len(patches)))
        return WaveformIngredients(parts, bandwidth)

    def mixed(self, ingredients: Sequence[WaveformIngredients], device: str = "cpu") -> Batch:
        """The waveforms of some examples.

        Args:
            ingredients: What `ingredients` gave for each.
            device: Torch device that mixes them and holds the batch.

        Returns:
            Stems float32 (batch, stems, channels, samples) at the preset's rate and length.
        """
        preset = self._preset
        examples = [each.parts for each in ingredients]
        stems = mixing.mixed(examples, len(preset.stems), self._samples, self._rate, device)
        if preset.channels == 1:
            stems = stems.mean(2, keepdim=True)
        if self._rate != preset.sample_rate:
            stems = _resampled(stems, self._rate, preset.sample_rate, self._length)
        bandwidths = torch.tensor([each.bandwidth for each in ingredients], dtype=torch.float32)
        return Batch(stems[..., : self._length], bandwidths)

    def _source(self, patch: np.ndarray, factor: float, stem: int, random: np.random.Generator) -> mixing.Source:
        settings = self._preset.mixing
        if stem == 0:
            treatment = mixing.voice_treatment(settings, random, self._rate)
        else:
            treatment = mixing.backing_treatment(settings, random, self._rate, len(patch))
        return mixing.Source(torch.from_numpy(patch), stem, replace(treatment, speed=factor))

    def _drawn(
        self, spans: list[list[Span]], random: np.random.Generator
    ) -> tuple[list[tuple[np.ndarray, float]], float]:
        """A patch of every stem with its speed, and where their content ends."""
        chosen = self._chosen(spans, random)
        factors = [_speed(self._preset.mixing, random) for _ in chosen]
        patches = []
        for span, factor in zip(chosen, factors, strict=True):
            together = self._cut(Span(_stacked(span), span.bandwidth), factor, random)
            patches += [(patch, factor) for patch in _unstacked(together, span)]
        return patches, min(span.bandwidth * factor for span, factor in zip(chosen, factors, strict=True))

    def _another(self, spans: list[Span], random: np.random.Generator) -> tuple[np.ndarray, float]:
        """A patch of any span of a stem, and its speed."""
        span = spans[random.integers(len(spans))]
        factor = _speed(self._preset.mixing, random)
        return self._cut(span, factor, random), factor

    def _cut(self, span: Span, factor: float, random: np.random.Generator) -> np.ndarray:
        """A random patch of the span to be played `factor` times as fast; silence around a span that is too short."""
        needed = int(np.ceil(self._samples * factor)) + mixing.MARGIN
        room = span.signal.shape[1] - needed
        start = int(random.integers(room + 1)) if room > 0 else 0
        audio = span.signal[:, start : start + needed]
        if audio.shape[1] < needed:
            before = int(random.integers(needed - audio.shape[1] + 1))
            audio = np.pad(audio, ((0, 0), (before, needed - audio.shape[1] - before)))
        return np.ascontiguousarray(audio, np.float32)


@dataclass(frozen=True)
class SpectralIngredients:
    """Spectra complex64 of an example, (stems, channels, frames, bins), their balance, and the frequency at which their
    content ends, in Hz.
    """

    spectra: torch.Tensor
    balance: mixing.Balance
    bandwidth: float


class SpectrogramExamples(_PooledExamples):
    """Examples from the store's spectra: linear changes only, and no transform at all.

    The STFT is linear, so scaled, swapped and summed stems have exactly the spectrum of the new mixture.
    """

    def __init__(self, store_path: str, tracks: list[StoredTrack], preset: Preset, seed: int) -> None:
        stored, needed = Store.open(location(store_path)).format, preset.front_end
        if (stored.sample_rate, stored.n_fft, stored.hop) != (needed.sample_rate, needed.n_fft, needed.hop):
            raise StoreError(
                f"{store_path} keeps spectra of {stored}, preset {preset.name} needs {needed}; train from waveforms"
            )
        super().__init__(store_path, tracks, preset, seed, size=_SPECTRAL_SPANS, length=_SPECTRAL_FRAMES, spectra=True)

    def ingredients(self, number: int) -> SpectralIngredients:
        """Spectra of the stems of an example, and how they are to be balanced.

        Args:
            number: The example's number in the run, from 0.
        """
        spans, random = self._spans_of(number)
        chosen = self._chosen(spans, random)
        bandwidth = min(span.bandwidth for span in chosen)
        stems = [stem for span in chosen for stem in _unstacked(self._cut(_stacked(span), random), span)]
        stems = [_with_channels(stem, self._preset.channels)[:: random.choice([-1, 1])] for stem in stems]
        balance = mixing.balance(self._preset.mixing, random, len(stems))
        return SpectralIngredients(torch.from_numpy(np.stack(stems)), balance, bandwidth)

    def mixed(self, ingredients: Sequence[SpectralIngredients], device: str = "cpu") -> Batch:
        """The spectra of some examples.

        Args:
            ingredients: What `ingredients` gave for each.
            device: Torch device that balances them and holds the batch.

        Returns:
            Stems complex64 (batch, stems, channels, frames, bins) of the preset's front end.
        """
        spectra = torch.stack([each.spectra for each in ingredients])
        if device.startswith("cuda"):
            spectra = spectra.pin_memory().to(device, non_blocking=True)
        bandwidths = torch.tensor([each.bandwidth for each in ingredients], dtype=torch.float32)
        return Batch(mixing.balanced(spectra, [each.balance for each in ingredients], _spectral_level), bandwidths)

    def _cut(self, spectra: np.ndarray, random: np.random.Generator) -> np.ndarray:
        frames = self._preset.training.frames
        start = int(random.integers(max(0, spectra.shape[1] - frames) + 1))
        cut = spectra[:, start : start + frames]
        return np.pad(cut, ((0, 0), (0, frames - cut.shape[1]), (0, 0)))


def _stacked(span: Span) -> np.ndarray:
    """All stems of a song as one array, so that they are cut alike."""
    return np.concatenate([span.signal, *span.partners])


def _unstacked(stacked: np.ndarray, span: Span) -> list[np.ndarray]:
    ends = np.cumsum([len(span.signal), *(len(partner) for partner in span.partners)])
    return np.split(stacked, ends[:-1])


def _with_channels(spectra: np.ndarray, channels: int) -> np.ndarray:
    if channels == 1:
        return spectra.mean(axis=0, keepdims=True)
    return np.repeat(spectra, channels, axis=0) if spectra.shape[0] == 1 else spectra


def _speed(settings: MixingSettings, random: np.random.Generator) -> float:
    if not settings.speed:
        return 1.0
    limit = np.log1p(settings.speed)
    return float(np.exp(random.uniform(-limit, limit)))


def _spectral_level(spectra: torch.Tensor) -> torch.Tensor:
    """(batch,) RMS of spectra (batch, channels, frames, bins)."""
    return spectra.abs().square().mean((1, 2, 3)).sqrt()


def _resampled(stems: torch.Tensor, before: int, after: int, samples: int) -> torch.Tensor:
    """Stems (batch, stems, channels, samples) at another rate and of this length."""
    import soxr

    flat = stems.cpu().flatten(0, 2).numpy()
    rows = [soxr.resample(np.ascontiguousarray(row), before, after, "HQ")[:samples] for row in flat]
    resampled = np.stack([np.pad(row, (0, samples - len(row))) for row in rows])
    return torch.from_numpy(resampled).unflatten(0, stems.shape[:3]).to(stems.device)
