"""Time-stretching along a map, and transposing: each straight piece by Signalsmith Stretch, joined in pauses."""

import itertools

import numpy as np
import python_stretch

from tasks.mashup.align import TimeMap
from tasks.mashup.pitch import with_formants_of

_MARGIN = 0.25  # s of context either side of a piece
_FADE = 0.03  # s
_SEARCH = 0.006  # s by which a piece may be moved so that its wave meets the one before
_PAUSE_WITHIN = 0.3  # s by which a knot may be moved to where it is quiet


def warp(audio: np.ndarray, rate: int, time: TimeMap, start: float, stop: float, semitones: float = 0.0) -> np.ndarray:
    """The audio as it sounds from `start` to `stop` in the map's target time.

    Where the map has a knot, the cut is moved to the quietest place near it. Transposed audio keeps its formants, and
    the level that the stretch had.

    Args:
        audio: (channels, samples), in the map's source time.
        rate: Sample rate in Hz.
        time: From the audio's time to the result's.
        start: Target time at which the result begins, in seconds.
        stop: Target time at which it ends, in seconds.
        semitones: By how much it is transposed upwards.

    Returns:
        float32 (channels, (stop − start) × rate).
    """
    knots = [start, *_cuts(audio, rate, time, start, stop), stop]
    fade, search = round(_FADE * rate), round(_SEARCH * rate)
    total = round((stop - start) * rate)
    out = np.zeros((audio.shape[0], total), np.float32)
    for first, last in itertools.pairwise(knots):
        begin, end = round((first - start) * rate), round((last - start) * rate)
        if end <= begin:
            continue
        room = search + fade
        at, samples = start + (begin - room) / rate, end - begin + 2 * room
        piece = _piece(audio, rate, time, at, samples, last - first, semitones)
        shift = 0
        if begin:
            shift = _meeting(out[:, begin - fade : begin], piece, room - fade, search)
        begin_fade = max(0, begin - fade)
        taken = piece[:, room - (begin - begin_fade) + shift : room + shift + end - begin]
        ramp = np.sin(np.linspace(0, np.pi / 2, begin - begin_fade, dtype=np.float32)) ** 2
        # Only the fade meets what is there already; beyond it there is nothing to add to.
        faded = begin - begin_fade
        out[:, begin_fade:begin] *= 1 - ramp
        out[:, begin_fade:begin] += taken[:, :faded] * ramp
        out[:, begin:end] = taken[:, faded:]
    return _as_loud_as(audio, out, rate, time, start, stop) if semitones else out


def _as_loud_as(audio: np.ndarray, out: np.ndarray, rate: int, time: TimeMap, start: float, stop: float) -> np.ndarray:
    """`out` at the level of the stretch of audio that it was made of."""
    first, last = (int(np.clip(time.back(at) * rate, 0, audio.shape[1])) for at in (start, stop))
    before, after = (np.square(x).mean() if x.size else 0.0 for x in (audio[:, first:last], out))
    return out * np.float32(np.sqrt(before / after)) if after > 1e-18 else out


def _piece(
    audio: np.ndarray, rate: int, time: TimeMap, at: float, samples: int, length: float, semitones: float
) -> np.ndarray:
    """`samples` of stretched audio whose first lies at `at` seconds of target time, at one speed throughout."""
    middle = at + samples / rate / 2
    half = max(length / 2, 1e-3)
    speed = float((time.back(middle + half) - time.back(middle - half)) / (2 * half))
    source = float(time.back(middle)) - (middle - at) * speed
    first = round((source - _MARGIN * speed) * rate)
    last = round((source + (samples / rate + _MARGIN) * speed) * rate)
    inside = audio[:, max(0, first) : max(0, last)]
    given = np.pad(inside, ((0, 0), (max(0, -first), 0)))
    given = np.pad(given, ((0, 0), (0, max(0, last - first - given.shape[1]))))
    stretched = stretch(given, rate, speed, semitones)
    begin = round((source * rate - first) / speed)
    piece = stretched[:, begin : begin + samples]
    return np.pad(piece, ((0, 0), (0, samples - piece.shape[1])))


def stretch(
    audio: np.ndarray, rate: int, speed: float, semitones: float = 0.0, *, keep_formants: bool = True
) -> np.ndarray:
    """The audio played `speed` times as fast, and transposed, in one pass of Signalsmith Stretch.

    Args:
        audio: (channels, samples).
        rate: Sample rate in Hz.
        speed: Above 1 for faster; the pitch does not follow.
        semitones: Upwards; negative for downwards.
        keep_formants: Whether to put back the formants, which transposing moves with everything else.

    Returns:
        float32 (channels, about samples / speed).
    """
    audio = np.ascontiguousarray(audio, np.float32)
    if abs(speed - 1) < 1e-4 and not semitones:
        return audio
    processor = python_stretch.Signalsmith.Stretch()
    processor.preset(audio.shape[0], rate)
    processor.setTimeFactor(speed)
    if semitones:
        processor.setTransposeSemitones(float(semitones))
    out = np.asarray(processor.process(audio))
    return with_formants_of(audio, out, rate, semitones, speed) if semitones and keep_formants else out


def _cuts(audio: np.ndarray, rate: int, time: TimeMap, start: float, stop: float) -> list[float]:
    """The map's inner knots in target seconds, each at the quietest 20 ms near it."""
    size = max(1, round(0.02 * rate))
    steps = audio.shape[1] // size
    power = np.square(audio[:, : steps * size].reshape(audio.shape[0], steps, size)).mean(axis=(0, 2))
    cuts: list[float] = []
    for knot in time.source[1:-1]:
        first, last = (int(np.clip((knot + side) * rate / size, 0, steps)) for side in (-_PAUSE_WITHIN, _PAUSE_WITHIN))
        if last > first:
            knot = (first + int(np.argmin(power[first:last])) + 0.5) * size / rate
        target = float(time(knot))
        if (cuts[-1] if cuts else start) + 0.2 < target < stop - 0.2:
            cuts.append(target)
    return cuts


def _meeting(before: np.ndarray, piece: np.ndarray, at: int, search: int) -> int:
    """By how many samples the piece must be moved for its wave to fit the end of what came before.

    As in WSOLA (Verhelst & Roelands, ICASSP 1993).
    """
    reference = before.mean(axis=0)
    window = piece.mean(axis=0)[at - search : at + search + len(reference)]
    if not reference.any() or len(window) < len(reference) + 1:
        return 0
    products = np.correlate(window, reference, mode="valid")
    energies = np.convolve(np.square(window), np.ones(len(reference)), mode="valid")
    return int(np.argmax(products / np.sqrt(energies + 1e-9))) - search
