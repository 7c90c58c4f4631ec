"""Catalogs: which tracks there are to separate, from a file, a folder, a dataset or a manifest."""

import fnmatch
import functools
import glob
import itertools
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from storage.audio.reader import EXTENSIONS
from storage.errors import CatalogError, DatasetError
from storage.files.fingerprint import FileState
from storage.files.layout import MARKER, OUTPUT_FOLDERS, shown
from storage.files.location import is_url, location, object_at
from storage.sources.datasets import DatasetTrack, Source, discover, recognise
from storage.sources.manifest import MANIFESTS, manifest_tracks
from storage.sources.track import CatalogTrack

__all__ = ["MANIFESTS", "CatalogTrack", "from_dataset", "list_catalog", "stream_catalog"]

log = logging.getLogger("unbraid.catalog")

_NOT_THERE = "{} is not there; give an audio file, a folder, a glob, or a .csv or .parquet manifest"
_STEM_MP4 = ".stem.mp4"
_STEM_MP4_REFERENCES = (("drums", 1), ("bass", 2), ("other", 3), ("vocals", 4))


def list_catalog(source: str | os.PathLike, *, allow_http: bool = False) -> list[CatalogTrack]:
    """List every track of a catalog, sorted by path.

    Args:
        source: An audio file, a folder, a glob or a manifest; a path or a URL.
        allow_http: Whether a manifest may name sources on other servers than object stores, as by http://.

    Raises:
        CatalogError: There is nothing there, no track in it, or a manifest is malformed.
    """
    return sorted(stream_catalog(source, allow_http=allow_http), key=lambda track: track.path)


def stream_catalog(source: str | os.PathLike | Sequence[str], *, allow_http: bool = False) -> Iterator[CatalogTrack]:
    """The tracks of a catalog one by one, each path once, in the same order each time: a file, a folder, a glob
    or a manifest, here or in an object store. Nothing of it is kept but a folder at a time and a manifest's hashes,
    so a million tracks need no memory.

    Args:
        source: What to list. Several sources come one after the other; no two tracks of them may have one path.
        allow_http: Whether a manifest may name sources on other servers than object stores, as by http://, which are
            then fetched.

    Raises:
        CatalogError: There is nothing there, no track in it, or a manifest is malformed.
    """
    if not isinstance(source, (str, os.PathLike)):
        each = (stream_catalog(one, allow_http=allow_http) for one in source)
        yield from _once(itertools.chain.from_iterable(each), "the command")
        return
    root = location(source)
    if is_url(root):
        tracks, empty = _in_store(root, allow_http)
    elif root.is_dir():
        tracks = iter(_dataset(root) or _walk(root))
        empty = f"{root} holds no audio files ({', '.join(sorted(EXTENSIONS))})"
    elif root.suffix.lower() in MANIFESTS and root.exists():
        tracks, empty = _once(manifest_tracks(root, allow_http), root), f"the manifest {root} lists no tracks"
    elif root.exists() or root.is_symlink():
        tracks, empty = iter([_track(root, root.name)]), ""
    elif glob.has_magic(str(root)):
        tracks, empty = _matching(root), f"nothing matches {root}"
    else:
        raise CatalogError(_NOT_THERE.format(root))
    first = next(tracks, None)
    if first is None:
        raise CatalogError(empty)
    yield first
    yield from tracks


def _once(tracks: Iterator[CatalogTrack], source: Path | str) -> Iterator[CatalogTrack]:
    """The tracks of a manifest, as long as no path and no id comes twice; hashes of them are remembered."""
    both: set[int] = set()  # paths that are their tracks' ids too, as nearly all are
    paths: set[int] = set()
    ids: set[int] = set()
    for number, track in enumerate(tracks, start=1):
        path, track_id = hash(track.path), hash(track.track_id)
        if path in both or path in paths:
            raise _twice(source, track.path, number)
        if track_id in both or track_id in ids:
            raise _twice(source, f"the track_id {track.track_id}", number)
        if path == track_id:
            both.add(path)
        else:
            paths.add(path)
            ids.add(track_id)
        yield track


def _twice(source: Path | str, name: str, number: int) -> CatalogError:
    return CatalogError(f"{source} lists {name} more than once, again as number {number}; name each track once")


def _matching(pattern: Path) -> Iterator[CatalogTrack]:
    """Audio files that match a glob (** goes through folders), by their place below its fixed part.

    The folders are walked, each once, since Python's own glob follows a link to a folder above without end.
    """
    parts = pattern.parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    base, wild = Path(*parts[:fixed]), parts[fixed:]
    for path in _files(base, deep=None if "**" in wild else len(wild)):
        relative = path.relative_to(base)
        if _fits(relative.parts, wild) and path.is_file():
            yield _track(path, relative.as_posix())


def _fits(names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Does a path of these names match a glob of these parts?"""
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_fits(names[start:], parts[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _in_store(root: Path, allow_http: bool) -> tuple[Iterator[CatalogTrack], str]:
    """The tracks at a URL, and the sentence that says there are none. Raises CatalogError."""
    try:
        if glob.has_magic(object_at(root)[1]):
            return _matching_objects(root), f"nothing matches {root}"
        if root.suffix.lower() in MANIFESTS:
            return _once(manifest_tracks(root, allow_http), root), f"the manifest {root} lists no tracks"
        if root.is_file():
            return iter([_track(root, root.name, _state(root))]), ""
        if not root.exists():
            raise CatalogError(_NOT_THERE.format(root))
    except CatalogError:
        raise
    except Exception as error:  # each store's package raises errors of its own
        raise CatalogError(f"{root} cannot be listed ({error}); check the store and your permissions") from error
    return _walk_store(root), f"{root} holds no audio files ({', '.join(sorted(EXTENSIONS))})"


def _state(root: Path) -> FileState:
    store, key = object_at(root)
    return FileState.of_object(store.info(key))


def _matching_objects(pattern: Path) -> Iterator[CatalogTrack]:
    store, key = object_at(pattern)
    fixed = re.split(r"[*?\[]", key)[0].rpartition("/")[0]
    for path, entry in sorted(store.glob(key, detail=True).items()):
        name = path.rpartition("/")[2]
        if entry["type"] == "file" and Path(name).suffix.lower() in EXTENSIONS and not name.startswith("."):
            yield _track(location(store.unstrip_protocol(path)), path.removeprefix(f"{fixed}/"),
                         FileState.of_object(entry))  # fmt: skip


def _walk_store(root: Path) -> Iterator[CatalogTrack]:
    """The audio objects below a prefix, one listing per "folder"; a folder's own objects come before its folders'."""
    store, key = object_at(root)
    folders = [key.rstrip("/")]
    base = len(folders[0]) + 1
    while folders:
        deeper = []
        folder = folders.pop()
        entries = sorted(store.ls(folder, detail=True), key=lambda entry: entry["name"])
        output = any(entry["name"].endswith(f"/{MARKER}") for entry in entries)
        if output and folder != key.rstrip("/"):
            _pass_over(store.unstrip_protocol(folder))
            continue
        for entry in entries:
            name = entry["name"].rstrip("/").rpartition("/")[2]
            if name.startswith(".") or (output and name in OUTPUT_FOLDERS):
                continue
            if entry["type"] == "directory":
                deeper.append(entry["name"].rstrip("/"))
            elif Path(name).suffix.lower() in EXTENSIONS:
                url = location(store.unstrip_protocol(entry["name"]))
                yield _track(url, entry["name"][base:], FileState.of_object(entry))
        folders += reversed(deeper)


def _track(path: Path, relative: str, state: FileState | None = None) -> CatalogTrack:
    references: tuple[tuple[str, Source], ...] = ()
    if path.name.lower().endswith(_STEM_MP4):
        references = tuple((stem, Source(str(path), stream)) for stem, stream in _STEM_MP4_REFERENCES)
    return CatalogTrack(shown(relative), shown(relative), str(path), references, state=state)


def _walk(root: Path) -> Iterator[CatalogTrack]:
    """The audio files below a folder, one folder at a time; a folder's own files come before its folders'."""
    for path in _files(root):
        relative = path.relative_to(root).as_posix()
        problem = None
        if path.is_dir() and (path.suffix.lower() not in EXTENSIONS or _holds_audio(path)):
            problem = f"the folder {path} cannot be listed; check its permissions"
        yield replace(_track(path, relative), problem=problem) if problem else _track(path, relative)


def _files(root: Path, *, deep: int | None = None) -> Iterator[Path]:
    """Whatever is named as audio below a folder, in the same order each time, and folders that cannot be listed.

    Each folder is listed once, whatever links lead to it. Outputs of ours are passed over.

    Args:
        root: The folder.
        deep: How many names a path may have below it; None for any number.
    """
    folders, seen = [root], set()
    while folders:
        folder = folders.pop()
        try:
            identity = os.stat(folder)
            if (identity.st_dev, identity.st_ino) in seen:  # a link back up would never end
                continue
            seen.add((identity.st_dev, identity.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            yield folder
            continue
        output = any(entry.name == MARKER for entry in entries)
        if output and folder != root:
            _pass_over(shown(folder))
            continue
        deeper = []
        for entry in entries:
            if entry.name.startswith(".") or (output and entry.name in OUTPUT_FOLDERS):
                continue
            path = Path(entry.path)
            is_folder = _is_folder(entry)
            if is_folder and entry.is_symlink() and (outside := _output_around(path)):
                _pass_over(shown(outside))
                continue
            if is_folder and (deep is None or len(path.relative_to(root).parts) < deep):
                deeper.append(path)
            if path.suffix.lower() in EXTENSIONS and (not is_folder or not _holds_audio(path)):
                yield path
        folders += reversed(deeper)


@functools.lru_cache(maxsize=1000)
def _pass_over(folder: str) -> None:
    """Say it, once: a catalog is read more than once."""
    log.warning("%s is an output of unbraid and is skipped", folder)


def _output_around(link: Path) -> Path | None:
    """The output of whose folders of stems the folder is one that a link leads to; None where it is in none."""
    real = link.resolve()
    inside = (folder for folder in real.parents if real.relative_to(folder).parts[0] in OUTPUT_FOLDERS)
    return next((folder for folder in inside if (folder / MARKER).exists()), None)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _holds_audio(folder: Path) -> bool:
    """A folder called "Live.wav" with songs in it is a folder; an empty one was meant to be a song."""
    try:
        return any(Path(name).suffix.lower() in EXTENSIONS for name in os.listdir(folder))
    except OSError:
        return False


def _dataset(root: Path) -> list[CatalogTrack] | None:
    """The mixtures of a multitrack dataset with their stems as references; None where `root` is a plain folder.

    Only where every audio file below belongs to the dataset: nothing in a catalog is passed over.
    """
    try:
        kind = recognise(root)
        if kind not in ("dsd100", "musdb18hq", "stems"):
            return None
        tracks = discover(root, kind=kind)
    except DatasetError:
        return None
    belonging = {source.path for t in tracks for source in (*t.stems.values(), *([t.mixture] if t.mixture else []))}
    audio = {str(path) for path in _files(root)}
    if audio != belonging or any(track.mixture is None for track in tracks):
        return None
    return [from_dataset(track, root) for track in tracks]


def from_dataset(track: DatasetTrack, root: Path) -> CatalogTrack:
    """A dataset track as a catalog track: its mixture to separate, its stems to score against.

    Args:
        track: A track with a mixture.
        root: The dataset's folder, below which the track's place in the catalog begins.

    Raises:
        CatalogError: The track has no mixture.
    """
    if track.mixture is None:
        raise CatalogError(f"{track.track_id} has no mixture, so there is nothing to separate")
    path = shown(Path(track.mixture.path).relative_to(root).as_posix())
    return CatalogTrack(path, path, track.mixture.path, tuple(sorted(track.stems.items())))
