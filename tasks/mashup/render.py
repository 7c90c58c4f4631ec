"""One mash-up: A's vocals, on B's beat and in B's key, over B's accompaniment."""

import hashlib
import itertools
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from storage.audio.writer import write
from storage.errors import StorageError
from storage.files.layout import OutputLayout
from storage.files.location import location
from storage.results.mashup_rows import MashupRow
from storage.results.metrics import FAILED, OK
from storage.results.separated import SeparatedTrack
from tasks.mashup import denoise, loudness, morph, pitch
from tasks.mashup.align import Alignment, align
from tasks.mashup.analysis import vocal_activity
from tasks.mashup.beats import BeatGrid, track_beats
from tasks.mashup.chroma import chromagram
from tasks.mashup.errors import Misfit
from tasks.mashup.keys import fewest_semitones, find_key
from tasks.mashup.picture import draw_beats
from tasks.mashup.songs import read_song
from tasks.mashup.stretch import warp
from tasks.settings import MashupSettings

MISFIT = "misfit"
LOUDNESS_MODES = ("song", "frame")
_LEAST_ACTIVITY = 0.05
_LEAST_SECONDS = 4.0


def mash_pairs(settings: MashupSettings, pairs: list[tuple[SeparatedTrack, SeparatedTrack]]) -> list[MashupRow]:
    """Make a mash-up of every pair.

    Args:
        settings: How mash-ups are made.
        pairs: (song of the vocals, song of the accompaniment) each.

    Returns:
        One row per pair, in their order; one that does not fit, or cannot be read, is a row that says so.
    """
    return [mash(settings, a, b) for a, b in pairs]


def mash(settings: MashupSettings, a: SeparatedTrack, b: SeparatedTrack) -> MashupRow:
    """Make one mash-up under OUT/mixes and return its row.

    Args:
        settings: How it is made, and OUT.
        a: The song of the vocals.
        b: The song of the accompaniment.

    Returns:
        The row: ok, misfit where the songs do not go together, or failed where one cannot be read or the result cannot
        be written; its `error` says why.
    """
    began = time.perf_counter()
    row = MashupRow(a.path, b.path, OK, model_id=a.model_id)
    try:
        row = _made(settings, a, b, row)
    except Misfit as error:
        row = replace(row, status=MISFIT, error=str(error))
    except StorageError as error:
        row = replace(row, status=FAILED, error=str(error))
    return replace(row, seconds=time.perf_counter() - began)


def lost_mashup(a: SeparatedTrack, b: SeparatedTrack, why: str) -> MashupRow:
    """The row of a pair whose worker died while making it.

    Args:
        a: The song of the vocals.
        b: The song of the accompaniment.
        why: The row's `error`, one sentence.
    """
    return MashupRow(a.path, b.path, FAILED, error=why, model_id=a.model_id)


def folder_name(a: SeparatedTrack, b: SeparatedTrack) -> str:
    """The name of a mash-up's folder: readable, and different for every pair of tracks.

    Args:
        a: The song of the vocals.
        b: The song of the accompaniment.
    """
    digest = hashlib.sha256(f"{a.track_id}\0{b.track_id}".encode()).hexdigest()[:8]
    return f"{a.name[:80]} over {b.name[:80]} {digest}"


def _made(settings: MashupSettings, a: SeparatedTrack, b: SeparatedTrack, row: MashupRow) -> MashupRow:
    vocals, backing, a_rate = read_song(a)
    other_vocals, accompaniment, rate = read_song(b)
    channels = max(len(vocals), len(accompaniment))
    vocals, backing = (_alike(x, a_rate, rate, channels) for x in (vocals, backing))
    other_vocals, accompaniment = (_alike(x, rate, rate, channels) for x in (other_vocals, accompaniment))
    for name, audio in ((a.name, vocals), (b.name, accompaniment)):
        if audio.shape[1] < _LEAST_SECONDS * rate:
            raise Misfit(f"{name} is only {audio.shape[1] / rate:.1f} s long, too short for a beat")
    singing = vocal_activity(vocals, vocals + backing, rate)
    if singing < _LEAST_ACTIVITY:
        raise Misfit(f"{a.name} has hardly any vocals (in {singing:.0%} of the song)")
    if loudness.integrated(accompaniment, rate) is None:
        raise Misfit(f"{b.name} has no accompaniment")
    chroma = chromagram(accompaniment, rate)
    a_grid = track_beats(vocals + backing, rate)
    b_grid = track_beats(accompaniment, rate, chroma)
    row = replace(row, tempo_a=a_grid.tempo, tempo_b=b_grid.tempo)
    key_a, key_b = find_key(chromagram(backing, rate)), find_key(chroma)
    semitones = fewest_semitones(key_a, key_b) if settings.key else 0
    row = replace(
        row, key_a=str(key_a), key_b=str(key_b), key_confidence_a=key_a.confidence, key_confidence_b=key_b.confidence,
        semitones=semitones,
    )  # fmt: skip
    alignment = align(a_grid, b_grid, _singing_beats(vocals, a_grid, rate))
    speeds = alignment.time.speeds()
    row = replace(
        row,
        tempo_factor=alignment.factor,
        stretch_median=float(np.median(speeds)),
        stretch_min=float(speeds.min()),
        stretch_max=float(speeds.max()),
        offset_beats=alignment.offset,
        beat_distance_median=_finite(np.median(alignment.distances)),
        beat_distance_p95=_finite(np.percentile(alignment.distances, 95)),
        alignment_score=alignment.score,
    )
    if settings.denoise:
        vocals = denoise.gate(vocals, rate, settings.denoise)
    vocals = pitch.shift(vocals, rate, semitones)
    start, stop = _common(alignment, vocals, accompaniment, rate)
    voice = warp(vocals, rate, alignment.time, start, stop)
    base = accompaniment[:, round(start * rate) : round(start * rate) + voice.shape[1]]
    voice = voice[:, : base.shape[1]]
    voice, base, row = _balanced(settings, voice, base, rate, row)
    folder = OutputLayout(location(settings.out)).mashup(folder_name(a, b))
    _write(folder, voice, base, rate)
    title = (
        f"{a.name} over {b.name}: {a_grid.tempo:.1f} on {b_grid.tempo:.1f} beats per minute, {semitones:+d} semitones"
    )
    heard = alignment.time(a_grid.heard) - start
    draw_beats(folder / "beats.png", rate, voice, base, heard, b_grid.heard - start, title)
    if settings.bars:
        songs = (vocals + backing, a_grid, accompaniment + other_vocals, b_grid)
        for kind in morph.KINDS:
            made = morph.transition(*songs, rate, settings.bars, kind)
            gain = loudness.limiting_gain(made.audio, rate)
            write(folder / f"{kind}.flac", made.audio * gain, rate, name="flac", depth="int16")
    return replace(row, folder=str(folder.relative_to(settings.out)), duration_s=voice.shape[1] / rate)


def _balanced(
    settings: MashupSettings, voice: np.ndarray, base: np.ndarray, rate: int, row: MashupRow
) -> tuple[np.ndarray, np.ndarray, MashupRow]:
    """Vocals at their level, both under the limiter, and the row with the gains and levels that resulted."""
    before, level = loudness.integrated(voice, rate), loudness.integrated(base, rate)
    gain = loudness.level_gain(before, level, settings.balance)
    if settings.loudness == "frame":
        voice = voice * loudness.frame_gains(voice, base, rate, settings.balance)
        after = loudness.integrated(voice, rate)
    else:
        voice = voice * np.float32(10 ** (gain / 20))
        after = None if before is None else before + gain
    row = replace(row, vocal_gain_db=gain, loudness_vocals=after, loudness_accompaniment=level)
    limit = loudness.limiting_gain(voice + base, rate)
    voice, base = voice * limit, base * limit
    peak = loudness.true_peak(voice + base)
    return voice, base, replace(row, true_peak_db=peak)


def _write(folder: Path, voice: np.ndarray, base: np.ndarray, rate: int) -> None:
    """Vocals and accompaniment on the 24-bit grid, and the mix, which is their sum to the bit."""
    parts = {"vocals": voice, "accompaniment": base}
    parts = {name: np.round(audio.astype(np.float64) * 2**23) / 2**23 for name, audio in parts.items()}
    for name, audio in {**parts, "mix": parts["vocals"] + parts["accompaniment"]}.items():
        write(folder / f"{name}.flac", audio, rate, name="flac", depth="int24")


def _common(alignment: Alignment, vocals: np.ndarray, accompaniment: np.ndarray, rate: int) -> tuple[float, float]:
    """Begin and end, in B's seconds, of the stretch over which both songs play."""
    ends = alignment.time(np.array([0.0, vocals.shape[1] / rate]))
    start, stop = max(0.0, float(ends[0])), min(accompaniment.shape[1] / rate, float(ends[1]))
    start = math.ceil(start * rate) / rate
    if stop - start < _LEAST_SECONDS:
        raise Misfit("with their beats aligned, the two songs overlap for less than four seconds")
    return start, stop


def _singing_beats(vocals: np.ndarray, grid: BeatGrid, rate: int) -> np.ndarray:
    """For each beat, whether the vocals from it to the next are within 25 dB of their loudest beat; bool (beats,)."""
    if not len(grid.beats):
        return np.zeros(0, bool)
    edges = np.append(grid.beats, grid.beats[-1:] + 60 / max(grid.tempo, 1))
    at = np.clip(edges * rate, 0, vocals.shape[1]).astype(int)
    power = np.array([np.square(vocals[:, i:j]).mean() if j > i else 0.0 for i, j in itertools.pairwise(at)])
    return power > power.max(initial=0) * 10 ** (-25 / 10)


def _alike(audio: np.ndarray, rate: int, target_rate: int, channels: int) -> np.ndarray:
    """The audio at a rate and number of channels; if it has another number, every channel becomes their mean."""
    if rate != target_rate:
        import soxr

        audio = np.ascontiguousarray(soxr.resample(audio.T, rate, target_rate, "HQ").T, np.float32)
    if audio.shape[0] == channels:
        return audio
    return np.repeat(audio.mean(axis=0, keepdims=True, dtype=np.float32), channels, axis=0)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
