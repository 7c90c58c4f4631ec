"""Tempo, beats and downbeats of a song."""

from dataclasses import dataclass, replace

import numpy as np
import soxr

from tasks.mashup.chroma import Chromagram, chromagram
from tasks.mashup.onsets import ANALYSIS_RATE, HOP, onset_envelopes
from tasks.mashup.pulse import beat_frames, tempo

BEATS_PER_BAR = 4
_STEADY_WITHIN = 0.04  # s; beats this close to a straight line are a drum machine's, or a click track's
_STEADY_SHARE = 0.85
_LEAST_CLARITY = 0.25
_LEAST_DEVIATIONS = 6.0  # white noise reaches 4
_NEAR = 0.07  # s
_PEAKS = 6
_LEAST_ONSETS = 0.1  # dB; music varies by some decibels from frame to frame, a held tone by hundredths


@dataclass(frozen=True)
class BeatGrid:
    """The beats of a song, evenly counted (none is left out), and what is known of them.

    Attributes:
        beats: Seconds, (beats,).
        heard: Seconds of the onsets within 70 ms of a beat: where it was really played; one per beat at most.
        tempo: Beats per minute, the median.
        downbeat: Index, 0…3, of the first beat that begins a bar of four.
        accents: (beats, 3), standardised: onset strength, its low band, change of harmony.
        clarity: How far onsets gather on the beats: about 0 for noise, above 1 for most music with drums.
    """

    beats: np.ndarray
    heard: np.ndarray
    tempo: float
    downbeat: int
    accents: np.ndarray
    clarity: float

    @property
    def certain(self) -> bool:
        """Whether there is a beat: some grid fits noise best too, but not by so much more than chance."""
        return self.clarity > _LEAST_CLARITY and self.clarity * np.sqrt(len(self.beats)) > _LEAST_DEVIATIONS

    def counted(self, factor: float) -> "BeatGrid":
        """The grid counted 1, 2 or ½ times as fast.

        Args:
            factor: 1, 2 or ½.

        Raises:
            KeyError: The factor is another number.
        """
        return {1.0: lambda: self, 2.0: self.doubled, 0.5: self.halved}[factor]()

    def doubled(self) -> "BeatGrid":
        """The grid with a beat between every two: the same music counted twice as fast."""
        between = (self.beats[:-1] + self.beats[1:]) / 2
        beats = np.sort(np.concatenate([self.beats, between]))
        accents = np.zeros((len(beats), self.accents.shape[1]))
        accents[::2] = self.accents
        return replace(self, beats=beats, tempo=2 * self.tempo, downbeat=2 * self.downbeat, accents=accents)

    def halved(self) -> "BeatGrid":
        """The grid with every other beat, the downbeats among them."""
        first = self.downbeat % 2
        return replace(
            self,
            beats=self.beats[first::2],
            tempo=self.tempo / 2,
            downbeat=self.downbeat // 2,
            accents=self.accents[first::2],
        )


def track_beats(audio: np.ndarray, rate: int, chroma: Chromagram | None = None) -> BeatGrid:
    """The beats of a mixture.

    Dynamic programming (Ellis, "Beat tracking by dynamic programming", 2007) finds them. Where they
    lie on a straight line within 40 ms the line is taken, its tempo and phase refined on the onset envelope:
    each beat is then as exact as all of them together. Where they do not, a line is sought in the spectrum of
    the song's entire onset envelope, which shows a steady pulse that the dynamic programming loses; if onsets
    gather on no line as well as on the tracked beats, those are taken, each smoothed by its neighbours.

    Args:
        audio: (channels, samples).
        rate: Sample rate in Hz.
        chroma: The audio's chromagram where it is known already; computed where None.

    Returns:
        The grid; without beats, tempo and clarity 0, for less than a second, silence, a held tone or too few onsets.
    """
    mono = soxr.resample(audio.mean(axis=0, dtype=np.float32), rate, ANALYSIS_RATE, "HQ")
    if len(mono) < ANALYSIS_RATE or not np.abs(mono).max() > 1e-4:
        return _no_beats()
    onsets, low = onset_envelopes(mono)
    if onsets.std() < _LEAST_ONSETS:
        return _no_beats()
    frames = beat_frames(onsets, tempo(onsets))
    if len(frames) < 2 * BEATS_PER_BAR:
        return _no_beats()
    seconds = len(mono) / ANALYSIS_RATE
    beats = _regular(frames * HOP / ANALYSIS_RATE, onsets, seconds)
    harmony = _harmony(chroma or chromagram(mono[None], ANALYSIS_RATE), beats)
    accents = np.stack([_at(onsets, beats), _at(low, beats), harmony], axis=1)
    deviation = accents.std(axis=0)
    accents = np.clip((accents - accents.mean(axis=0)) / np.where(deviation > 0, deviation, 1), -3, 3)
    return BeatGrid(
        beats=beats,
        heard=_onsets_near(onsets, beats),
        tempo=60.0 / float(np.median(np.diff(beats))),
        downbeat=_first_downbeat(accents),
        accents=accents,
        clarity=_clarity(onsets, beats),
    )


def _no_beats() -> BeatGrid:
    none = np.zeros(0)
    return BeatGrid(none, none, 0.0, 0, np.zeros((0, 3)), 0.0)


def _regular(tracked: np.ndarray, onsets: np.ndarray, seconds: float) -> np.ndarray:
    """Beats on a line through all of them where there is one, else smoothed."""
    period = float(np.median(np.diff(tracked)))
    index = np.concatenate([[0], np.cumsum(np.maximum(1, np.round(np.diff(tracked) / period)))])
    inside = np.ones(len(tracked), bool)
    for _ in range(6):
        slope, start = np.polyfit(index[inside], tracked[inside], 1)
        distance = np.abs(tracked - (start + slope * index))
        narrower = distance < max(_STEADY_WITHIN, 1.5 * float(np.median(distance)))
        if narrower.sum() < 4 or np.array_equal(narrower, inside):
            break
        inside = narrower
    if np.mean(distance < _STEADY_WITHIN) >= _STEADY_SHARE:
        start, slope = _refined(start, slope, onsets, seconds)
        first = int(np.ceil(-start / slope))
        last = int(np.floor((seconds - start) / slope))
        return start + slope * np.arange(first, last + 1)
    # A missed beat is filled in, then each is moved to the line through its eight neighbours.
    counts = np.arange(int(index[-1]) + 1)
    beats = np.interp(counts, index, tracked)
    smoothed = [
        np.polyval(np.polyfit(counts[low:high], beats[low:high], 1), k)
        for k in counts
        for low, high in [(max(0, k - 4), min(len(counts), k + 5))]
    ]
    line = _line_in_spectrum(onsets, seconds)
    if line is not None and _clarity(onsets, line) > 0.9 * _clarity(onsets, np.array(smoothed)):
        return line
    return np.array(smoothed)


def _line_in_spectrum(onsets: np.ndarray, seconds: float) -> np.ndarray | None:
    """Evenly spaced beats at the strongest pulse of the entire song, between 60 and 190 beats per minute."""
    fluctuation = (onsets - onsets.mean()) * np.hanning(len(onsets))
    points = 1 << int(np.ceil(np.log2(8 * len(onsets))))
    size = np.abs(np.fft.rfft(fluctuation, points))
    hertz = np.fft.rfftfreq(points, HOP / ANALYSIS_RATE)
    peaks: list[float] = []
    for index in np.argsort(np.where((hertz > 0.8) & (hertz < 9), size, 0))[::-1][:4000]:
        if all(abs(hertz[index] - peak) > 0.05 for peak in peaks):
            peaks.append(float(hertz[index]))
        if len(peaks) == _PEAKS:
            break
    best: tuple[float, np.ndarray] | None = None
    for peak in peaks:
        for divisor in (1, 2, 3, 4):  # the strongest pulse may be of eighths, triplets or sixteenths
            beat = peak / divisor
            if not 1.0 <= beat <= 190 / 60:
                continue
            starts = np.linspace(0, 1 / beat, 48, endpoint=False)
            counts = np.arange(int(seconds * beat))
            start = starts[_at(onsets, starts[:, None] + counts / beat).mean(axis=1).argmax()]
            start, slope = _refined(start, 1 / beat, onsets, seconds)
            beats = np.arange(start % slope, seconds, slope)
            # People tap near two beats per second (van Noorden & Moelants 1999).
            liked = np.exp(-0.5 * (np.log2(60 / slope / 120) / 0.9) ** 2)
            value = _clarity(onsets, beats) * liked
            if best is None or value > best[0]:
                best = value, beats
    return best[1] if best else None


def _clarity(onsets: np.ndarray, beats: np.ndarray) -> float:
    return float((_at(onsets, beats).mean() - onsets.mean()) / (onsets.std() + 1e-9))


def _onsets_near(onsets: np.ndarray, beats: np.ndarray) -> np.ndarray:
    """The onset peak nearest to each beat, where one lies within 70 ms, in seconds; beats may have none."""
    inner = onsets[1:-1]
    peaks = 1 + np.flatnonzero(
        (inner > onsets[:-2]) & (inner >= onsets[2:]) & (inner > onsets.mean() + onsets.std() / 2)
    )
    if not len(peaks):
        return beats
    # The peak of the parabola through a peak and its neighbours is finer than a hop.
    left, middle, right = onsets[peaks - 1], onsets[peaks], onsets[peaks + 1]
    times = (peaks + 0.5 * (left - right) / (left - 2 * middle + right)) * HOP / ANALYSIS_RATE
    nearest = times[np.abs(beats[:, None] - times[None, :]).argmin(axis=1)]
    return np.unique(nearest[np.abs(nearest - beats) < _NEAR])


def _refined(start: float, slope: float, onsets: np.ndarray, seconds: float) -> tuple[float, float]:
    """Phase and period at which the onset envelope, read on the line, is highest; tempo within half a percent."""
    middle = seconds / 2
    beats = round((middle - start) / slope)
    pivot = start + slope * beats  # turning about the middle keeps tempo and phase apart
    last = int((seconds - pivot) / slope)
    counts = np.arange(-beats, last + 1)
    for reach, steps in ((0.005, 41), (0.0005, 21)):
        periods = slope * (1 + np.linspace(-reach, reach, steps))
        shifts = np.linspace(-0.06, 0.06, 41) * (reach / 0.005)
        # One row per shift; a period at a time, so that the grid of places stays in the processor's cache.
        heights = np.stack([
            _at(onsets, (pivot + shifts)[:, None] + period * counts).mean(axis=1) for period in periods
        ])  # fmt: skip
        best_period, best_shift = np.unravel_index(heights.argmax(), heights.shape)
        slope, pivot = periods[best_period], pivot + shifts[best_shift]
    return pivot - slope * beats, slope


def _at(envelope: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The envelope at `times` in seconds, of any shape, by linear interpolation; constant beyond its ends."""
    places = np.clip(times * (ANALYSIS_RATE / HOP), 0, len(envelope) - 1)
    below = np.minimum(places.astype(np.intp), len(envelope) - 2)
    share = places - below
    return envelope[below] * (1 - share) + envelope[below + 1] * share


def _harmony(chroma: Chromagram, beats: np.ndarray) -> np.ndarray:
    """How far the pitch classes of each beat are from those of the beat before, (beats,)."""
    energy = chroma.energy / np.maximum(chroma.energy.max(axis=0, initial=0), 1e-9)
    frames = np.clip((beats / chroma.seconds).astype(int), 0, energy.shape[1] - 1)
    ends = np.append(frames[1:], energy.shape[1])
    means = np.stack([
        energy[:, a : max(a + 1, b)].mean(axis=1) for a, b in zip(frames, ends, strict=True)
    ])  # fmt: skip
    means /= np.linalg.norm(means, axis=1, keepdims=True) + 1e-9
    change = 1 - np.sum(means[1:] * means[:-1], axis=1)
    return np.concatenate([[change.mean() if len(change) else 0.0], change])


def _first_downbeat(accents: np.ndarray) -> int:
    """The place in the bar, 0…3, whose beats change harmony and carry bass most."""
    weight = accents @ np.array([0.3, 0.5, 1.0])
    return int(np.argmax([weight[place::BEATS_PER_BAR].mean() for place in range(BEATS_PER_BAR)]))
