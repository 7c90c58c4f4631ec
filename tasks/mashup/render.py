"""One mash-up: A's vocals, on B's beat and in B's key, over B's accompaniment."""

import hashlib
import itertools
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from storage.audio.writer import write
from storage.errors import StorageError
from storage.files.atomic import remove_leftovers
from storage.files.layout import OutputLayout
from storage.files.location import location
from storage.results.mashup_rows import MISFIT, MashupRow
from storage.results.metrics import FAILED, OK
from storage.results.separated import SeparatedTrack
from tasks.mashup import denoise, loudness, morph
from tasks.mashup.align import Alignment, align
from tasks.mashup.analysis import vocal_activity
from tasks.mashup.beats import BeatGrid, track_beats
from tasks.mashup.chroma import chromagram
from tasks.mashup.errors import Misfit
from tasks.mashup.keys import Key, fewest_semitones, find_key
from tasks.mashup.picture import draw_beats
from tasks.mashup.songs import read_accompaniment, read_song
from tasks.mashup.stretch import warp
from tasks.settings import MashupSettings

LOUDNESS_MODES = ("song", "frame")
_LEAST_ACTIVITY = 0.05
_LEAST_SECONDS = 4.0
_THREADS = 2  # there are two songs to listen to


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


@dataclass(frozen=True)
class _Song:
    """What was heard of a song that goes into a mash-up."""

    grid: BeatGrid
    key: Key


def _made(settings: MashupSettings, a: SeparatedTrack, b: SeparatedTrack, row: MashupRow) -> MashupRow:
    # Both songs at a time, and later files and picture: most of it is done by libraries that let go of Python's lock.
    with ThreadPoolExecutor(_THREADS, "mash") as pool:
        return _mashed(settings, a, b, row, pool)


def _mashed(
    settings: MashupSettings, a: SeparatedTrack, b: SeparatedTrack, row: MashupRow, pool: ThreadPoolExecutor
) -> MashupRow:
    reading, reading_b = pool.submit(read_song, a), pool.submit(read_accompaniment, b)
    (vocals, backing, a_rate), (accompaniment, rate) = reading.result(), reading_b.result()
    channels = max(len(vocals), len(accompaniment))
    vocals, backing = pool.map(lambda x: _alike(x, a_rate, rate, channels), (vocals, backing))
    accompaniment = _alike(accompaniment, rate, rate, channels)
    for name, audio in ((a.name, vocals), (b.name, accompaniment)):
        if audio.shape[1] < _LEAST_SECONDS * rate:
            raise Misfit(f"{name} is only {audio.shape[1] / rate:.1f} s long, too short for a beat")
    heard = pool.submit(_hear_singer, a, vocals, backing, rate), pool.submit(_hear_band, b, accompaniment, rate)
    singer, band = (song.result() for song in heard)
    row = replace(row, tempo_a=singer.grid.tempo, tempo_b=band.grid.tempo)
    semitones = fewest_semitones(singer.key, band.key) if settings.key else 0
    row = replace(
        row, key_a=str(singer.key), key_b=str(band.key), key_confidence_a=singer.key.confidence,
        key_confidence_b=band.key.confidence, semitones=semitones,
    )  # fmt: skip
    alignment = align(singer.grid, band.grid, _singing_beats(vocals, singer.grid, rate))
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
    start, stop = _common(alignment, vocals, accompaniment, rate)
    sung = denoise.gate(vocals, rate, settings.denoise) if settings.denoise else vocals
    voice = warp(sung, rate, alignment.time, start, stop, semitones)
    base = accompaniment[:, round(start * rate) : round(start * rate) + voice.shape[1]]
    voice = voice[:, : base.shape[1]]
    voice, base, row = _balanced(settings, voice, base, rate, row, pool)
    folder = OutputLayout(location(settings.out)).mashup(folder_name(a, b))
    remove_leftovers(folder, deep=False)  # of a process that was killed
    title = (
        f"{a.name} over {b.name}: {singer.grid.tempo:.1f} on {band.grid.tempo:.1f} beats per minute, "
        f"{semitones:+d} semitones"
    )
    beats = alignment.time(singer.grid.heard) - start, band.grid.heard - start
    written = [
        *_write(folder, voice, base, rate, pool),
        pool.submit(draw_beats, folder / "beats.png", rate, voice, base, *beats, title),
    ]
    if settings.bars:
        other_vocals = _alike(read_song(b)[0], rate, rate, channels)
        both = (vocals + backing, singer.grid, accompaniment + other_vocals, band.grid)
        for kind in morph.KINDS:
            made = morph.transition(*both, rate, settings.bars, kind)
            gain = loudness.limiting_gain(made.audio, rate)
            write(folder / f"{kind}.flac", made.audio * gain, rate, name="flac", depth="int16")
    for file in written:
        file.result()
    return replace(row, folder=str(folder.relative_to(settings.out)), duration_s=voice.shape[1] / rate)


def _hear_singer(song: SeparatedTrack, vocals: np.ndarray, backing: np.ndarray, rate: int) -> _Song:
    """The beat of a song and the key of what accompanies it. Raises Misfit where hardly anybody sings."""
    mixture = vocals + backing
    singing = vocal_activity(vocals, mixture, rate) if song.activity is None else song.activity
    if singing < _LEAST_ACTIVITY:
        raise Misfit(f"{song.name} has hardly any vocals (in {singing:.0%} of the song)")
    return _Song(track_beats(mixture, rate), find_key(chromagram(backing, rate)))


def _hear_band(song: SeparatedTrack, accompaniment: np.ndarray, rate: int) -> _Song:
    """The beat and the key of an accompaniment. Raises Misfit where there is none."""
    if not loudness.audible(accompaniment, rate):
        raise Misfit(f"{song.name} has no accompaniment")
    chroma = chromagram(accompaniment, rate)
    return _Song(track_beats(accompaniment, rate, chroma), find_key(chroma))


def _balanced(
    settings: MashupSettings, voice: np.ndarray, base: np.ndarray, rate: int, row: MashupRow, pool: ThreadPoolExecutor
) -> tuple[np.ndarray, np.ndarray, MashupRow]:
    """Vocals at their level, both under the limiter, and the row with the gains and levels that resulted."""
    before, level = pool.map(lambda audio: loudness.integrated(audio, rate), (voice, base))
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


def _write(folder: Path, voice: np.ndarray, base: np.ndarray, rate: int, pool: ThreadPoolExecutor) -> list[Future]:
    """Vocals and accompaniment on the 24-bit grid, and the mix, which is their sum to the bit."""
    # Exact in float32: scaling by a power of two, rounding, and the sum of two numbers of 24 bits.
    vocals, accompaniment = (np.rint(audio * np.float32(2**23)) * np.float32(2**-23) for audio in (voice, base))
    parts = {"vocals": vocals, "accompaniment": accompaniment, "mix": vocals + accompaniment}
    return [
        pool.submit(write, folder / f"{name}.flac", audio, rate, name="flac", depth="int24")
        for name, audio in parts.items()
    ]


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
