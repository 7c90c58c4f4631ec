"""What is left to do, cut into batches, as a stream."""

import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import chain, islice
from typing import TypeVar

from storage.files.fingerprint import ABSENT, FileState, look
from storage.results.done import DoneTracks
from storage.sources.catalog import CatalogTrack

# A batch is what a lost worker loses: at most so many tracks, and so many bytes of source (about twenty minutes
# of FLAC, which stands for audio: to know the duration every file would have to be opened).
_TRACKS_PER_BATCH = 50
_BYTES_PER_BATCH = 64 << 20
_BATCHES_PER_SLOT = 4  # at the least, where there are tracks enough, so that workers end together

Item = TypeVar("Item")


class Standing(Enum):
    """How a track stands before a run."""

    TODO = "todo"
    DONE = "done"
    FAILED = "failed"
    OLDER = "older"  # not changed since the date that was asked for


@dataclass(frozen=True)
class Counts:
    """How many tracks are to do, done, failed before, and passed over as older."""

    todo: int
    done: int
    failed: int
    older: int = 0

    @property
    def all(self) -> int:
        return self.todo + self.done + self.failed + self.older


@dataclass(frozen=True)
class Planner:
    """Decides of each track what is to be done with it.

    `done` is what `storage.results.done.done_tracks` found for the run's model and settings. A track is done when its
    row is there and its source has the same size and date. `since` passes over what was not modified since then;
    `limit` ends the run's work after so many tracks.
    """

    done: DoneTracks
    retry_failed: bool = False
    since: datetime.datetime | None = None
    limit: int | None = None

    def standing(self, track: CatalogTrack) -> Standing:
        state = _state(track) if self.done or self.since is not None else None
        ended = self.done.ended(track.track_id, state.fingerprint if state else ABSENT)
        if ended:
            return Standing.DONE
        if ended is False and not self.retry_failed:
            return Standing.FAILED
        # Where the date cannot be read the track is new: reading it will say what is wrong.
        changed = state.modified if state else None
        if self.since is not None and changed is not None and changed < self.since.timestamp():
            return Standing.OLDER
        return Standing.TODO

    def todo(self, tracks: Iterable[CatalogTrack]) -> Iterator[CatalogTrack]:
        """The tracks to do, in the catalog's order."""
        return islice((track for track in tracks if self.standing(track) is Standing.TODO), self.limit)

    def count(self, tracks: Iterable[CatalogTrack]) -> Counts:
        counts = Counter(self.standing(track) for track in tracks)
        todo = counts[Standing.TODO] if self.limit is None else min(self.limit, counts[Standing.TODO])
        return Counts(todo, counts[Standing.DONE], counts[Standing.FAILED], counts[Standing.OLDER])


def batches(items: Iterable[Item], slots: int, size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Cut items into batches in their order; `size` gives an item's bytes, `slots` the workers' places.

    Where the items are few they are spread over all slots; only so many are looked at in advance.
    """
    waiting = iter(items)
    ahead = list(islice(waiting, _TRACKS_PER_BATCH * slots * _BATCHES_PER_SLOT))
    most = max(1, min(_TRACKS_PER_BATCH, -(-len(ahead) // (slots * _BATCHES_PER_SLOT))))
    current: list[Item] = []
    weight = 0
    for item in chain(ahead, waiting):
        if current and (len(current) >= most or weight + size(item) > _BYTES_PER_BATCH):
            yield current
            current, weight = [], 0
        current.append(item)
        weight += size(item)
    if current:
        yield current


def source_bytes(track: CatalogTrack) -> int:
    """The size of a track's file, 0 where it cannot be looked at."""
    state = _state(track)
    return state.size if state else 0


def _state(track: CatalogTrack) -> FileState | None:
    return track.state or look(track.source)
