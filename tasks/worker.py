"""What a worker process is set up with: its threads, its resident separator, its deadlines."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from storage.files.location import sweep_scratch
from tasks.settings import ModelRequest

if TYPE_CHECKING:
    from model.separation.foreign import ForeignSeparator
    from model.separation.stream import Separator

log = logging.getLogger("unbraid.worker")

_is_worker = False


def prepare(request: ModelRequest | None, threads: int) -> None:
    """Set this worker process up: its torch threads, its scratch folder, its resident separator.

    Args:
        request: The separator to load; None where the work needs none.
        threads: How many threads torch uses in this process.

    Raises:
        RegistryError: The model is unknown or damaged.
        ModelError: The model cannot be loaded, or its device or precision is not available here.
    """
    import torch

    torch.set_num_threads(threads)
    sweep_scratch()
    if request is not None:
        resident_separator(request)


@lru_cache(maxsize=1)
def resident_separator(request: ModelRequest) -> Separator | ForeignSeparator:
    """The process's separator, loaded at the first call with a request and kept.

    Args:
        request: The model, its device and its precision; another request replaces the separator kept.

    Raises:
        RegistryError: The model is unknown or damaged.
        ModelError: The model cannot be loaded, or its device or precision is not available here.
    """
    from tasks.loading import load_separator

    log.info("loading %s in process %d", request.model, os.getpid())
    return load_separator(request.model, device=request.device, precision=request.precision)


@contextlib.contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """End this worker process when the body takes longer, also inside C code that never returns.

    The scheduler sees a lost worker and the fan-out records the track. Outside a worker, where
    the process is the user's, there is no deadline.

    Args:
        seconds: How long the body may take; None or 0 for no limit.
    """
    if not seconds or not in_worker():
        yield
        return
    with open(os.devnull, "w") as sink:  # a stack trace on the user's screen explains nothing to them
        faulthandler.dump_traceback_later(seconds, exit=True, file=sink)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def unseen(paths: list[str]) -> list[str]:
    """Those of some paths that this machine does not see.

    Args:
        paths: Absolute paths of files and folders on a disk that machines share; no URLs.
    """
    return [path for path in paths if not os.path.exists(path)]


def mark_as_worker() -> None:
    """This process is a worker, though no Dask worker runs in it."""
    global _is_worker
    _is_worker = True


def in_worker() -> bool:
    """Is this a worker process, which may be ended without harm to anybody?"""
    if _is_worker:
        return True
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True
