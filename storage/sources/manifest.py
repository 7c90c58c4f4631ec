"""Manifests: tables that list a catalog's tracks."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

from storage.errors import CatalogError
from storage.files.layout import shown
from storage.files.location import is_url, location, object_at
from storage.sources.datasets import STEMS, Source
from storage.sources.track import CatalogTrack

MANIFESTS = (".csv", ".parquet")
# Whoever writes a manifest must not choose which servers this machine talks to: beside files it may name objects of
# stores, to which the user has keys.
_STORES = re.compile("(s3a?|gs|gcs|az|abfss?|adl|oss|oci|swift|memory)://", re.IGNORECASE)
_ROWS = 1000  # that are read at a time
_NOT_PLAIN = {"", ".", ".."}  # parts of a path that pathlib does something about


def manifest_tracks(manifest: Path, allow_http: bool) -> Iterator[CatalogTrack]:
    """The tracks that a manifest lists.

    Args:
        manifest: A CSV or Parquet file with the column `path`, and optionally `track_id` and one per reference stem;
            paths are relative to the manifest.
        allow_http: Whether it may name sources on other servers than object stores.

    Returns:
        The tracks as a stream, in the manifest's order, even if one comes twice.

    Raises:
        CatalogError: The manifest cannot be read, lacks a path, or names what it may not.
    """
    folder, number = _prefix(manifest.parent), 0
    for columns in _columns(manifest):
        stems = [stem for stem in STEMS if stem in columns]
        ids = columns.get("track_id") or [None] * len(columns["path"])
        for value, given, *values in zip(columns["path"], ids, *(columns[stem] for stem in stems), strict=True):
            number += 1
            name = _text(value)
            if not name:
                raise CatalogError(f"{manifest} has no path in row {number}; every row needs one")
            texts = [(stem, text) for stem, each in zip(stems, values, strict=True) if (text := _text(each))]
            web = None if allow_http else _on_other_servers([name, *(text for _, text in texts)] if texts else [name])
            if web:
                raise CatalogError(f"{manifest} names {web} in row {number}; give --allow-http to fetch what it names")
            source, place = _source_and_place(folder, name)
            references = [(stem, Source(_source_and_place(folder, text)[0])) for stem, text in texts]
            relative = shown(place)
            yield CatalogTrack(_text(given) or relative, relative, source, tuple(references))


def _on_other_servers(names: list[str]) -> str | None:
    """The first of these names that is a URL and not one of an object store."""
    for name in names:
        if is_url(name) and not _STORES.match(name):
            return name
    return None


def _prefix(folder: Path) -> str:
    """What a folder's name and a slash are before a name in it: "" for the current folder."""
    return "" if str(folder) == "." else os.path.join(str(folder), "")


def _text(value: object) -> str:
    """A manifest's value as text: ids may be numbers, which a column with gaps makes fractions of (7.0)."""
    if isinstance(value, str):
        return value.strip()
    if value is None or value != value:
        return ""
    if isinstance(value, bytes):  # a column of bytes, which file names are
        return os.fsdecode(value).strip()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _source_and_place(folder: str, name: str) -> tuple[str, str]:
    """What a manifest names, and its place in the catalog.

    Args:
        folder: The manifest's folder, as `_prefix` gives it.
        name: The name in the manifest, without blanks at its ends.

    Returns:
        (the file or URL; the name as it is, or the complete path where that leads elsewhere).
    """
    if is_url(name):
        source = location(name)
        return str(source), object_at(source)[1].lstrip("/")
    if _NOT_PLAIN.isdisjoint(name.split("/")):  # nearly all, and pathlib takes ten times as long
        return folder + name, name
    source, path = location(folder) / name, PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return str(source), (object_at(source)[1] if is_url(source) else source.resolve().as_posix()).lstrip("/")
    return str(source), str(path)


def _columns(manifest: Path) -> Iterator[dict[str, Sequence[object]]]:
    """A manifest's rows, some at a time, as columns: `path`, and whichever others it has."""
    if manifest.suffix.lower() == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            with manifest.open("rb") as raw, pyarrow.parquet.ParquetFile(raw) as opened:
                names = opened.schema_arrow.names
                if "path" not in names:
                    raise CatalogError(f"{manifest} has no column 'path'; it has {', '.join(names)}")
                columns = [name for name in ("path", "track_id", *STEMS) if name in names]
                for batch in opened.iter_batches(batch_size=_ROWS, columns=columns):
                    yield batch.to_pydict()
        except (OSError, pyarrow.ArrowException) as error:
            raise CatalogError(f"{manifest} is not a readable Parquet file ({error})") from error
        return
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            names = next(rows, [])
            if "path" not in names:
                header = ", ".join(names) or "none"
                raise CatalogError(f"{manifest} has no column 'path' in its first line; it has {header}")
            lines = filter(None, rows)
            while block := list(islice(lines, _ROWS)):
                if any(len(row) != len(names) for row in block):
                    block = [(row + [""] * len(names))[: len(names)] for row in block]
                yield dict(zip(names, zip(*block, strict=True), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise CatalogError(f"{manifest} is not a CSV file in UTF-8 ({error})") from error
