"""Training examples from the store: spans read once, many patches cut from each, stems of different songs mixed.

Every example is a function of (seed, its number) alone, so a run that was killed goes on with the
examples it would have had.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model import augment, mixing
from model.frontend import FrontEnd
from model.preset import Preset
from model.training import Batch
from storage.errors import StoreError
from storage.store import Store, StoredTrack

_SPANS = 24  # vocal and backing spans in memory at a time
_EXAMPLES_PER_SPAN = 5
_SPAN_SECONDS = 20.0


@dataclass(frozen=True)
class _Span:
    """A stretch of a stem, float32 (channels, samples) at the store's rate, and what it is of."""

    audio: np.ndarray
    bandwidth: float
    partner: np.ndarray | None = None  # the other half of the same track over the same stretch


class ExampleSource:
    """Batches of random mixtures for a preset. `tracks` are those of the training split."""

    def __init__(self, store_path: str, tracks: list[StoredTrack], preset: Preset, seed: int) -> None:
        self._store = Store.open(Path(store_path))
        self._rate = self._store.format.sample_rate
        self._preset = preset
        self._seed = seed
        self._voices = _Weighted([t for t in tracks if "vocals" in t.stems], self._rate)
        self._backings = _Weighted([t for t in tracks if backing_stems(t)], self._rate)
        if not self._voices.tracks or not self._backings.tracks:
            raise StoreError(f"{store_path} needs vocals and backings to train on; ingest both")
        self._block = -1
        self._pool: tuple[list[_Span], list[_Span]] = ([], [])

    def batch(self, step: int) -> Batch:
        """The batch of a training step."""
        size = self._preset.training.batch_size
        examples = [self._example(step * size + i) for i in range(size)]
        return Batch(
            vocals=torch.from_numpy(np.stack([e[0] for e in examples])),
            accompaniment=torch.from_numpy(np.stack([e[1] for e in examples])),
            bandwidth=torch.tensor([e[2] for e in examples], dtype=torch.float32),
        )

    def _example(self, number: int) -> tuple[np.ndarray, np.ndarray, float]:
        voices, backings = self._spans(number // (_SPANS * _EXAMPLES_PER_SPAN))
        random = np.random.default_rng([self._seed, 1, number])
        settings, rate = self._preset.mixing, self._rate
        samples = self._samples(rate)
        first = voices[random.integers(len(voices))]
        if first.partner is not None and random.random() < settings.same_track:
            pair, factor = _Span(np.concatenate([first.audio, first.partner]), first.bandwidth), _speed(settings, random)
            both = self._cut(pair, samples, factor, random)
            vocals, accompaniment = both[: len(first.audio)], both[len(first.audio) :]
            bandwidth = first.bandwidth * factor
        else:
            second = backings[random.integers(len(backings))]
            factors = _speed(settings, random), _speed(settings, random)
            vocals = self._cut(first, samples, factors[0], random)
            accompaniment = self._cut(second, samples, factors[1], random)
            bandwidth = min(first.bandwidth * factors[0], second.bandwidth * factors[1])
        vocals = mixing.voice(vocals, rate, settings, random)
        accompaniment = mixing.backing(accompaniment, rate, settings, random)
        if random.random() < settings.second_voice:
            other = voices[random.integers(len(voices))]
            sung = mixing.voice(self._cut(other, samples, _speed(settings, random), random), rate, settings, random)
            vocals = vocals + _matched(sung, vocals) * np.float32(augment.decibels(float(random.uniform(-12, 0))))
        if random.random() < settings.second_backing:
            other = backings[random.integers(len(backings))]
            played = self._cut(other, samples, _speed(settings, random), random)
            played = mixing.backing(played, rate, settings, random)
            accompaniment = accompaniment + _matched(played, accompaniment) * np.float32(
                augment.decibels(float(random.uniform(-9, 3)))
            )
        vocals, accompaniment = mixing.balance(vocals, accompaniment, rate, settings, random)
        return self._fitted(vocals), self._fitted(accompaniment), float(bandwidth)

    def _samples(self, rate: int) -> int:
        """Samples at `rate` that give the preset's frames."""
        preset = self._preset
        own = (preset.training.frames - 1) * preset.hop + preset.n_fft
        return -(-own * rate // preset.sample_rate)

    def _fitted(self, audio: np.ndarray) -> np.ndarray:
        """At the preset's channels, rate and length."""
        preset = self._preset
        if preset.channels == 1:
            audio = audio.mean(axis=0, keepdims=True)
        if self._rate != preset.sample_rate:
            audio = _resample(audio, self._rate, preset.sample_rate, "HQ")
        wanted = (preset.training.frames - 1) * preset.hop + preset.n_fft
        return np.ascontiguousarray(_to_length(audio, wanted), np.float32)

    def _cut(self, span: _Span, samples: int, factor: float, random: np.random.Generator) -> np.ndarray:
        """A random patch of the span, played `factor` times as fast; silence around a span that is too short."""
        needed = int(np.ceil(samples * factor)) + 64
        room = span.audio.shape[1] - needed
        start = int(random.integers(room + 1)) if room > 0 else 0
        audio = span.audio[:, start : start + needed]
        if audio.shape[1] < needed:
            before = int(random.integers(needed - audio.shape[1] + 1))
            audio = np.pad(audio, ((0, 0), (before, needed - audio.shape[1] - before)))
        if factor != 1.0:
            audio = _resample(audio, self._rate * factor, self._rate, "LQ")
        return _to_length(audio, samples)

    def _spans(self, block: int) -> tuple[list[_Span], list[_Span]]:
        if block != self._block:
            random = np.random.default_rng([self._seed, 0, block])
            voices = [self._voice_span(self._voices.draw(random), random) for _ in range(_SPANS)]
            backings = [self._backing_span(self._backings.draw(random), random) for _ in range(_SPANS)]
            self._block, self._pool = block, (voices, backings)
        return self._pool

    def _voice_span(self, track: StoredTrack, random: np.random.Generator) -> _Span:
        start, stop = self._sounding(track, random)
        audio = self._store.waveform(track, "vocals", start, stop)
        partner = read_backing(self._store, track, start, stop) if backing_stems(track) else None
        return _Span(audio, track.bandwidth_hz["vocals"], partner)

    def _backing_span(self, track: StoredTrack, random: np.random.Generator) -> _Span:
        start, stop = self._stretch(track, random)
        bandwidth = max(track.bandwidth_hz[stem] for stem in backing_stems(track))
        return _Span(read_backing(self._store, track, start, stop), bandwidth)

    def _sounding(self, track: StoredTrack, random: np.random.Generator) -> tuple[int, int]:
        """A stretch in which the voice sings; a song's vocal stem is silent for much of its time."""
        for _ in range(4):
            start, stop = self._stretch(track, random)
            if np.abs(self._store.waveform(track, "vocals", start, stop)).mean() > 1e-3:
                break
        return start, stop

    def _stretch(self, track: StoredTrack, random: np.random.Generator) -> tuple[int, int]:
        length = min(track.samples, int(_SPAN_SECONDS * self._rate))
        start = int(random.integers(track.samples - length + 1))
        return start, start + length


class _Weighted:
    """Tracks drawn so that a dataset counts by the root of its hours and a track by its length."""

    def __init__(self, tracks: list[StoredTrack], rate: int) -> None:
        self.tracks = tracks
        totals: dict[str, float] = {}
        for track in tracks:
            totals[track.dataset] = totals.get(track.dataset, 0.0) + track.samples / rate
        weights = np.array([t.samples / rate / np.sqrt(totals[t.dataset]) for t in tracks])
        self._cumulative = np.cumsum(weights) / weights.sum() if len(tracks) else weights

    def draw(self, random: np.random.Generator) -> StoredTrack:
        return self.tracks[min(int(np.searchsorted(self._cumulative, random.random())), len(self.tracks) - 1)]


def backing_stems(track: StoredTrack) -> list[str]:
    """The stems whose sum is the accompaniment: that stem itself, or all that are not vocals."""
    if "accompaniment" in track.stems:
        return ["accompaniment"]
    return [stem for stem in track.stems if stem not in ("vocals", "mixture")]


def read_backing(store: Store, track: StoredTrack, start: int = 0, stop: int | None = None) -> np.ndarray:
    """The accompaniment over a stretch, float32 (channels, samples)."""
    stems = [store.waveform(track, stem, start, stop) for stem in backing_stems(track)]
    channels = max(stem.shape[0] for stem in stems)
    return np.sum([np.broadcast_to(stem, (channels, stem.shape[1])) for stem in stems], axis=0, dtype=np.float32)


def _speed(settings: mixing.MixingSettings, random: np.random.Generator) -> float:
    if not settings.speed:
        return 1.0
    limit = np.log1p(settings.speed)
    return float(np.exp(random.uniform(-limit, limit)))


def _matched(audio: np.ndarray, to: np.ndarray) -> np.ndarray:
    """`audio` at the RMS of `to`."""
    own, other = (float(np.sqrt(np.square(x).mean())) for x in (audio, to))
    return audio * np.float32(other / own) if own > 1e-6 else audio


def _resample(audio: np.ndarray, before: float, after: float, quality: str) -> np.ndarray:
    import soxr

    return np.ascontiguousarray(soxr.resample(np.ascontiguousarray(audio.T), before, after, quality).T)


def _to_length(audio: np.ndarray, samples: int) -> np.ndarray:
    audio = audio[:, :samples]
    return np.pad(audio, ((0, 0), (0, samples - audio.shape[1])))


def front_end_matches(store: Store, front_end: FrontEnd) -> bool:
    """Does the store keep spectra of exactly this front end?"""
    form = store.format
    return (form.sample_rate, form.n_fft, form.hop) == (front_end.sample_rate, front_end.n_fft, front_end.hop)
