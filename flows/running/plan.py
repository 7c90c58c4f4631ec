"""What is left to do, cut into batches, as a stream."""

import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain, islice
from typing import TypeVar

from storage.files import naming
from storage.files.fingerprint import ABSENT, FileState, look
from storage.files.layout import source_name
from storage.files.location import is_url, location, object_at
from storage.results.done import DoneTracks
from storage.results.hash_set import HashSet
from storage.results.selection import Selection
from storage.sources.catalog import CatalogTrack

# A batch is what a lost worker loses: at most so many tracks, and so many bytes of source (about twenty minutes
# of FLAC, as a proxy for duration: to know that, every file would have to be opened).
_TRACKS_PER_BATCH = 50
_BYTES_PER_BATCH = 64 << 20
_BATCHES_PER_SLOT = 4  # at least, where there are enough tracks, so that workers end together
_TRACKS_AT_A_TIME = 1000  # that are looked up in the output together, which takes a tenth of the time

Item = TypeVar("Item")


class Standing(Enum):
    """A track's state before a run."""

    TODO = "todo"
    DONE = "done"
    FAILED = "failed"
    OLDER = "older"  # not changed since the given date
    PASSED = "passed"  # not among the tracks that a condition chose


@dataclass(frozen=True)
class Counts:
    """How many tracks of a catalog are to do, done, failed before, and passed over as older.

    Args:
        todo: Tracks to do.
        done: Tracks that were done before.
        failed: Tracks that failed before.
        older: Tracks that were not modified since the given date.
        told_apart: Tracks that are named by their full path, since the output holds another file's stems under the
            name they have in the catalog.
        todo_bytes: Size of the sources to do, in bytes.
        first: The first source to do, "" where there is none.
        passed: Tracks that the run's condition did not choose.
        seconds: Where there is a condition, the audio to do in seconds, as far as its duration is known.
    """

    todo: int
    done: int
    failed: int
    older: int = 0
    told_apart: int = 0
    todo_bytes: int = 0
    first: str = ""
    passed: int = 0
    seconds: float | None = None

    @property
    def all(self) -> int:
        return self.todo + self.done + self.failed + self.older + self.passed

    @property
    def small(self) -> bool:
        """Whether everything to do fits into one batch, which takes less time than Dask takes to start."""
        return self.todo <= _TRACKS_PER_BATCH and self.todo_bytes <= _BYTES_PER_BATCH


@dataclass
class Planner:
    """Decides for each track what is to be done with it, and where its stems go.

    Args:
        done: What the output holds; see `storage.results.done.done_tracks`. A track is done when its row is there, its
            stems are on the disk, and its source has the same size and date.
        retry_failed: Whether tracks that failed before are tried again.
        since: Pass over files that were not modified since then; None for no such date.
        limit: The most tracks to plan; None for all.
        force: Whether tracks that are done are done again.
        template: How stems are named, one of `storage.files.naming.TEMPLATES`.
        chosen: The only tracks that are considered; None where all are.
        adding: The hash of the settings that this run's workers make stems with; None where they differ or it is not
            known: a track that lacks a stem then gets all of its stems anew.
        listed: Takes the ids of all tracks that `count` reads, by their names in the output; None where nobody asks.

    Attributes:
        unseen: After `count`, why a part of the catalog could not be listed; None where all of it was.
    """

    done: DoneTracks
    retry_failed: bool = False
    since: datetime.datetime | None = None
    limit: int | None = None
    force: bool = False
    template: str = naming.FOLDERS
    chosen: Selection | None = None
    adding: str | None = None
    listed: HashSet | None = None
    unseen: str | None = field(default=None, init=False)
    _places: HashSet = field(default_factory=HashSet, init=False)  # that tracks of the catalog could take
    _shared: HashSet = field(default_factory=HashSet, init=False)  # of these, those that two tracks could

    def count(self, tracks: Iterable[CatalogTrack]) -> Counts:
        """Count the catalog's tracks by state, and learn which places two of them could take.

        Must come before `todo`, which gives places accordingly.

        Args:
            tracks: The catalog, which is read to its end and not kept.

        Returns:
            The counts, those to do capped at `limit`.
        """
        standings: Counter[Standing] = Counter()
        places, told_apart, todo_bytes, first, seconds = HashSet(), 0, 0, "", 0.0
        for listed, track, state, standing in self._judged(tracks):
            told_apart += track is not listed
            self.unseen = self.unseen or track.problem
            if self.listed is not None:
                self.listed.add(track.track_id)
            if standing is Standing.TODO and (self.limit is None or standings[Standing.TODO] < self.limit):
                todo_bytes += state.size if state else 0
                first = first or track.source
                seconds += 0.0 if self.chosen is None else self.chosen.seconds(track.track_id)
            standings[standing] += 1
            if standing is not Standing.DONE:  # which has its place, where no other track goes
                places.update({naming.folded(place) for place in naming.candidates(track.path, self.template)[:2]})
        self._shared, self._places = places.repeated(), places
        todo = standings[Standing.TODO] if self.limit is None else min(self.limit, standings[Standing.TODO])
        done, failed, older, passed = (
            standings[each] for each in (Standing.DONE, Standing.FAILED, Standing.OLDER, Standing.PASSED)
        )
        known = None if self.chosen is None else seconds
        return Counts(todo, done, failed, older, told_apart, todo_bytes, first, passed, known)

    def todo(self, tracks: Iterable[CatalogTrack]) -> Iterator[CatalogTrack]:
        """The tracks to do, in the catalog's order, at most `limit` of them.

        Args:
            tracks: The catalog, listed once more after `count`.

        Returns:
            A stream of tracks, each with its `place`, the `stems` to make (None for all), and whether it `keeps` or
            `replaces` stems that are there.
        """
        judged = self._judged(tracks)
        waiting = (self._planned(track, state) for _, track, state, standing in judged if standing is Standing.TODO)
        return islice(waiting, self.limit)

    def named(self, tracks: Iterable[CatalogTrack]) -> Iterator[CatalogTrack]:
        """Tracks by their names in the output.

        Args:
            tracks: Tracks as their catalog lists them.

        Returns:
            The same tracks, as a stream. Where the output holds stems of another file, which still exists, under the
            catalog's name, the id and the path are the full path of the source.
        """
        for block in _blocks(tracks):
            yield from self._named(block)

    def _named(self, tracks: list[CatalogTrack]) -> list[CatalogTrack]:
        apart = self.done.anothers([(track.track_id, source_name(track.source)) for track in tracks])
        return [_by_full_path(track) if other else track for track, other in zip(tracks, apart, strict=True)]

    def _judged(
        self, tracks: Iterable[CatalogTrack]
    ) -> Iterator[tuple[CatalogTrack, CatalogTrack, FileState | None, Standing]]:
        """Each track as it is listed, by its name in the output, its source's state, and what is to be done with it."""
        for block in _blocks(tracks):
            named = self._named(block)
            states = [track.state or look(track.source) for track in block]
            yield from zip(block, named, states, self._standings(named, states), strict=True)

    def _standings(self, tracks: Sequence[CatalogTrack], states: Sequence[FileState | None]) -> list[Standing]:
        """The tracks' states before this run; never `DONE` or `FAILED` under `force`."""
        ended: Sequence[bool | None] = [None] * len(tracks)
        if not self.force:
            fingerprints = (state.fingerprint if state else ABSENT for state in states)
            ended = self.done.ends(list(zip((track.track_id for track in tracks), fingerprints, strict=True)))
        return [self._standing(*each) for each in zip(tracks, states, ended, strict=True)]

    def _standing(self, track: CatalogTrack, state: FileState | None, ended: bool | None) -> Standing:
        if self.chosen is not None and track.track_id not in self.chosen:
            return Standing.PASSED
        if ended:
            return Standing.DONE
        if ended is False and not self.retry_failed:
            return Standing.FAILED
        # Where the date cannot be read the track is new: reading it will say what is wrong.
        changed = state.modified if state else None
        if self.since is not None and changed is not None and changed < self.since.timestamp():
            return Standing.OLDER
        return Standing.TODO

    def _planned(self, track: CatalogTrack, state: FileState | None) -> CatalogTrack:
        missing: tuple[str, ...] = ()
        if state and not self.force:
            missing = self.done.missing(track.track_id, state.fingerprint, self.adding)
        return replace(
            track,
            state=state,
            place=self._place(track),
            stems=missing or None,
            keeps=bool(missing),
            replaces=not missing and self.done.holds(track.track_id),
        )

    def _place(self, track: CatalogTrack) -> str:
        """The place the track has, or the first that no other track of the catalog or the output could take."""
        places = naming.candidates(track.path, self.template)
        has = self.done.place(track.track_id, places)
        if has is not None:
            return has
        for place in places[:2]:
            folder = naming.folded(place).rpartition("/")[0]
            inside = naming.may_be_a_stem(place) and (folder in self._places or self.done.taken(folder))
            if naming.folded(place) not in self._shared and not self.done.taken(place) and not inside:
                return place
        return places[2]


def _blocks(tracks: Iterable[CatalogTrack]) -> Iterator[list[CatalogTrack]]:
    waiting = iter(tracks)
    while block := list(islice(waiting, _TRACKS_AT_A_TIME)):
        yield block


def _by_full_path(track: CatalogTrack) -> CatalogTrack:
    source = source_name(track.source)
    path = (object_at(location(source))[1] if is_url(source) else source).lstrip("/")
    return replace(track, track_id=path, path=path)


def one_batch(tracks: Iterator[CatalogTrack]) -> tuple[Iterator[CatalogTrack], int | None]:
    """Whether a catalog is so small that all of it is one batch, without reading more of it than that takes.

    Args:
        tracks: The catalog as a stream.

    Returns:
        The same stream, from its beginning, and how many tracks it has, None where they are too many or too large.
    """
    head = list(islice(tracks, _TRACKS_PER_BATCH + 1))
    small = len(head) <= _TRACKS_PER_BATCH and sum(map(source_bytes, head)) <= _BYTES_PER_BATCH
    return chain(head, tracks), len(head) if small else None


def batches(items: Iterable[Item], slots: int, size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Cut items into batches, in their order.

    Few items are spread over all slots; only as many as that takes are read in advance.

    Args:
        items: What to cut, as a stream.
        slots: How many batches the workers run at a time, at least 1.
        size: An item's size in bytes, which limits a batch; where it is always 0 only the number of items does.

    Yields:
        Lists of at least one item. A batch exceeds `_BYTES_PER_BATCH` only where a single item does.
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
    """The size of a track's source.

    Args:
        track: The track; its source is looked at where its `state` is not known yet.

    Returns:
        Bytes; 0 where the source cannot be looked at.
    """
    state = track.state or look(track.source)
    return state.size if state else 0
