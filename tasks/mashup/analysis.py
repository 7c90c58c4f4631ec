"""What a catalog's mash-ups are chosen by: tempo, key, share of singing and separation quality of each song."""

import time

import numpy as np

from model.scoring.meters import LoudnessMeter, activity
from storage.errors import StorageError
from storage.results.mashup_rows import AnalysisRow
from storage.results.separated import SeparatedTrack
from tasks.mashup.beats import track_beats
from tasks.mashup.chroma import chromagram
from tasks.mashup.keys import find_key
from tasks.mashup.songs import read_song


def analyse_songs(songs: list[SeparatedTrack]) -> list[AnalysisRow]:
    """Measure tempo, key and singing of songs.

    Args:
        songs: Tracks whose stems are on disk.

    Returns:
        One row per song, in their order; the row of a song whose stems cannot be read has an `error`.
    """
    return [_analyse(song) for song in songs]


def _analyse(song: SeparatedTrack) -> AnalysisRow:
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
        tempo=grid.tempo if grid.certain else 0.0,  # a song without a beat is paired with none
        clarity=grid.clarity,
        tonic=key.tonic,
        minor=key.minor,
        key_confidence=key.confidence,
        vocal_activity=vocal_activity(vocals, mixture, rate) if song.activity is None else song.activity,
        predicted_sdr=song.predicted_sdr,
        seconds=time.perf_counter() - began,
    )


def failed_analysis(song: SeparatedTrack, why: str) -> AnalysisRow:
    """The row of a song that could not be analysed.

    Args:
        song: The track.
        why: The row's `error`, one sentence.

    Returns:
        A row of zeros with that `error`; no pair is made of it.
    """
    return AnalysisRow(
        song.track_id, song.path, song.model_id, song.source_fingerprint, 0.0, 0.0, 0.0, 0, False, 0.0, 0.0, None, 0.0,
        error=why,
    )  # fmt: skip


def vocal_activity(vocals: np.ndarray, mixture: np.ndarray, rate: int) -> float:
    """Share of the song's 400 ms blocks in which the vocals are within 20 LU of the mixture's loudness.

    Args:
        vocals: (channels, samples).
        mixture: (channels, samples), of which only the integrated loudness counts.
        rate: Sample rate in Hz.

    Returns:
        0 … 1; 0 where the mixture is silent or the vocals are shorter than a block.
    """
    return activity(LoudnessMeter.of(vocals, rate).blocks(), LoudnessMeter.of(mixture, rate).integrated()) or 0.0
