"""Where things lie: a path of this machine, or a URL of an object store. Both are used as pathlib's Path.

A URL's scheme decides (s3://bucket/key, or any other that fsspec has a package for). An object appears complete, when
its upload ends, or not at all; what must be a local file while it is read is fetched into a scratch folder.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import psutil

from storage.errors import OutputError, StorageError

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_SCRATCH = "unbraid-scratch-"


def is_url(name: str | os.PathLike) -> bool:
    """Is this a URL of an object store rather than a path of this machine?

    Args:
        name: A path or URL; file:// URLs count as paths.
    """
    text = str(name)
    return "://" in text and bool(_URL.match(text)) and not text.startswith("file://")


def location(name: str | os.PathLike) -> Path:
    """Turn a name into a Path for this machine, or into a universal path with the same methods for a URL.

    Args:
        name: A path (~ is the user's folder), a file:// URL, or a URL of an object store.

    Raises:
        StorageError: No installed package knows the URL's scheme.
    """
    if not is_url(name):
        return Path(str(name).removeprefix("file://")).expanduser()
    from upath import UPath

    try:
        # A listing that was kept would hide what another machine has written since.
        options: dict[str, Any] = {"use_listings_cache": False} if str(name).startswith("s3://") else {}
        return cast(Path, UPath(str(name), **options))  # not a subclass, but with the methods that are used here
    except (ImportError, ValueError) as error:
        scheme = str(name).split("://", 1)[0]
        raise StorageError(
            f"{name} cannot be opened: no installed package knows {scheme}:// ({error}); install one, "
            "for s3 unbraid[s3]"
        ) from error


def absolute(name: str | os.PathLike) -> str:
    """The name that means the same in every working folder.

    Args:
        name: A path or URL.

    Returns:
        The absolute path with links resolved, or the URL as it is.
    """
    return str(name) if is_url(name) else str(location(name).resolve())


def absolute_sources(names: str | Sequence[str]) -> list[str]:
    """One or several sources by names that mean the same in every working folder.

    Unlike `absolute` it keeps links: a track is called by the path it was given by, not by where that leads.

    Args:
        names: A path, glob or URL, or several.

    Returns:
        Absolute paths and globs; URLs as they are.
    """
    several = [names] if isinstance(names, str) else names
    return [name if is_url(name) else os.path.abspath(os.path.expanduser(name)) for name in several]


def object_at(path: Path) -> tuple[Any, str]:
    """The fsspec file system that holds an object, and the object's key in it.

    Args:
        path: The `location` of a URL.

    Returns:
        (file system, key).

    Raises:
        StorageError: The package that knows the URL's scheme cannot open it.
    """
    url: Any = path
    try:
        return url.fs, url.path
    except Exception as error:  # each store's package raises errors of its own
        raise StorageError(f"{path} cannot be opened ({error}); check the address and your rights there") from error


def make_folder(folder: Path) -> None:
    """Make a folder and its parents; an object store needs none.

    Args:
        folder: A `location`; it may exist already.
    """
    if not is_url(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def local_file(path: Path) -> Iterator[Path]:
    """Give the body a local file: the file itself, or a copy of an object in a scratch folder that ends with the body.

    Args:
        path: The `location` of a file or object.

    Yields:
        The path of the local file. A local file is not checked: it may be missing.

    Raises:
        StorageError: The object does not exist or cannot be fetched.
    """
    if not is_url(path):
        yield path
        return
    with scratch_folder() as folder:
        copy = folder / path.name
        try:
            store, key = object_at(path)
            store.get_file(key, str(copy))
        except FileNotFoundError as error:
            raise StorageError(f"{path} is not there; it may have been moved since the catalog was listed") from error
        except Exception as error:  # each store's package raises errors of its own
            raise StorageError(f"{path} cannot be fetched ({error}); check the store and your permissions") from error
        yield copy


def upload(source: Path, target: Path) -> None:
    """Make a local file an object, which becomes visible complete or not at all.

    Args:
        source: The local file.
        target: The `location` of the object's URL.

    Raises:
        OSError: The store refuses it.
    """
    try:
        store, key = object_at(target)
        store.put_file(str(source), key)
    except OSError:
        raise
    except Exception as error:
        raise OSError(5, f"the store refused it ({error})", str(target)) from error


def not_written(out: str | os.PathLike, error: OSError | str) -> OutputError:
    """The error that ends a run because its output cannot be written: names the disk, and what to do.

    Args:
        out: The output folder or URL.
        error: What went wrong; the sentence quotes it.
    """
    reason = error if isinstance(error, str) else error.strerror or str(error)
    disk = ""
    if not is_url(out):
        folder = Path(out)
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        with contextlib.suppress(OSError):
            disk = f"; the disk of {folder} has {shutil.disk_usage(folder).free / 1e6:.0f} MB free"
    return OutputError(
        f"{out} cannot be written ({reason}){disk}; free some space, check that it exists and is writable, or choose "
        "another --out, and run again: what is finished is kept"
    )


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder that is deleted with its content when the body ends.

    It is named after this process, so that `sweep_scratch` knows when nobody needs it.

    Yields:
        The empty folder.
    """
    with tempfile.TemporaryDirectory(prefix=f"{_SCRATCH}{os.getpid()}-") as folder:
        yield Path(folder)


def sweep_scratch() -> None:
    """Delete scratch folders whose process was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        owner = folder.name.removeprefix(_SCRATCH).split("-", 1)[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
