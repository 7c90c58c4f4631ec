"""Tracks of an output that a condition selects, in SQL over the rows of the stems that are there."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from storage.results.query import tracks_where


class Selection:
    """Tracks and how long they are; of each, two numbers of 8 bytes are kept.

    Args:
        tracks: (track id, seconds of audio, None where unknown).
    """

    def __init__(self, tracks: Iterable[tuple[str, float | None]]) -> None:
        pairs = np.fromiter(
            ((hash(name), np.nan if seconds is None else seconds) for name, seconds in tracks),
            np.dtype([("key", np.int64), ("seconds", np.float64)]),
        )
        keys, first = np.unique(pairs["key"], return_index=True)
        self._keys, self._seconds = keys, pairs["seconds"][first]

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, track_id: str) -> bool:
        return self._place(track_id) is not None

    def seconds(self, track_id: str) -> float:
        """How long a track is, in seconds; 0 where that is unknown.

        Args:
            track_id: A track of the selection.

        Raises:
            KeyError: The track was not selected.
        """
        place = self._place(track_id)
        if place is None:
            raise KeyError(track_id)
        return float(np.nan_to_num(self._seconds[place]))

    def _place(self, track_id: str) -> int | None:
        key = hash(track_id)
        place = int(self._keys.searchsorted(key))
        return place if place < len(self._keys) and self._keys[place] == key else None


def select_tracks(out: Path, condition: str) -> Selection:
    """The tracks of which at least one row fulfils a condition; see `storage.results.query.tracks_where`.

    Args:
        out: The run folder.
        condition: SQL that is true or false of a row of `metrics`, e.g. `predicted_sdr < 4`.

    Returns:
        The tracks with their durations.

    Raises:
        MetricsError: There are no rows, or the condition does not work; the sentence is DuckDB's.
    """
    return Selection(tracks_where(out, condition))


def check_condition(out: Path, condition: str) -> None:
    """Check that a condition can be applied to the rows of a run folder; no row is read for it.

    Args:
        out: The run folder.
        condition: The condition, as for `select_tracks`.

    Raises:
        MetricsError: There are no rows, or the condition does not work; the sentence is DuckDB's.
    """
    for _ in tracks_where(out, condition, most=0):
        pass
