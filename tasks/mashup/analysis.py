"""What a catalog's mash-ups are chosen by: tempo, key, singing and separation quality of a separated song."""

import time

import numpy as np
from scipy import signal as dsp

from model.scoring.meters import LoudnessMeter, activity
from storage.errors import StorageError
from storage.results.rows import AnalysisRow
from tasks.mashup.beats import track_beats
from tasks.mashup.chroma import chromagram
from tasks.mashup.keys import find_key
from tasks.mashup.songs import SeparatedSong, read_song


def analyse_songs(songs: list[SeparatedSong]) -> list[AnalysisRow]:
    """A row a song; a song whose stems cannot be read is a row that says so."""
    return [_analyse(song) for song in songs]


def _analyse(song: SeparatedSong) -> AnalysisRow:
    began = time.perf_counter()
    try:
        vocals, accompaniment, rate = read_song(song)
    except StorageError as error:
        return failed_analysis(song, str(error))
    mixture = vocals + accompaniment
    grid, key = track_beats(mixture, rate), find_key(chromagram(accompaniment, rate))
    return AnalysisRow(
        track_id=song.track_id,
        path=song.path,
        model_id=song.model_id,
        source_fingerprint=song.source_fingerprint,
        duration_s=mixture.shape[1] / rate,
        tempo=grid.tempo if grid.certain else 0.0,  # a song without a beat is nobody's partner
        clarity=grid.clarity,
        tonic=key.tonic,
        minor=key.minor,
        key_confidence=key.confidence,
        vocal_activity=vocal_activity(vocals, mixture, rate),
        predicted_sdr=predicted_sdr(vocals, accompaniment),
        seconds=time.perf_counter() - began,
    )


def failed_analysis(song: SeparatedSong, why: str) -> AnalysisRow:
    """The row of a song that could not be looked at."""
    return AnalysisRow(
        song.track_id, song.path, song.model_id, song.source_fingerprint, 0.0, 0.0, 0.0, 0, False, 0.0, 0.0, None, 0.0,
        error=why,
    )  # fmt: skip


def vocal_activity(vocals: np.ndarray, mixture: np.ndarray, rate: int) -> float:
    """Share of the song's 400 ms blocks in which the vocals are within 20 LU of the mixture's loudness."""
    return activity(LoudnessMeter.of(vocals, rate).blocks(), LoudnessMeter.of(mixture, rate).integrated()) or 0.0


def predicted_sdr(vocals: np.ndarray, accompaniment: np.ndarray) -> float | None:
    """What SDR the vocals probably have, in dB, from the stems alone; None for silent vocals.

    A mask m that is the chance of a bin being vocal errs by m(1 − m)|X|² where the two overlap. The stems'
    magnitudes give m back, so the prediction is 10 log₁₀ Σ m²|X|² / Σ m(1 − m)|X|²: high where the network was
    sure, low where it shared bins out.
    """
    own, other = (np.abs(dsp.stft(x.mean(axis=0), nperseg=4096, noverlap=2048)[2]) for x in (vocals, accompaniment))
    total = own + other
    if not (own > 1e-6).any():
        return None
    mask = own / np.maximum(total, 1e-9)
    sure = float(np.sum(np.square(mask * total)))
    shared = float(np.sum(mask * (1 - mask) * np.square(total)))
    return float(10 * np.log10(sure / max(shared, 1e-12)))
