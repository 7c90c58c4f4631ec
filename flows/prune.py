"""What no catalog lists any more leaves an output: its stems and its rows."""

import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from flows.running.commit import clear_abandoned
from flows.running.plan import Planner
from flows.running.record import recorded
from flows.settings import PruneOptions
from storage import runs
from storage.errors import CatalogError, MetricsError
from storage.files.layout import OutputLayout
from storage.files.location import absolute_sources, is_url, location, not_written
from storage.results.done import Target, done_tracks
from storage.results.hash_set import HashSet
from storage.results.metrics import row_files
from storage.results.pruning import SeparatedSource, count_tracks, remove_tracks, unlisted_tracks
from storage.sources.catalog import MANIFESTS, stream_catalog

# The share of an output's tracks that an unwatched run may remove: more suggests a disk that is not mounted.
_MOST_UNWATCHED = 0.5


@dataclass(frozen=True)
class PruneSummary:
    """What was removed or, without confirmation, would be.

    Attributes:
        out: The output.
        tracks: The ids of the tracks that go.
        stems: How many of their files were deleted; None where nothing was.
        kept: How many other tracks are not listed either but stay: their files exist, or belong to other catalogs.
    """

    out: str
    tracks: tuple[str, ...]
    stems: int | None
    kept: int


def prune(options: PruneOptions) -> PruneSummary:
    """Find the tracks of an output that its catalogs no longer list, and remove them where `options.yes` is set.

    Args:
        options: The output, its catalogs, and what to do with the tracks.

    Returns:
        What was removed or would be.

    Raises:
        CatalogError: A catalog cannot be listed completely, or lists nothing without `options.empty`: then nothing is
            removed.
        MetricsError: The output has no rows, or another run is writing to it.
        OutputError: A file cannot be deleted.
    """
    out = OutputLayout(location(options.out))
    if not row_files(out):
        raise MetricsError(f"{options.out} has no rows of separated tracks; check the folder")
    listed = _listed(options, Planner(done_tracks(out, Target("", (), ()))))
    gone, kept = _unlisted(options, out, listed)
    names = tuple(track.track_id for track in gone)
    if not options.yes or not gone:
        return PruneSummary(options.out, names, None, kept)
    clear_abandoned(out)
    run_id = runs.new_run_id("prune")
    with recorded(out, run_id, options.values()):
        stems = _remove(out, gone)
        runs.end(out, run_id, runs.COMPLETED, {"tracks": list(names), "stems": stems, "kept": kept})
    return PruneSummary(options.out, names, stems, kept)


def prune_unwatched(options: PruneOptions, listed: HashSet, unseen: str | None = None) -> int:
    """Remove what is no longer listed, in the middle of a run over the same output.

    Args:
        options: The output and its catalogs; `yes` is not needed.
        listed: The ids of all tracks that the catalogs list, by their names in the output, as the run has planned them.
        unseen: Why a part of the catalogs could not be listed, None where all of it was.

    Returns:
        How many tracks went.

    Raises:
        CatalogError: A part of the catalogs could not be listed, or more than half of the output's tracks would go:
            then nothing is removed.
        OutputError: A file cannot be deleted.
    """
    if unseen:
        raise CatalogError(f"{unseen}; nothing is removed as long as a part of {options.source} is not seen")
    out = OutputLayout(location(options.out))
    gone, _ = _unlisted(options, out, listed)
    every = count_tracks(out)
    if len(gone) > _MOST_UNWATCHED * every:
        raise CatalogError(
            f"{len(gone)} of {every} tracks of {options.out} are no longer in the catalog, which is more than --prune "
            "removes; if that is right, remove them with `unbraid prune`"
        )
    if gone:
        _remove(out, gone)
    return len(gone)


def _remove(out: OutputLayout, gone: list[SeparatedSource]) -> int:
    try:
        return remove_tracks(out, gone)
    except OSError as error:
        raise not_written(out.root, error) from error


def _unlisted(options: PruneOptions, out: OutputLayout, listed: HashSet) -> tuple[list[SeparatedSource], int]:
    """The tracks that go, and how many others are not listed either."""
    unlisted = list(unlisted_tracks(out, listed))
    below = [prefix for source in absolute_sources(options.source) if (prefix := _prefix(source))]
    gone = [track for track in unlisted if options.unlisted or _is_gone(track, below)]
    return gone, len(unlisted) - len(gone)


def _listed(options: PruneOptions, planner: Planner) -> HashSet:
    """The ids of all tracks that the sources list, by their names in the output. Raises CatalogError."""
    listed = HashSet()
    for source in absolute_sources(options.source):
        tracks = stream_catalog(source, allow_http=options.allow_http)
        try:
            tracks = chain([next(tracks)], tracks)
        except CatalogError as error:
            if options.empty:
                continue
            raise CatalogError(f"{error}; nothing is removed (--empty where it is meant to be empty)") from error
        for track in planner.named(tracks):
            if track.problem:
                raise CatalogError(f"{track.problem}; nothing is removed while a part of {source} cannot be read")
            listed.add(track.track_id)
    return listed


def _prefix(source: str) -> str | None:
    """What the paths of all tracks of a source begin with, None where that is not known."""
    if is_url(source):
        return f"{source.rstrip('/')}/"
    path = Path(source)
    if path.suffix.lower() in MANIFESTS and path.is_file():
        path = path.parent
    return f"{path}/" if path.is_dir() else None


def _is_gone(track: SeparatedSource, below: list[str]) -> bool:
    """Is a track's source one of those that were listed, and no longer there?"""
    source = track.source or ""
    if not source.startswith(tuple(below)):
        return False
    if is_url(source):
        return not location(source).exists()
    return "\\x" not in source and not os.path.lexists(source)  # a name that is not UTF-8 is not written as it is
