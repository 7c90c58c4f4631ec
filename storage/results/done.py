"""What an output holds already: which tracks are done, where their stems are, and which source each name belongs to."""

import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from storage.files import naming
from storage.files.layout import OutputLayout
from storage.files.location import is_url, object_at
from storage.results import metrics, parquet
from storage.results.metrics import FAILED, OK

if TYPE_CHECKING:
    import pyarrow.dataset as ds

# The rows of separations, those of a track together, its latest first. DuckDB sorts on the disk, while an aggregate of
# texts or lists would have to stay in memory.
_SEPARATIONS = """
select track_id, status, model_id, settings_hash, source_fingerprint, stem, stem_path, format, source
from parts where settings_hash is not null
order by track_id, finished_at desc nulls last
"""
_SOURCES = "select distinct track_id, source from parts where source is not null and settings_hash is not null"
_STEMS = "select distinct stem from parts where stem is not null and stem_path is not null"


class Keys:
    """A set of anything hashable in 8 bytes each, without the things themselves.

    With a million things in the set and a million others looked up, the chance that any of these is taken for a member
    is 1 in 20 million.
    """

    def __init__(self, things: Iterable[object] = ()) -> None:
        self._new = array("q", (hash(thing) for thing in things))
        self._sorted = np.empty(0, np.int64)

    def add(self, thing: object) -> None:
        """Put a thing into the set.

        Args:
            thing: Anything hashable; it is not kept.
        """
        self._new.append(hash(thing))

    def __contains__(self, thing: object) -> bool:
        self._settle()
        if not len(self._sorted):
            return False
        key = hash(thing)
        at = int(self._sorted.searchsorted(key))
        return at < len(self._sorted) and int(self._sorted[at]) == key

    def __len__(self) -> int:
        self._settle()
        return len(self._sorted)

    def repeated(self) -> "Keys":
        """The things that were added more than once; known only until the set is next queried or measured."""
        values = np.sort(np.frombuffer(self._new, np.int64)) if len(self._new) else self._sorted
        repeated = Keys()
        repeated._sorted = np.unique(values[1:][values[1:] == values[:-1]])
        return repeated

    def _settle(self) -> None:
        if len(self._new):
            self._sorted = np.unique(np.concatenate([self._sorted, np.frombuffer(self._new, np.int64)]))
            self._new = array("q")


@dataclass(frozen=True)
class Target:
    """What a run requires of each track.

    Args:
        model_id: The model.
        settings: The hashes of all settings that give the required samples.
        stems: The required stems.
        format: Their format, one of `naming.STEM_EXTENSIONS`.
        template: How their files are named, one of `naming.TEMPLATES`.
        beside: Whether the model keeps its stems beside those of other models, below OUT/models.
    """

    model_id: str
    settings: tuple[str, ...]
    stems: tuple[str, ...]
    format: str = "flac"
    template: str = naming.FOLDERS
    beside: bool = False


class DoneTracks:
    """Tracks that ended, well or not, with the fingerprints their sources had; only a hash of each is kept.

    Args:
        tracks: (track id, its source's fingerprint, whether it ended well).
    """

    def __init__(self, tracks: Iterable[tuple[str, str, bool]] = ()) -> None:
        self._well, self._failed = Keys(), Keys()
        self._partly: dict[tuple[tuple[str, ...], str], Keys] = {}  # by the stems that are missing, and the settings
        self._held, self._names, self._sources = Keys(), Keys(), Keys()
        self._places, self._places_of_tracks = Keys(), Keys()
        self._elsewhere: dict[int, list[str]] | None = None
        self._rows: ds.Dataset | None = None
        self.stems: tuple[str, ...] = ()
        for track_id, fingerprint, well in tracks:
            self.add(track_id, fingerprint, well)

    def add(self, track_id: str, fingerprint: str, well: bool) -> None:
        """Put in a track that ended.

        Args:
            track_id: The track.
            fingerprint: Its source's at that time.
            well: Whether it ended well.
        """
        (self._well if well else self._failed).add((track_id, fingerprint))

    def __len__(self) -> int:
        return len(self._well) + len(self._failed) + sum(map(len, self._partly.values()))

    def ended(self, track_id: str, fingerprint: str) -> bool | None:
        """How a track ended.

        Args:
            track_id: The track.
            fingerprint: Its source's, as the source is now.

        Returns:
            True where the track with this fingerprint ended well, False where it failed, None where neither.
        """
        key = (track_id, fingerprint)
        return False if key in self._failed else True if key in self._well else None

    @property
    def lacking(self) -> bool:
        """Whether any track lacks stems while others of its separation may be there."""
        return bool(self._partly)

    def missing(self, track_id: str, fingerprint: str, settings: str | None) -> tuple[str, ...]:
        """The stems that a track lacks, where others of the same separation are there.

        Args:
            track_id: The track.
            fingerprint: Its source's, as the source is now.
            settings: The hash of the settings that missing stems would be made with; None where that is not known
                before they are made.

        Returns:
            The stems; none where those that are there were made with other settings: they would not add up.
        """
        key = (track_id, fingerprint)
        return next((stems for (stems, made), keys in self._partly.items() if made == settings and key in keys), ())

    def holds(self, track_id: str) -> bool:
        """Has the track had stems in its place, from any model?

        Args:
            track_id: The track.
        """
        return track_id in self._held

    def place(self, track_id: str, places: tuple[str, ...]) -> str | None:
        """The place that a track has already, so that its stems go there again.

        Args:
            track_id: The track.
            places: Those it could have, as `naming.candidates` gives them.

        Returns:
            The first of them that it has, None where it has none.
        """
        return next((place for place in places if (track_id, place) in self._places_of_tracks), None)

    def taken(self, place: str) -> bool:
        """Does any track have stems in this place?

        Args:
            place: A path below the folder of stems; spellings that a file system may not tell apart are one place.
        """
        return naming.folded(place) in self._places

    def anothers(self, track_id: str, source: str) -> bool:
        """Does this name belong to another file, which still exists?

        Args:
            track_id: The name in the catalog.
            source: The file or URL to which the catalog gives that name; see `source_name`.
        """
        if track_id not in self._names or (track_id, source) in self._sources:
            return False
        if self._elsewhere is None:
            self._elsewhere = {}
            for name, other in _tuples(parquet.select(self._rows, _SOURCES)) if self._rows is not None else ():
                self._elsewhere.setdefault(hash(name), []).append(other)
        return any(_is_another(other, source) for other in self._elsewhere.get(hash(track_id), []))


def done_tracks(out: OutputLayout, target: Target) -> DoneTracks:
    """What an output holds, compared with what a run requires of each track.

    A track is done where its stems are on the disk, made by this model with these settings, and no other separation
    has gone into its place since.

    Args:
        out: The output's layout.
        target: What the run requires.

    Raises:
        MetricsError: The rows cannot be read.
    """
    done = DoneTracks()
    rows = metrics.dataset(out)
    if not rows.files:
        return done
    root = out.stems_of(target.model_id if target.beside else None)
    below = f"{root.relative_to(out.root).as_posix()}/"
    there = _Presence(out)
    separations = (_Row(*values) for values in _tuples(parquet.select(rows, _SEPARATIONS)))
    for _, of_track in groupby(separations, attrgetter("track_id")):
        _take_in(done, list(of_track), target, below, there)
    done.stems = tuple(sorted(stem for (stem,) in _tuples(parquet.select(rows, _STEMS))))
    done._rows = rows
    return done


class _Row(NamedTuple):
    """One stem of a separation, or one failure; `path` is relative to the output."""

    track_id: str
    status: str
    model: str
    settings: str
    fingerprint: str
    stem: str | None
    path: str | None
    format: str | None
    source: str | None

    @property
    def separation(self) -> tuple[str, str, str]:
        return self.model, self.settings, self.fingerprint


def _take_in(done: DoneTracks, rows: list[_Row], target: Target, below: str, there: "_Presence") -> None:
    """Note what a track's rows say, the latest first.

    The stems in its place are those of the latest separation into it, even of one that began and never ended.
    """
    name = rows[0].track_id
    in_place = [row for row in rows if row.path is not None and row.path.startswith(below)]
    ended = next((row for row in rows if _tells_the_end(row, target, below)), None)
    if ended is not None and ended.status == FAILED:
        done.add(name, ended.fingerprint, well=False)
    for source in {row.source for row in rows if row.source is not None}:
        done._names.add(name)
        done._sources.add((name, source))
    if not in_place:
        return
    latest = in_place[0]
    place = naming.place_of((latest.path or "").removeprefix(below), latest.stem)
    done._held.add(name)
    done._places_of_tracks.add((name, place))
    done._places.add(naming.folded(place))
    if latest.status != OK or latest.model != target.model_id or latest.settings not in target.settings:
        return
    paths = {below + naming.stem_name(place, stem, target.format, target.template): stem for stem in target.stems}
    made = {row.path for row in in_place if row.status == OK and row.separation == latest.separation}
    present = {stem for path, stem in paths.items() if path in made and there(path)}
    missing = tuple(stem for stem in target.stems if stem not in present)
    keys = done._partly.setdefault((missing, latest.settings), Keys()) if missing else done._well
    keys.add((name, latest.fingerprint))


def _tells_the_end(row: _Row, target: Target, below: str) -> bool:
    """Is the row of a separation as it is required, which left stems in the track's place or failed?"""
    if row.model != target.model_id or row.settings not in target.settings:
        return False
    in_place = row.path is not None and row.path.startswith(below)
    return in_place or (row.status == FAILED and row.format in (None, target.format))


class _Presence:
    """Does a file of an output exist? An object store's names are listed once, and 8 bytes of each are kept."""

    def __init__(self, out: OutputLayout) -> None:
        self._root = out.root
        self._listed: Keys | None = None
        if is_url(out.root):
            self._listed = Keys()
            store, key = object_at(out.root)
            for folder in ("stems", "models"):
                for name in store.find(f"{key.rstrip('/')}/{folder}"):
                    self._listed.add(name)
            self._key = key.rstrip("/")

    def __call__(self, name: str) -> bool:
        if self._listed is not None:
            return f"{self._key}/{name}" in self._listed
        return os.path.exists(os.path.join(self._root, name))


def _tuples(batches: Iterable) -> Iterator[tuple]:
    for batch in batches:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _is_another(other: str, source: str) -> bool:
    """Is `other` a file that exists, and not `source` by another name? A URL is assumed to exist."""
    if is_url(other) or is_url(source):
        return other != source
    try:
        return not os.path.samefile(other, source)
    except OSError:
        return Path(other).exists()
