"""One track of a catalog."""

from dataclasses import dataclass

from storage.files.fingerprint import FileState
from storage.sources.datasets import Source


@dataclass(frozen=True)
class CatalogTrack:
    """One track to separate.

    `path` is its place in the catalog, with forward slashes, and decides where its stems go; `source`
    is the file or URL to read. `references` are (stem, source) pairs to score against. `problem` is a
    sentence where the track is known to be unreadable before anyone tries. `state` is what the listing
    says of the source, None where it says nothing.

    A plan adds the rest: `place`, where its stems go (see `storage.files.naming`; by default as its path says);
    `stems`, which to make (by default all that the run makes); `keeps`, whether other stems in the place stay;
    `replaces`, whether stems of an earlier separation lie there and do not stay.
    """

    track_id: str
    path: str
    source: str
    references: tuple[tuple[str, Source], ...] = ()
    problem: str | None = None
    state: FileState | None = None
    place: str | None = None
    stems: tuple[str, ...] | None = None
    keeps: bool = False
    replaces: bool = False
