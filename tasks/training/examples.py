"""Training examples from the store: spans read once, many patches cut from each, stems of different songs mixed.

Every example is a function of (seed, its number) alone, so a run that was killed goes on with the
examples it would have had.
"""

import abc
from typing import Protocol

import numpy as np
import torch

from model.learning import augment, mixing
from model.learning.trainer import Batch
from model.preset import MixingSettings, Preset
from storage.errors import StoreError
from storage.files.location import location
from storage.store import Store, StoredTrack
from tasks.training.spans import Span, SpanPool

LANES = 8  # pools of spans: example n is made of those of lane n modulo LANES, by whoever makes it
_SPANS, _SPAN_SECONDS = 3, 20.0  # of a stem in a lane at a time
_SPECTRAL_SPANS, _SPECTRAL_FRAMES = 1, 1024  # a stereo span of spectra holds 34 MB
_EXAMPLES_PER_SPAN = 5


class ExampleSource(Protocol):
    """Whatever makes examples, and the batch of a training step from them."""

    def example(self, number: int) -> tuple[np.ndarray, float]:
        """Stems (stems, channels, …) of an example, and where their content ends, in Hz."""
        ...

    def batch(self, step: int) -> Batch: ...


def example_source(store_path: str, tracks: list[StoredTrack], preset: Preset, seed: int) -> ExampleSource:
    """Batches of random mixtures of `tracks` for a preset.

    Raises StoreError when the store lacks vocals or backings, or spectra of the preset's front end
    where the preset wants its examples from them.
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

    def batch(self, step: int) -> Batch:
        """The batch of a training step: waveforms, or spectra (batch, stems, channels, frames, bins)."""
        size = self._preset.training.batch_size
        return _batch([self.example(step * size + i) for i in range(size)])

    @abc.abstractmethod
    def example(self, number: int) -> tuple[np.ndarray, float]:
        """Stems (stems, channels, …) of an example, and where their content ends, in Hz."""

    def _spans_of(self, number: int) -> tuple[list[list[Span]], np.random.Generator]:
        """The spans that an example is cut from, one list per stem, and its source of chance."""
        spans = self._pool.block(number % LANES, number // (LANES * self._size * _EXAMPLES_PER_SPAN))
        return spans, np.random.default_rng([self._seed, 1, number])


class WaveformExamples(_PooledExamples):
    """Examples from waveforms, with every augmentation the preset names."""

    def __init__(self, store_path: str, tracks: list[StoredTrack], preset: Preset, seed: int) -> None:
        self._rate = Store.open(location(store_path)).format.sample_rate
        super().__init__(store_path, tracks, preset, seed, size=_SPANS, length=int(_SPAN_SECONDS * self._rate))

    def example(self, number: int) -> tuple[np.ndarray, float]:
        """Waveforms float32 (stems, channels, samples) of an example, and where their content ends, in Hz."""
        spans, random = self._spans_of(number)
        settings, rate = self._preset.mixing, self._rate
        stems, bandwidth = self._drawn(spans, random)
        stems = [mixing.voice(stems[0], rate, settings, random)] + [
            mixing.backing(stem, rate, settings, random) for stem in stems[1:]
        ]
        if random.random() < settings.second_voice:
            sung = mixing.voice(self._another(spans[0], random), rate, settings, random)
            stems[0] = stems[0] + _matched(sung, stems[0]) * _gain(random, -12, 0)
        if random.random() < settings.second_backing:
            played = mixing.backing(self._another(spans[-1], random), rate, settings, random)
            stems[-1] = stems[-1] + _matched(played, stems[-1]) * _gain(random, -9, 3)
        stems = mixing.balance(stems, rate, settings, random)
        return np.stack([self._fitted(stem) for stem in stems]), bandwidth

    def _drawn(self, spans: list[list[Span]], random: np.random.Generator) -> tuple[list[np.ndarray], float]:
        """A patch of every stem and where their content ends: all of one song, or each of its own."""
        settings, samples = self._preset.mixing, self._samples(self._rate)
        first = spans[0][random.integers(len(spans[0]))]
        if first.partners and random.random() < settings.same_track:
            together, factor = Span(_stacked(first), first.bandwidth), _speed(settings, random)
            return _unstacked(self._cut(together, samples, factor, random), first), first.bandwidth * factor
        chosen = [first] + [others[random.integers(len(others))] for others in spans[1:]]
        factors = [_speed(settings, random) for _ in chosen]
        stems = [self._cut(span, samples, factor, random) for span, factor in zip(chosen, factors, strict=True)]
        return stems, min(span.bandwidth * factor for span, factor in zip(chosen, factors, strict=True))

    def _another(self, spans: list[Span], random: np.random.Generator) -> np.ndarray:
        """A patch of any span of a stem."""
        span = spans[random.integers(len(spans))]
        return self._cut(span, self._samples(self._rate), _speed(self._preset.mixing, random), random)

    def _samples(self, rate: int) -> int:
        """Samples at `rate` that give the preset's frames."""
        preset = self._preset
        samples = (preset.training.frames - 1) * preset.hop + preset.n_fft
        return -(-samples * rate // preset.sample_rate)

    def _fitted(self, audio: np.ndarray) -> np.ndarray:
        """At the preset's channels, rate and length."""
        preset = self._preset
        if preset.channels == 1:
            audio = audio.mean(axis=0, keepdims=True)
        if self._rate != preset.sample_rate:
            audio = _resample(audio, self._rate, preset.sample_rate, "HQ")
        samples = (preset.training.frames - 1) * preset.hop + preset.n_fft
        return np.ascontiguousarray(_to_length(audio, samples), np.float32)

    def _cut(self, span: Span, samples: int, factor: float, random: np.random.Generator) -> np.ndarray:
        """A random patch of the span, played `factor` times as fast; silence around a span that is too short."""
        needed = int(np.ceil(samples * factor)) + 64
        room = span.signal.shape[1] - needed
        start = int(random.integers(room + 1)) if room > 0 else 0
        audio = span.signal[:, start : start + needed]
        if audio.shape[1] < needed:
            before = int(random.integers(needed - audio.shape[1] + 1))
            audio = np.pad(audio, ((0, 0), (before, needed - audio.shape[1] - before)))
        if factor != 1.0:
            audio = _resample(audio, self._rate * factor, self._rate, "LQ")
        return _to_length(audio, samples)


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

    def example(self, number: int) -> tuple[np.ndarray, float]:
        """Spectra complex64 (stems, channels, frames, bins) of an example, and where their content ends, in Hz."""
        spans, random = self._spans_of(number)
        first = spans[0][random.integers(len(spans[0]))]
        if first.partners and random.random() < self._preset.mixing.same_track:
            stems, bandwidth = _unstacked(self._cut(_stacked(first), random), first), first.bandwidth
        else:
            chosen = [first] + [others[random.integers(len(others))] for others in spans[1:]]
            stems = [self._cut(span.signal, random) for span in chosen]
            bandwidth = min(span.bandwidth for span in chosen)
        stems = [_with_channels(stem, self._preset.channels)[:: random.choice([-1, 1])] for stem in stems]
        return np.stack(mixing.balance_spectra(stems, self._preset.mixing, random)), bandwidth

    def _cut(self, spectra: np.ndarray, random: np.random.Generator) -> np.ndarray:
        frames = self._preset.training.frames
        start = int(random.integers(max(0, spectra.shape[1] - frames) + 1))
        cut = spectra[:, start : start + frames]
        return np.pad(cut, ((0, 0), (0, frames - cut.shape[1]), (0, 0)))


def _batch(examples: list[tuple[np.ndarray, float]]) -> Batch:
    stems, bandwidths = zip(*examples, strict=True)
    return Batch(stems=torch.from_numpy(np.stack(stems)), bandwidth=torch.tensor(bandwidths, dtype=torch.float32))


def _stacked(span: Span) -> np.ndarray:
    """All stems of a song as one array, so that they are cut alike."""
    return np.concatenate([span.signal, *span.partners])


def _unstacked(stacked: np.ndarray, span: Span) -> list[np.ndarray]:
    ends = np.cumsum([len(span.signal), *(len(partner) for partner in span.partners)])
    return np.split(stacked, ends[:-1])


def _gain(random: np.random.Generator, low: float, high: float) -> np.float32:
    """An amplitude factor between two levels in dB."""
    return np.float32(augment.decibels(float(random.uniform(low, high))))


def _with_channels(spectra: np.ndarray, channels: int) -> np.ndarray:
    if channels == 1:
        return spectra.mean(axis=0, keepdims=True)
    return np.repeat(spectra, channels, axis=0) if spectra.shape[0] == 1 else spectra


def _speed(settings: MixingSettings, random: np.random.Generator) -> float:
    if not settings.speed:
        return 1.0
    limit = np.log1p(settings.speed)
    return float(np.exp(random.uniform(-limit, limit)))


def _matched(audio: np.ndarray, to: np.ndarray) -> np.ndarray:
    """`audio` at the RMS of `to`."""
    level, target = (float(np.sqrt(np.square(x).mean())) for x in (audio, to))
    return audio * np.float32(target / level) if level > 1e-6 else audio


def _resample(audio: np.ndarray, before: float, after: float, quality: str) -> np.ndarray:
    import soxr

    return np.ascontiguousarray(soxr.resample(np.ascontiguousarray(audio.T), before, after, quality).T)


def _to_length(audio: np.ndarray, samples: int) -> np.ndarray:
    audio = audio[:, :samples]
    return np.pad(audio, ((0, 0), (0, samples - audio.shape[1])))
