"""Files that appear complete or not at all: a temporary name beside the target, then a rename; for an object of a
store a scratch file, then an upload.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from storage.files.location import is_url, make_folder, scratch_folder, upload

# Readers of a folder (pyarrow, duckdb, our own listings) pass over names that start with a dot.
PREFIX = ".unbraid-"
SUFFIX = ".tmp"


def temporary_beside(target: Path) -> Path:
    """Name a temporary file in `target`'s folder that no reader takes for a result; short, so long names still fit.

    Args:
        target: The file that the temporary one will become.

    Returns:
        The path of a file that does not exist yet.
    """
    return target.parent / f"{PREFIX}{uuid.uuid4().hex[:12]}{SUFFIX}"


@contextlib.contextmanager
def replacing(target: Path, *, durable: bool = False, staging: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path; on success it becomes `target`, on any error it is removed.

    Args:
        target: The file or object to write.
        durable: Flush file and folder to the disk first, so that the rename survives a power cut: worth its
            milliseconds for commit marks, not for every stem. Objects ignore it.
        staging: The folder of the temporary file, on the disk of `target`. Default: the target's own.

    Yields:
        The temporary path; the body writes the complete file there.

    Raises:
        OSError: The disk or the object store refuses the file.
    """
    if is_url(target):
        with scratch_folder() as folder:
            yield folder / target.name
            upload(folder / target.name, target)
        return
    make_folder(target.parent)
    temporary = temporary_beside(target)
    if staging is not None:
        make_folder(staging)
        temporary = temporary_beside(staging / target.name)
    try:
        yield temporary
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, target)
        if durable:
            _sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(target: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file or object that appears complete or not at all.

    Args:
        target: The file or object; its folder is made.
        data: Its complete content.
        durable: Flush to the disk before the file appears, as `replacing` does.

    Raises:
        OSError: The disk or the object store refuses the file.
    """
    with replacing(target, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_json(target: Path, value: object) -> None:
    """Write a value as indented JSON in UTF-8, durably; the file appears complete or not at all.

    Args:
        target: The file or object; its folder is made.
        value: Anything that `json.dumps` takes.

    Raises:
        OSError: The disk or the object store refuses the file.
    """
    write_bytes(target, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def remove_leftovers(folder: Path, *, deep: bool = True) -> int:
    """Delete temporary files that a killed process left in a folder; an object store has none.

    Args:
        folder: Where to search.
        deep: Whether to search the folders below, too.

    Returns:
        How many files were deleted.
    """
    count = 0
    if is_url(folder):
        return count
    pattern = f"{PREFIX}*{SUFFIX}"
    for path in folder.rglob(pattern) if deep else folder.glob(pattern):
        path.unlink(missing_ok=True)
        count += 1
    return count


def remove_empty(folder: Path, *, below: Path) -> None:
    """Delete a folder and its parents, as far as they are empty; an object store has none.

    Args:
        folder: The deepest folder to delete; it need not exist.
        below: The parent at which to stop; it stays even when it is empty.
    """
    while not is_url(folder) and folder != below and below in folder.parents:
        try:
            folder.rmdir()
        except OSError:  # not empty, or not there
            if folder.exists():
                return
        folder = folder.parent


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # folders cannot be opened for fsync elsewhere
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
