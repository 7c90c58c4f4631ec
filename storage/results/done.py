"""What an output holds already: which tracks are done, where their stems are, and which source each name belongs to."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from storage.files import naming
from storage.files.layout import OutputLayout
from storage.files.location import is_url
from storage.results import metrics, parquet
from storage.results.hash_set import HashSet

if TYPE_CHECKING:
    import pyarrow.dataset as ds

_SOURCES = "select distinct track_id, source from parts where source is not null and settings_hash is not null"
_STEMS = "select distinct stem from parts where stem is not null and stem_path is not null"


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
        self._well, self._failed = HashSet(), HashSet()
        self._partly: dict[tuple[tuple[str, ...], str], HashSet] = {}  # by the stems that are missing, and the settings
        self._held, self._names, self._sources = HashSet(), HashSet(), HashSet()
        self._places, self._places_of_tracks = HashSet(), HashSet()
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

    def add_well(self, tracks: Iterable[tuple[str, str]]) -> None:
        """Put in tracks that ended well.

        Args:
            tracks: (track id, its source's fingerprint at that time).
        """
        self._well.update(tracks)

    def add_lacking(self, stems: tuple[str, ...], settings: str, track: tuple[str, str]) -> None:
        """Put in a track that ended well but for some stems, which it lacks.

        Args:
            stems: The stems that it lacks.
            settings: The hash of the settings that the others were made with.
            track: (track id, its source's fingerprint at that time).
        """
        self._partly.setdefault((stems, settings), HashSet()).add(track)

    def add_sources(self, tracks: Iterable[tuple[str, str]]) -> None:
        """Put in whose names the tracks have.

        Args:
            tracks: (track id, a source that had this name).
        """
        sources = list(tracks)
        self._names.update(map(itemgetter(0), sources))
        self._sources.update(sources)

    def add_places(self, names: Sequence[str], places: Sequence[str]) -> None:
        """Put in where tracks have had stems.

        Args:
            names: The tracks' ids.
            places: Their places, in the same order.
        """
        self._held.update(names)
        self._places_of_tracks.update(zip(names, places, strict=True))
        self._places.update(map(naming.folded, places))

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
        return self.ends([(track_id, fingerprint)])[0]

    def ends(self, tracks: Sequence[tuple[str, str]]) -> list[bool | None]:
        """How many tracks ended, each as `ended` tells it.

        Args:
            tracks: (track id, its source's fingerprint as the source is now).

        Returns:
            One answer per track, in their order.
        """
        both = zip(self._well.members(tracks), self._failed.members(tracks), strict=True)
        return [False if failed else True if well else None for well, failed in both]

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

    def anothers(self, tracks: Sequence[tuple[str, str]]) -> list[bool]:
        """Which names belong to another file, which still exists?

        Args:
            tracks: (name in the catalog, the file or URL to which the catalog gives that name; see `source_name`).

        Returns:
            One answer per track, in their order.
        """
        new = [not known for known in self._sources.members(tracks)]
        if any(new):
            named = self._names.members([name for name, _ in tracks])
            new = [here and self._is_anothers(*track) for here, track in zip(map(min, new, named), tracks, strict=True)]
        return new

    def _is_anothers(self, track_id: str, source: str) -> bool:
        if self._elsewhere is None:
            from storage.results.track_rows import tuples

            self._elsewhere = {}
            for name, other in tuples(parquet.select(self._rows, _SOURCES)) if self._rows is not None else ():
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
    from storage.results.intake import Intake  # takes longer to import than an output without rows to plan
    from storage.results.track_rows import rows_by_track, tuples

    intake = Intake(done, target, out)
    for block in rows_by_track(rows):
        intake.take(block)
    done.stems = tuple(sorted(stem for (stem,) in tuples(parquet.select(rows, _STEMS))))
    done._rows = rows
    return done


def _is_another(other: str, source: str) -> bool:
    """Is `other` a file that exists, and not `source` by another name? A URL is assumed to exist."""
    if is_url(other) or is_url(source):
        return other != source
    try:
        return not os.path.samefile(other, source)
    except OSError:
        return Path(other).exists()
