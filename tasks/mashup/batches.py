"""What the workers of mash-ups are called with, by functions that import nothing heavy until they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.results.mashup_rows import AnalysisRow, MashupRow
    from storage.results.separated import SeparatedTrack
    from tasks.settings import MashupSettings


def analyse_songs(songs: list[SeparatedTrack]) -> list[AnalysisRow]:
    """`tasks.mashup.analysis.analyse_songs`, imported on the worker.

    Args:
        songs: Tracks whose stems are on disk.

    Returns:
        One row per song, in their order; the row of a song whose stems cannot be read has an `error`.
    """
    from tasks.mashup import analysis

    return analysis.analyse_songs(songs)


def failed_analysis(song: SeparatedTrack, why: str) -> AnalysisRow:
    """`tasks.mashup.analysis.failed_analysis`; needed only where a worker was lost.

    Args:
        song: The track.
        why: The row's `error`, one sentence.
    """
    from tasks.mashup import analysis

    return analysis.failed_analysis(song, why)


def mash_pairs(settings: MashupSettings, pairs: list[tuple[SeparatedTrack, SeparatedTrack]]) -> list[MashupRow]:
    """`tasks.mashup.render.mash_pairs`, imported on the worker.

    Args:
        settings: How mash-ups are made.
        pairs: (song of the vocals, song of the accompaniment) each.

    Returns:
        One row per pair, in their order; one that does not fit, or cannot be read, is a row that says so.
    """
    from tasks.mashup import render

    return render.mash_pairs(settings, pairs)


def lost_mashup(a: SeparatedTrack, b: SeparatedTrack, why: str) -> MashupRow:
    """`tasks.mashup.render.lost_mashup`; needed only where a worker was lost.

    Args:
        a: The song of the vocals.
        b: The song of the accompaniment.
        why: The row's `error`, one sentence.
    """
    from tasks.mashup import render

    return render.lost_mashup(a, b, why)
