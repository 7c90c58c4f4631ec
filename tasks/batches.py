"""What a separation's workers are called with, by functions that import nothing heavy until they run.

The flow process names these functions and never separates: it needs neither torch nor the decoders.
"""

from storage.results.metrics import StemRow
from storage.results.windows import WindowScores
from storage.sources.catalog import CatalogTrack
from tasks.separation import SeparateSettings


def separate_batch(settings: SeparateSettings, tracks: list[CatalogTrack]) -> list[StemRow | WindowScores]:
    """`tasks.separate.separate_batch`."""
    from tasks import separate

    return separate.separate_batch(settings, tracks)


def score_batch(
    settings: SeparateSettings, tracks: list[CatalogTrack], rows: list[StemRow | WindowScores]
) -> list[StemRow | WindowScores]:
    """`tasks.separate.score_batch`."""
    from tasks import separate

    return separate.score_batch(settings, tracks, rows)


def lost_row(settings: SeparateSettings, track: CatalogTrack, sentence: str) -> StemRow:
    """`tasks.separate.lost_row`; needed only where a worker was lost."""
    from tasks import separate

    return separate.lost_row(settings, track, sentence)


def interrupted_row(settings: SeparateSettings, track: CatalogTrack) -> StemRow:
    """`tasks.separate.interrupted_row`; needed only where stems are replaced."""
    from tasks import separate

    return separate.interrupted_row(settings, track)
