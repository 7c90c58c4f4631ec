"""Spans of stems from the store, read once and cut into many patches.

A block of examples shares a pool of spans: 5 to 10 times as fast as a read for every patch, and still
another pairing of voices and backings each time.
"""

from dataclasses import dataclass

import numpy as np

from model.learning import augment
from storage.errors import StoreError
from storage.files.location import location
from storage.store import Store, StoredTrack

_ATTEMPTS_AT_SOUND = 4
_AUDIBLE = 1e-3


@dataclass(frozen=True)
class Span:
    """A stretch of a stem.

    Attributes:
        signal: Its waveform (channels, samples) or spectra (channels, frames, bins).
        bandwidth: The frequency at which its content ends, in Hz.
        partners: The stems that come after this one in the preset, of the same track and stretch; empty where the
            track lacks one of them.
    """

    signal: np.ndarray
    bandwidth: float
    partners: tuple[np.ndarray, ...] = ()


class SpanPool:
    """`size` spans of every stem for each block of examples, a function of (seed, lane, block).

    Args:
        store_path: Path or URL of the store.
        tracks: The store's tracks to draw from.
        seed: The run's seed.
        stems: What is drawn, the vocals first.
        size: Spans per stem and block.
        length: Samples of a span at the store's rate; frames where `spectra` is on.
        spectra: Whether to read the store's spectrograms instead of its waveforms.
        favour: Dataset → factor on how often it is drawn; 1 where it is not named.
        part_db: Range of the gains in dB on the parts of which a stem is summed.

    Raises:
        StoreError: The tracks lack one of the stems.
    """

    def __init__(
        self, store_path: str, tracks: list[StoredTrack], seed: int, *, stems: tuple[str, ...], size: int, length: int,
        spectra: bool = False, favour: dict[str, float] | None = None, part_db: tuple[float, float] = (0.0, 0.0),
    ) -> None:  # fmt: skip
        self.store = Store.open(location(store_path))
        self._rate = self.store.format.sample_rate
        self._stems = stems
        self._seed, self._size, self._length, self._spectra = seed, size, length, spectra
        self._part_db = part_db
        self._tracks = [_Weighted([t for t in tracks if has_stem(t, stem)], self._rate, favour or {}) for stem in stems]
        missing = [stem for stem, having in zip(stems, self._tracks, strict=True) if not having.tracks]
        if missing:
            raise StoreError(f"{store_path} has no {' and no '.join(missing)} to train on; ingest some")
        self._blocks: dict[int, tuple[int, list[list[Span]]]] = {}

    def block(self, lane: int, number: int) -> list[list[Span]]:
        """The spans of a block of a lane; the last block of every lane is kept in memory.

        Args:
            lane: The lane: example n belongs to lane n modulo the number of lanes.
            number: The block's number in its lane, from 0.

        Returns:
            One list of `size` spans per stem, in the order of `stems`.
        """
        kept = self._blocks.get(lane)
        if kept is None or kept[0] != number:
            random = np.random.default_rng([self._seed, 0, lane, number])
            spans = [
                [self._span(stem, tracks.draw(random), random) for _ in range(self._size)]
                for stem, tracks in zip(self._stems, self._tracks, strict=True)
            ]
            self._blocks[lane] = kept = (number, spans)
        return kept[1]

    def _span(self, stem: str, track: StoredTrack, random: np.random.Generator) -> Span:
        """A stretch in which the stem sounds; a song's vocals are silent for much of its time."""
        for _ in range(_ATTEMPTS_AT_SOUND):
            start, stop = self._stretch(track, random)
            signal = self._read(track, stem, start, stop, random)
            if self._level(signal) > _AUDIBLE:
                break
        others = self._stems[self._stems.index(stem) + 1 :]
        complete = all(has_stem(track, other) for other in others)
        partners = tuple(self._read(track, other, start, stop, random) for other in others if complete)
        return Span(signal, max(track.bandwidth_hz[part] for part in stem_parts(track, stem)), partners)

    def _level(self, signal: np.ndarray) -> float:
        """Mean size of the samples; of spectra, that of a noise with the same energy.

        A Hann window of n samples has Σ w² = 3/8 n, so white noise of variance v has E|X|² = 3/8 n · v, and its samples
        have the mean size √(2 v / π).
        """
        if not self._spectra:
            return float(np.abs(signal).mean())
        power = float(np.square(np.abs(signal)).mean())
        return float(np.sqrt(2 / np.pi * power / (0.375 * self.store.format.n_fft)))

    def _stretch(self, track: StoredTrack, random: np.random.Generator) -> tuple[int, int]:
        available = self.store.frames(track) if self._spectra else track.samples
        length = min(available, self._length)
        start = int(random.integers(available - length + 1))
        return start, start + length

    def _read(self, track: StoredTrack, stem: str, start: int, stop: int, random: np.random.Generator) -> np.ndarray:
        """The stem; one that is summed from parts with each part's level changed by `part_db`: another arrangement."""
        read = self.store.spectrogram if self._spectra else self.store.waveform
        parts = [read(track, part, start, stop) for part in stem_parts(track, stem)]
        if len(parts) > 1 and any(self._part_db):
            gains = [augment.decibels(float(random.uniform(*self._part_db))) for _ in parts]
            parts = [part * np.float32(gain) for part, gain in zip(parts, gains, strict=True)]
        return _sum(parts)


class _Weighted:
    """Tracks drawn so that a dataset counts by the root of its hours, times its favour, and a track by its length."""

    def __init__(self, tracks: list[StoredTrack], rate: int, favour: dict[str, float]) -> None:
        self.tracks = tracks
        totals: dict[str, float] = {}
        for track in tracks:
            totals[track.dataset] = totals.get(track.dataset, 0.0) + track.samples / rate
        weights = np.array([t.samples / rate / np.sqrt(totals[t.dataset]) * favour.get(t.dataset, 1.0) for t in tracks])
        self._cumulative = np.cumsum(weights) / weights.sum() if len(tracks) else weights

    def draw(self, random: np.random.Generator) -> StoredTrack:
        return self.tracks[min(int(np.searchsorted(self._cumulative, random.random())), len(self.tracks) - 1)]


def stem_parts(track: StoredTrack, stem: str) -> list[str]:
    """The track's stems whose sum is `stem`: itself, or for the accompaniment all that are not vocals.

    Args:
        track: A track of the store.
        stem: The stem needed, which the track may lack.

    Returns:
        Names of stored stems; none where the track cannot give the stem.
    """
    if stem in track.stems:
        return [stem]
    return [part for part in track.stems if part not in ("vocals", "mixture")] if stem == "accompaniment" else []


def has_stem(track: StoredTrack, stem: str) -> bool:
    """Does the track have a stem, as itself or as a sum of others?

    Args:
        track: A track of the store.
        stem: The stem needed.
    """
    return bool(stem_parts(track, stem))


def read_stem(store: Store, track: StoredTrack, stem: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """A stem over a stretch, summed from its parts where it is not stored itself.

    Args:
        store: The store.
        track: A track of it that has the stem (`has_stem`).
        stem: The stem to read.
        start: The first sample, at the store's rate.
        stop: The sample after the last; None for the end.

    Returns:
        float32 (channels, samples).
    """
    return _sum([store.waveform(track, part, start, stop) for part in stem_parts(track, stem)])


def _sum(stems: list[np.ndarray]) -> np.ndarray:
    """The sum of stems of one length, some mono and some stereo."""
    channels = max(stem.shape[0] for stem in stems)
    return np.sum([np.broadcast_to(stem, (channels, *stem.shape[1:])) for stem in stems], axis=0, dtype=stems[0].dtype)
