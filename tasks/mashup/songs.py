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
    vocals, rate = reader.read(dict(song.stems)[VOCALS])
    accompaniment, _ = read_accompaniment(song)
    return vocals, accompaniment, rate


def read_accompaniment(song: SeparatedTrack) -> tuple[np.ndarray, int]:
    """The sum of a track's stems but the vocals.

    Args:
        song: The track; vocals are among its stems.

    Returns:
        (accompaniment, rate): float32 (channels, samples), and Hz.

    Raises:
        AudioError: A stem cannot be read.
    """
    signals, rate = [], 0
    for stem, path in song.stems:
        if stem != VOCALS:
            signal, rate = reader.read(path)
            signals.append(signal)
    return signals[0] if len(signals) == 1 else np.add.reduce(signals, axis=0, dtype=np.float32), rate
