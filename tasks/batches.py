"""What a separation's workers are called with, by functions that import nothing heavy until they run.

The flow process names these functions and never separates: it needs neither torch nor the decoders.
"""

from storage.results.separation_rows import StemRow, WindowScores
from storage.sources.catalog import CatalogTrack
from tasks.separation import SeparateSettings


def separate_batch(settings: SeparateSettings, tracks: list[CatalogTrack]) -> list[StemRow | WindowScores]:
    """`tasks.separate.separate_batch`, imported on the worker.

    Args:
        settings: What the run does to every track.
        tracks: The batch, separated in this order.

    Returns:
        One row per stem or one failed row per track, and the predicted windows where they are kept.

    Raises:
        OutputError: The output cannot be written.
    """
    from tasks import separate

    return separate.separate_batch(settings, tracks)


def score_batch(
    settings: SeparateSettings, tracks: list[CatalogTrack], rows: list[StemRow | WindowScores]
) -> list[StemRow | WindowScores]:
    """`tasks.separate.score_batch`, imported on the worker.

    Args:
        settings: What the run does to every track.
        tracks: The batch that was separated.
        rows: What `separate_batch` returned for it.

    Returns:
        The same rows, with scores where a track has references.
    """
    from tasks import separate

    return separate.score_batch(settings, tracks, rows)


def lost_row(settings: SeparateSettings, track: CatalogTrack, sentence: str) -> StemRow:
    """`tasks.separate.lost_row`; needed only where a worker was lost.

    Args:
        settings: What the run does to every track.
        track: The track that no worker finished.
        sentence: Why it was lost, for the user.
    """
    from tasks import separate

    return separate.lost_row(settings, track, sentence)


def interrupted_row(settings: SeparateSettings, track: CatalogTrack) -> StemRow:
    """`tasks.separate.interrupted_row`; needed only where stems are replaced.

    Args:
        settings: What the run does to every track.
        track: The track whose stems are about to be replaced.
    """
    from tasks import separate

    return separate.interrupted_row(settings, track)
