"""Has a source file changed since it was read?"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from storage.files.location import is_url, location, object_at

ABSENT = "absent"


@dataclass(frozen=True)
class FileState:
    """What a listing says of a file.

    `size` is in bytes, `modified` in seconds since 1970 (None where a store does not say). `mark` changes with the
    content: the modification time in nanoseconds, or an object's ETag.
    """

    size: int
    modified: float | None
    mark: str

    @property
    def fingerprint(self) -> str:
        return f"{self.size:x}-{self.mark}"

    @classmethod
    def of_file(cls, status: os.stat_result) -> "FileState":
        """Read the state of a local file.

        Args:
            status: The result of `os.stat` for the file.
        """
        return cls(status.st_size, status.st_mtime, f"{status.st_mtime_ns:x}")

    @classmethod
    def of_object(cls, entry: Mapping) -> "FileState":
        """Read the state of an object from fsspec's entry, whose names differ from store to store.

        Args:
            entry: What fsspec's `info`, `ls` or `glob` with details says of the object.
        """
        told = (entry.get(name) for name in ("LastModified", "mtime", "updated", "created"))
        modified: Any = next((when for when in told if when), None)
        seconds = modified.timestamp() if hasattr(modified, "timestamp") else modified
        mark = entry.get("ETag") or entry.get("etag") or entry.get("md5Hash") or seconds
        return cls(int(entry.get("size") or 0), seconds, str(mark).strip('"'))


def look(path: str | os.PathLike) -> FileState | None:
    """Read the state of a file or object.

    A stat call or a listing, not a hash of the bytes: a million tracks are planned in seconds.

    Args:
        path: File or URL.

    Returns:
        The state, or None where it cannot be read.
    """
    try:
        if not is_url(path):
            return FileState.of_file(os.stat(path))
        store, key = object_at(location(path))
        return FileState.of_object(store.info(key))
    except Exception:  # each store's package raises errors of its own
        return None


def fingerprint(path: str | os.PathLike) -> str:
    """Condense the size and mark of a file into a short string.

    Args:
        path: File or URL.

    Returns:
        "<size in hexadecimal>-<mark>", or ABSENT where the state cannot be read.
    """
    state = look(path)
    return state.fingerprint if state else ABSENT


def joint_fingerprint(paths: Iterable[str | os.PathLike]) -> str:
    """Condense the paths and fingerprints of several files into one.

    Args:
        paths: Files or URLs, in any order.

    Returns:
        16 hexadecimal digits, which change when a file changes, moves, joins or leaves.
    """
    joined = "\n".join(f"{path}\0{fingerprint(path)}" for path in sorted(map(str, paths)))
    return hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest()[:16]
