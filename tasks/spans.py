"""Spans of stems from the store, read once and cut into many patches.

A block of examples shares a pool of spans: 5 to 10 times as fast as a read for every patch, and still
another pairing of voices and backings each time.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage.errors import StoreError
from storage.store import Store, StoredTrack

_ATTEMPTS_AT_A_VOICE = 4
_AUDIBLE = 1e-3


@dataclass(frozen=True)
class Span:
    """A stretch of a stem as waveform (channels, samples) or spectra (channels, frames, bins).

    `partner` is the other half of the same track over the same stretch, where it has one.
    """

    signal: np.ndarray
    bandwidth: float
    partner: np.ndarray | None = None


class SpanPool:
    """`size` vocal and `size` backing spans for every block of examples, a function of (seed, block).

    `spectra` reads the store's spectrograms instead of its waveforms; `length` counts frames then.
    Raises StoreError when the tracks have no vocals or no backing.
    """

    def __init__(
        self, store_path: str, tracks: list[StoredTrack], seed: int, *, size: int, length: int, spectra: bool = False
    ) -> None:
        self.store = Store.open(Path(store_path))
        self._rate = self.store.format.sample_rate
        self._seed, self._size, self._length, self._spectra = seed, size, length, spectra
        self._voices = _Weighted([t for t in tracks if "vocals" in t.stems], self._rate)
        self._backings = _Weighted([t for t in tracks if backing_stems(t)], self._rate)
        if not self._voices.tracks or not self._backings.tracks:
            raise StoreError(f"{store_path} needs vocals and backings to train on; ingest both")
        self._block = -1
        self._spans: tuple[list[Span], list[Span]] = ([], [])

    def block(self, number: int) -> tuple[list[Span], list[Span]]:
        """The voices and backings of a block."""
        if number != self._block:
            random = np.random.default_rng([self._seed, 0, number])
            voices = [self._voice(self._voices.draw(random), random) for _ in range(self._size)]
            backings = [self._backing(self._backings.draw(random), random) for _ in range(self._size)]
            self._block, self._spans = number, (voices, backings)
        return self._spans

    def _voice(self, track: StoredTrack, random: np.random.Generator) -> Span:
        """A stretch in which the voice sings; a song's vocal stem is silent for much of its time."""
        for _ in range(_ATTEMPTS_AT_A_VOICE):
            start, stop = self._stretch(track, random)
            signal = self._read(track, "vocals", start, stop)
            if np.abs(signal).mean() > _AUDIBLE:
                break
        partner = self._read_backing(track, start, stop) if backing_stems(track) else None
        return Span(signal, track.bandwidth_hz["vocals"], partner)

    def _backing(self, track: StoredTrack, random: np.random.Generator) -> Span:
        bandwidth = max(track.bandwidth_hz[stem] for stem in backing_stems(track))
        return Span(self._read_backing(track, *self._stretch(track, random)), bandwidth)

    def _stretch(self, track: StoredTrack, random: np.random.Generator) -> tuple[int, int]:
        whole = self.store.frames(track) if self._spectra else track.samples
        length = min(whole, self._length)
        start = int(random.integers(whole - length + 1))
        return start, start + length

    def _read(self, track: StoredTrack, stem: str, start: int, stop: int) -> np.ndarray:
        read = self.store.spectrogram if self._spectra else self.store.waveform
        return read(track, stem, start, stop)

    def _read_backing(self, track: StoredTrack, start: int, stop: int) -> np.ndarray:
        return _sum([self._read(track, stem, start, stop) for stem in backing_stems(track)])


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
    return _sum([store.waveform(track, stem, start, stop) for stem in backing_stems(track)])


def _sum(stems: list[np.ndarray]) -> np.ndarray:
    """The sum of stems of one length, some mono and some stereo."""
    channels = max(stem.shape[0] for stem in stems)
    return np.sum([np.broadcast_to(stem, (channels, *stem.shape[1:])) for stem in stems], axis=0, dtype=stems[0].dtype)
