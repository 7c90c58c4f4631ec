"""What the rows of separations say of each track."""

import os
from collections.abc import Callable, Container
from itertools import compress, groupby
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.files import naming
from storage.files.layout import OutputLayout
from storage.files.location import is_url, object_at
from storage.results.hash_set import HashSet
from storage.results.metrics import FAILED, OK
from storage.results.track_rows import TrackRow, flags, repeated, texts, tuples

if TYPE_CHECKING:
    from storage.results.done import DoneTracks, Target


class Intake:
    """Takes the rows of separations into `done`.

    Args:
        done: What takes them.
        target: What the run requires of each track.
        out: The output, whose files are looked for.
    """

    def __init__(self, done: "DoneTracks", target: "Target", out: OutputLayout) -> None:
        self._done, self._target, self._there = done, target, _presence(out)
        root = out.stems_of(target.model_id if target.beside else None)
        self._below = (
            f"{root.relative_to(out.root).as_posix()}/"  # what the paths of stems in tracks' places begin with
        )
        # Every template begins with the place, so the path of a stem is its place and one of these.
        self._endings = [(stem, naming.stem_name("", stem, target.format, target.template)) for stem in target.stems]

    def take(self, rows: pa.RecordBatch) -> None:
        """Note what rows say.

        Nearly all tracks of a large output have been separated once, as is required. They are told from the others in
        columns, and what their rows say is simple: it takes a third of the time.

        Args:
            rows: All rows of each of their tracks, as `rows_by_track` gives them; at least one.
        """
        first = ~repeated(rows, "track_id")
        starts = np.flatnonzero(first)
        lengths = np.diff(starts, append=len(rows))
        alike = first | repeated(rows, "settings_hash", "source_fingerprint", "source")
        plain = np.logical_and.reduceat(self._as_required(rows) & alike, starts)
        self._take_plain(rows, starts[plain], lengths[plain])
        others = rows.filter(pa.array(~np.repeat(plain, lengths)))
        for _, of_track in groupby((TrackRow(*values) for values in tuples([others])), attrgetter("track_id")):
            self._take_any(list(of_track))

    def _as_required(self, rows: pa.RecordBatch) -> np.ndarray:
        """Which rows are those of a stem in a track's place, made as is required from a known source?"""
        conditions = [
            pc.equal(rows.column("status"), OK),
            pc.equal(rows.column("model_id"), self._target.model_id),
            pc.is_in(rows.column("settings_hash"), value_set=pa.array(self._target.settings, pa.string())),
            pc.starts_with(rows.column("stem_path"), self._below),
            *(pc.is_valid(rows.column(name)) for name in ("stem", "source", "source_fingerprint")),
        ]
        return np.logical_and.reduce([flags(condition) for condition in conditions])

    def _take_plain(self, rows: pa.RecordBatch, starts: np.ndarray, lengths: np.ndarray) -> None:
        """Note what the rows of plain tracks say: all are as required, of one separation of one source."""
        done, prefix = self._done, len(self._below)
        heads = rows.take(pa.array(starts))
        names, fingerprints, sources, stems = (
            texts(heads, name) for name in ("track_id", "source_fingerprint", "source", "stem")
        )
        paths = texts(rows, "stem_path")
        places, well = [], []
        for number, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            made = paths[start : start + length]
            place = naming.place_of(made[0][prefix:], stems[number])
            places.append(place)
            missing = self._missing(place, made)
            if missing:
                settings = heads.column("settings_hash")[number].as_py()
                done.add_lacking(missing, settings, (names[number], fingerprints[number]))
            well.append(not missing)
        done.add_well(compress(zip(names, fingerprints, strict=True), well))
        done.add_sources(zip(names, sources, strict=True))
        done.add_places(names, places)

    def _take_any(self, rows: list[TrackRow]) -> None:
        """Note what a track's rows say, the latest first.

        The stems in its place are those of the latest separation into it, even of one that began and never ended.
        """
        done, target, name = self._done, self._target, rows[0].track_id
        in_place = [row for row in rows if row.path is not None and row.path.startswith(self._below)]
        ended = next((row for row in rows if self._tells_the_end(row)), None)
        if ended is not None and ended.status == FAILED:
            done.add(name, ended.fingerprint, well=False)
        done.add_sources({(name, row.source) for row in rows if row.source is not None})
        if not in_place:
            return
        latest = in_place[0]
        place = naming.place_of((latest.path or "").removeprefix(self._below), latest.stem)
        done.add_places([name], [place])
        if latest.status != OK or latest.model != target.model_id or latest.settings not in target.settings:
            return
        made = {row.path for row in in_place if row.status == OK and row.separation == latest.separation}
        missing = self._missing(place, made)
        if missing:
            done.add_lacking(missing, latest.settings, (name, latest.fingerprint))
        else:
            done.add(name, latest.fingerprint, well=True)

    def _missing(self, place: str, made: Container[str | None]) -> tuple[str, ...]:
        """Which of the required stems a place lacks, of those that its separation made."""
        start, there = self._below + place, self._there
        return tuple(
            [stem for stem, ending in self._endings if (path := start + ending) not in made or not there(path)]
        )

    def _tells_the_end(self, row: TrackRow) -> bool:
        """Is the row of a separation as it is required, which left stems in the track's place or failed?"""
        if row.model != self._target.model_id or row.settings not in self._target.settings:
            return False
        in_place = row.path is not None and row.path.startswith(self._below)
        return in_place or (row.status == FAILED and row.format in (None, self._target.format))


def _presence(out: OutputLayout) -> Callable[[str], bool]:
    """Does a file of an output exist, by its path below the output?

    An object store's names are listed once, and 8 bytes of each are kept. On a disk every file is looked for: tracks
    have folders of their own, and listing one takes twice as long as looking for two files in it.
    """
    root = f"{out.root}/"

    def there(name: str) -> bool:
        try:
            return os.access(root + name, os.F_OK)  # half the time of os.path.exists
        except ValueError:  # no name of a file
            return False

    if not is_url(out.root):
        return there
    store, key = object_at(out.root)
    root, names = f"{key.rstrip('/')}/", HashSet()
    for folder in ("stems", "models"):
        names.update(store.find(f"{root}{folder}"))
    return lambda name: root + name in names
