"""Catalogs: which tracks there are to separate, from a file, a folder, a dataset or a manifest."""

import csv
import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from storage.audio import EXTENSIONS
from storage.datasets import STEMS, DatasetTrack, Source, discover, recognise
from storage.errors import CatalogError, DatasetError
from storage.layout import shown

MANIFESTS = (".csv", ".parquet")
_STEM_MP4 = ".stem.mp4"
_STEM_MP4_REFERENCES = (("drums", 1), ("bass", 2), ("other", 3), ("vocals", 4))


@dataclass(frozen=True)
class CatalogTrack:
    """One track to separate.

    `path` is its place in the catalog, with forward slashes, and decides where its stems go; `source`
    is the file to read. `references` are (stem, source) pairs to score against. `problem` is a
    sentence where the track is known to be unreadable before anyone tries.
    """

    track_id: str
    path: str
    source: str
    references: tuple[tuple[str, Source], ...] = ()
    problem: str | None = None


def list_catalog(source: str | os.PathLike) -> list[CatalogTrack]:
    """Every track of a catalog, sorted by path. Raises what `stream_catalog` does."""
    return sorted(stream_catalog(source), key=lambda track: track.path)


def stream_catalog(source: str | os.PathLike) -> Iterator[CatalogTrack]:
    """The tracks of a catalog one by one, each path once, in the same order each time: a file, a folder, a glob
    or a manifest. Nothing of it is kept but a manifest's hashes, so a million tracks need no memory.

    Raises CatalogError when there is nothing there, no track in it, or a manifest is malformed.
    """
    root = Path(source).expanduser()
    if root.is_dir():
        found = iter(_dataset(root) or _walk(root))
        empty = f"{root} holds no audio files ({', '.join(sorted(EXTENSIONS))})"
    elif root.suffix.lower() in MANIFESTS and root.exists():
        found, empty = _once(_manifest(root), root), f"the manifest {root} lists no tracks"
    elif root.exists() or root.is_symlink():
        found, empty = iter([_track(root, root.name)]), ""
    elif glob.has_magic(str(root)):
        found, empty = _matching(root), f"nothing matches {root}"
    else:
        raise CatalogError(f"{root} is not there; give an audio file, a folder, a glob, or a .csv or .parquet manifest")
    first = next(found, None)
    if first is None:
        raise CatalogError(empty)
    yield first
    yield from found


def _once(tracks: Iterator[CatalogTrack], source: Path) -> Iterator[CatalogTrack]:
    """The tracks, as long as no path comes twice; 8 bytes of each are remembered."""
    seen: set[int] = set()
    for track in tracks:
        key = hash(track.path)
        if key in seen:
            raise CatalogError(f"{source} lists {track.path} more than once; name each track once")
        seen.add(key)
        yield track


def _matching(pattern: Path) -> Iterator[CatalogTrack]:
    """Audio files that match a glob (** goes through folders), by their place below its fixed part."""
    fixed = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    base = Path(*fixed) if fixed else Path()
    for name in sorted(glob.iglob(str(pattern), recursive=True)):
        path = Path(name)
        if path.suffix.lower() in EXTENSIONS and path.is_file():
            yield _track(path, path.relative_to(base).as_posix())


def _track(path: Path, relative: str) -> CatalogTrack:
    references: tuple[tuple[str, Source], ...] = ()
    if path.name.lower().endswith(_STEM_MP4):
        references = tuple((stem, Source(str(path), stream)) for stem, stream in _STEM_MP4_REFERENCES)
    return CatalogTrack(shown(relative), shown(relative), str(path), references)


def _walk(root: Path) -> Iterator[CatalogTrack]:
    """The audio files below a folder, a folder at a time, each folder's own before those of its folders."""
    folders, seen = [root], set()
    while folders:
        folder = folders.pop()
        try:
            identity = os.stat(folder)
            if (identity.st_dev, identity.st_ino) in seen:  # a link back up would never end
                continue
            seen.add((identity.st_dev, identity.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            relative = shown(folder.relative_to(root).as_posix())
            yield CatalogTrack(
                relative, relative, str(folder), problem=f"the folder {folder} cannot be listed ({error.strerror})"
            )
            continue
        deeper = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            named_audio = path.suffix.lower() in EXTENSIONS
            if entry.is_dir():
                deeper.append(path)
            if named_audio and (not entry.is_dir() or not _holds_audio(path)):
                yield _track(path, path.relative_to(root).as_posix())
        folders += reversed(deeper)


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
    audio = {str(p) for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS and not p.name.startswith(".")}
    if audio != belonging or any(track.mixture is None for track in tracks):
        return None
    return [from_dataset(track, root) for track in tracks]


def from_dataset(track: DatasetTrack, root: Path) -> CatalogTrack:
    """A dataset track as a catalog track: its mixture to separate, its stems to score against."""
    path = shown(Path(track.mixture.path).relative_to(root).as_posix())
    return CatalogTrack(path, path, track.mixture.path, tuple(sorted(track.stems.items())))


def _manifest(manifest: Path) -> Iterator[CatalogTrack]:
    """Columns: path, and if wanted track_id and one per reference stem; paths are relative to the manifest."""
    for number, row in enumerate(_rows(manifest), start=1):
        name = (row.get("path") or "").strip()
        if not name:
            raise CatalogError(f"{manifest} has no path in row {number}; every row needs one")
        source = _beside(manifest, name)
        references = tuple(
            (stem, Source(str(_beside(manifest, row[stem])))) for stem in STEMS if (row.get(stem) or "").strip()
        )
        absolute = Path(name).is_absolute() or ".." in Path(name).parts
        relative = shown(source.resolve().as_posix().lstrip("/") if absolute else Path(name).as_posix())
        yield CatalogTrack((row.get("track_id") or relative).strip(), relative, str(source), references)


def _rows(manifest: Path) -> Iterator[dict]:
    if manifest.suffix.lower() == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(manifest) as opened:
                names = opened.schema_arrow.names
                if "path" not in names:
                    raise CatalogError(f"{manifest} has no column 'path'; it has {', '.join(names)}")
                wanted = [name for name in ("path", "track_id", *STEMS) if name in names]
                for batch in opened.iter_batches(batch_size=10_000, columns=wanted):
                    yield from batch.to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise CatalogError(f"{manifest} is not a Parquet file that can be read ({error})") from error
        return
    try:
        with open(manifest, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "path" not in (reader.fieldnames or []):
                columns = ", ".join(reader.fieldnames or []) or "none"
                raise CatalogError(f"{manifest} has no column 'path' in its first line; it has {columns}")
            yield from reader
    except (UnicodeDecodeError, csv.Error) as error:
        raise CatalogError(f"{manifest} is not a CSV file in UTF-8 ({error})") from error


def _beside(manifest: Path, name: str) -> Path:
    return manifest.parent / name.strip()
