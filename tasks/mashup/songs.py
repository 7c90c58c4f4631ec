"""The signals of a separated track, of which a mash-up is made."""

import numpy as np

from storage.audio import reader
from storage.results.separated import VOCALS, SeparatedTrack


def read_song(song: SeparatedTrack) -> tuple[np.ndarray, np.ndarray, int]:
    """The stems of a track as vocals and the sum of all others.

    Args:
        song: The track; vocals are among its stems.

    Returns:
        (vocals, accompaniment, rate): float32 (channels, samples) each, and Hz.

    Raises:
        AudioError: A stem cannot be read.
    """
    signals, rate = {}, 0
    for stem, path in song.stems:
        signals[stem], rate = reader.read(path)
    vocals = signals.pop(VOCALS)
    return vocals, np.add.reduce(list(signals.values()), axis=0, dtype=np.float32), rate
