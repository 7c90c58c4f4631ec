"""One song's time mapped onto another's: which beat lies on which, and the map between them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.mashup.beats import BEATS_PER_BAR, BeatGrid
from tasks.mashup.errors import Misfit

SLOWEST, FASTEST = 0.72, 1.4  # playing speeds between which a voice is bearable
_LEAST_BEATS = 2 * BEATS_PER_BAR
_KNOT_TOLERANCE = 0.008  # s by which a simplified map may differ from the beats
_CLOSE = 0.05  # s, within which two beats sound together
_SAME_BEAT = 0.15  # s, beyond which two beats are different ones


@dataclass(frozen=True)
class TimeMap:
    """A piecewise linear map of seconds, extrapolated linearly beyond the ends; `back` is its inverse.

    Attributes:
        source: Knots in seconds, ascending, at least two.
        target: Where each knot goes, in seconds, ascending.
    """

    source: np.ndarray
    target: np.ndarray

    def __call__(self, seconds: np.ndarray | float) -> Any:
        return _interpolate(seconds, self.source, self.target)

    def back(self, seconds: np.ndarray | float) -> Any:
        """The inverse map: target time to source time.

        Args:
            seconds: Target time in seconds, one value or an array of any shape.

        Returns:
            Source time in seconds; a float for one value, else an array of the same shape.
        """
        return _interpolate(seconds, self.target, self.source)

    def speeds(self) -> np.ndarray:
        """Playing speed between neighbouring knots, (knots - 1,): seconds of source per second of target."""
        return np.diff(self.source) / np.diff(self.target)


@dataclass(frozen=True)
class Alignment:
    """How A lies on B.

    Attributes:
        time: From A's seconds to B's.
        factor: How many times as fast A's beats are counted: 1, 2 or ½.
        offset: A's beat i, so counted, lies on B's beat i + offset.
        distances: Seconds between beats as really played in either song, on the grid or off it: from every beat of
            the sparser song to the nearest of the other, where the other plays one within 150 ms.
        score: Between 0 and 1: the share of distances below 50 ms, less up to a quarter where the accents disagree.
    """

    time: TimeMap
    factor: float
    offset: int
    distances: np.ndarray
    score: float


def tempo_factor(a: float, b: float) -> float:
    """1, 2 or ½: how A's beats must be counted for its tempo to be nearest to B's.

    Args:
        a: A's tempo in beats per minute.
        b: B's tempo in beats per minute.
    """
    return min((1.0, 2.0, 0.5), key=lambda factor: abs(np.log2(a * factor / b)))


def align(a: BeatGrid, b: BeatGrid, active: np.ndarray) -> Alignment:
    """Lay A's beats on B's.

    Args:
        a: Beats of the song that gives the vocals.
        b: Beats of the song that gives the accompaniment.
        active: Whether A's vocals sing on each of `a.beats`, bool (beats,).

    Returns:
        The alignment whose bars, accents and sung beats fit best, its map with as few knots as keep it within 8 ms.

    Raises:
        Misfit: One song has no beat, the tempi are too far apart, or fewer than two bars would lie on each other.
    """
    for name, grid in (("vocals", a), ("accompaniment", b)):
        if len(grid.beats) < _LEAST_BEATS or not grid.certain:
            raise Misfit(f"no beat could be tracked in the song of the {name}")
    factor = tempo_factor(a.tempo, b.tempo)
    speed = b.tempo / (a.tempo * factor)
    if not SLOWEST <= speed <= FASTEST:
        raise Misfit(
            f"the tempi are too far apart: {a.tempo:.0f} and {b.tempo:.0f} beats per minute; the vocals would have to "
            f"play at {speed:.2f} times their speed ({SLOWEST} to {FASTEST} is allowed)"
        )
    counted = a.counted(factor)
    singing = np.interp(counted.beats, a.beats, active.astype(float)) > 0.5
    offset = _best_offset(counted, b, singing)
    pairs = [(i, i + offset) for i in range(len(counted.beats)) if 0 <= i + offset < len(b.beats)]
    if len(pairs) < _LEAST_BEATS:
        raise Misfit("the two songs have fewer than two bars in common; one of them is too short")
    a_beats, other = (np.array(side) for side in zip(*pairs, strict=True))
    time = _simplified(TimeMap(counted.beats[a_beats], b.beats[other]))
    distances = _distances(time(a.heard), b.heard)
    agreement = _agreement(counted.accents[a_beats], b.accents[other])
    return Alignment(time, factor, offset, distances, float(np.mean(distances < _CLOSE) * (0.875 + 0.125 * agreement)))


def _best_offset(a: BeatGrid, b: BeatGrid, singing: np.ndarray) -> int:
    """The offset that scores best of all those under which at least two bars overlap.

    What counts: that as much of the singing as possible has accompaniment below it, that the accents of both
    songs agree, and that bars begin together. Among equals the smallest shift wins.
    """
    voices = max(1, int(singing.sum()))
    place = (b.downbeat - a.downbeat) % BEATS_PER_BAR
    candidates = []
    for offset in range(-len(a.beats) + _LEAST_BEATS, len(b.beats) - _LEAST_BEATS + 1):
        first, last = max(0, -offset), min(len(a.beats), len(b.beats) - offset)
        if last - first < _LEAST_BEATS:
            continue
        kept = singing[first:last].sum() / voices
        agreement = _agreement(a.accents[first:last], b.accents[first + offset : last + offset])
        bars = 0.5 if offset % BEATS_PER_BAR == place else 0.0
        candidates.append((2.0 * kept + 0.5 * agreement + bars - 0.0005 * abs(offset), offset))
    if not candidates:
        raise Misfit("the two songs have fewer than two bars in common; one of them is too short")
    return max(candidates)[1]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """From every beat of the sparser song to the nearest of the other, where that has one on the same beat.

    Both were heard within 70 ms of the beats that were laid on each other, so anything farther is another beat.
    """
    if not len(a) or not len(b):
        return np.array([np.inf])
    first, last = max(a[0], b[0]), min(a[-1], b[-1])
    a, b = (x[(x >= first - 1e-6) & (x <= last + 1e-6)] for x in (a, b))
    sparse, dense = sorted((a, b), key=len)
    if not len(sparse):
        return np.array([np.inf])
    nearest = np.abs(sparse[:, None] - dense[None, :]).min(axis=1)
    together = nearest[nearest < _SAME_BEAT]
    return together if len(together) else np.array([np.inf])


def _agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two songs' accents, −1 … 1."""
    power = np.sqrt(np.square(a).sum() * np.square(b).sum())
    return float((a * b).sum() / power) if power else 0.0


def _simplified(time: TimeMap) -> TimeMap:
    """The same map with as few knots as keep it within 8 ms (Douglas & Peucker 1973): fewer seams in the voice."""
    keep = {0, len(time.source) - 1}
    waiting = [(0, len(time.source) - 1)]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        inside = np.arange(first + 1, last)
        line = np.interp(time.source[inside], time.source[[first, last]], time.target[[first, last]])
        error = np.abs(line - time.target[inside])
        worst = int(np.argmax(error))
        if error[worst] > _KNOT_TOLERANCE:
            middle = first + 1 + worst
            keep.add(middle)
            waiting += [(first, middle), (middle, last)]
    chosen = sorted(keep)
    return TimeMap(time.source[chosen], time.target[chosen])


def _interpolate(x: np.ndarray | float, xs: np.ndarray, ys: np.ndarray) -> np.ndarray | float:
    """np.interp, extrapolated linearly beyond the ends."""
    inside = np.interp(x, xs, ys)
    first = (ys[1] - ys[0]) / (xs[1] - xs[0])
    last = (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
    out = np.where(x < xs[0], ys[0] + (x - xs[0]) * first, np.where(x > xs[-1], ys[-1] + (x - xs[-1]) * last, inside))
    return float(out) if np.ndim(x) == 0 else out
