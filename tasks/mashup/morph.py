"""From one song into the next over some bars, on the beat."""

from dataclasses import dataclass

import numpy as np

from tasks.mashup.align import FASTEST, SLOWEST, TimeMap, tempo_factor
from tasks.mashup.beats import BEATS_PER_BAR, BeatGrid
from tasks.mashup.errors import Misfit
from tasks.mashup.stretch import warp

_WINDOW, _HOP = 4096, 1024
KINDS = ("morph", "crossfade")


@dataclass(frozen=True)
class Transition:
    """Two songs joined, and where the transition lies in the result.

    Attributes:
        audio: float32 (channels, samples), from A's beginning to B's end.
        begin: Where the transition begins, in seconds.
        end: Where it ends, in seconds.
        beats: Seconds of its beats, (4 × bars + 1,), `begin` and `end` among them.
    """

    audio: np.ndarray
    begin: float
    end: float
    beats: np.ndarray


def transition(
    a: np.ndarray, a_grid: BeatGrid, b: np.ndarray, b_grid: BeatGrid, rate: int, bars: int, kind: str = "morph"
) -> Transition:
    """A until its last `bars` bars, a transition over those and B's first, then the rest of B.

    The tempo glides from A's to B's, beat by beat, and both songs follow it. "crossfade" adds them at equal power;
    "morph" interpolates their magnitudes, bin by bin, at the phase of the sum: no dip where they agree, no doubling,
    and no beating where they differ.

    Args:
        a: The song that is left, (channels, samples).
        a_grid: Its beats.
        b: The song that is entered, with as many channels.
        b_grid: Its beats.
        rate: Sample rate of both, in Hz.
        bars: Length of the transition in bars of four beats, as B counts them.
        kind: "morph" or "crossfade".

    Returns:
        The joined audio, not limited, and where its transition lies.

    Raises:
        Misfit: A song is too short for so many bars, or the tempi are too far apart.
        ValueError: There is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"a transition is {' or '.join(KINDS)}, not {kind}")
    beats = bars * BEATS_PER_BAR
    for name, grid in (("first", a_grid), ("second", b_grid)):
        if len(grid.beats) < beats + 2 * BEATS_PER_BAR:
            raise Misfit(f"the {name} song has too few bars with a beat for a transition of {bars}; choose fewer")
    factor = tempo_factor(a_grid.tempo, b_grid.tempo)
    if not SLOWEST <= b_grid.tempo / (a_grid.tempo * factor) <= FASTEST:
        raise Misfit(
            f"the tempi are too far apart to glide: {a_grid.tempo:.0f} and {b_grid.tempo:.0f} beats per minute"
        )
    a_grid = a_grid.counted(factor)
    whole_bars = (len(a_grid.beats) - 1 - a_grid.downbeat - beats) // BEATS_PER_BAR
    leaving = a_grid.downbeat + max(0, whole_bars) * BEATS_PER_BAR
    entering = b_grid.downbeat
    a_beats = a_grid.beats[leaving : leaving + beats + 1]
    other = b_grid.beats[entering : entering + beats + 1]
    share = (np.arange(beats) + 0.5) / beats
    periods = np.diff(a_beats) * (1 - share) + np.diff(other) * share
    begin = float(a_beats[0])
    times = begin + np.concatenate([[0], np.cumsum(periods)])
    end = float(times[-1])
    a_map = TimeMap(np.concatenate([[begin - 1], a_beats]), np.concatenate([[begin - 1], times]))
    b_map = TimeMap(np.concatenate([other, [other[-1] + 1]]), np.concatenate([times, [end + 1]]))
    first, last = round(begin * rate), round(end * rate)
    leaving_a = warp(a, rate, a_map, begin, end)
    rest = end + b.shape[1] / rate - float(other[-1])
    coming_b = warp(b, rate, b_map, begin, rest)
    samples = min(leaving_a.shape[1], last - first, coming_b.shape[1])
    middle = _blend(leaving_a[:, :samples], coming_b[:, :samples], kind)
    audio = np.concatenate([a[:, :first], middle, coming_b[:, samples:]], axis=1)
    return Transition(_without_steps(audio, (first, first + samples), rate), begin, end, times)


def _blend(a: np.ndarray, b: np.ndarray, kind: str) -> np.ndarray:
    share = np.linspace(0, 1, a.shape[1])
    if kind == "crossfade" or a.shape[1] < _WINDOW:
        return (a * np.cos(share * np.pi / 2) + b * np.sin(share * np.pi / 2)).astype(np.float32)
    from scipy import signal as dsp  # not above: most mash-ups have no transition

    transform = dsp.ShortTimeFFT(dsp.windows.hann(_WINDOW, sym=False), _HOP, 1.0)
    a_spectrum, b_spectrum = transform.stft(a), transform.stft(b)
    along = np.clip(transform.t(a.shape[1]) / a.shape[1], 0, 1)
    summed = a_spectrum * (1 - along) + b_spectrum * along
    size = np.abs(a_spectrum) * (1 - along) + np.abs(b_spectrum) * along
    morphed = summed / np.maximum(np.abs(summed), 1e-9) * size
    return transform.istft(morphed, k1=a.shape[1]).astype(np.float32)


def _without_steps(audio: np.ndarray, seams: tuple[int, ...], rate: int) -> np.ndarray:
    """Spread a step at a seam over 5 ms on either side: a click is audible, so slow a change is not."""
    out = audio.copy()
    reach = round(0.005 * rate)
    for seam in seams:
        if reach < seam < out.shape[1] - reach:
            step = out[:, seam] - 2 * out[:, seam - 1] + out[:, seam - 2]
            ramp = np.linspace(0, 0.5, reach)
            out[:, seam - reach : seam] += step[:, None] * ramp
            out[:, seam : seam + reach] -= step[:, None] * ramp[::-1]
    return out
