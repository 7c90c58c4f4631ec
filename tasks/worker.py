"""What a worker process is set up with: its threads, its resident separator, its deadlines."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, TextIO

from storage.files.location import sweep_scratch
from tasks.settings import ModelRequest

if TYPE_CHECKING:
    from model.separation.foreign import ForeignSeparator
    from model.separation.stream import Separator

log = logging.getLogger("unbraid.worker")

_is_worker = False
# Tracks of one process that share a GPU want its separator, and have their deadlines, at the same time.
_loading = threading.Lock()
_resident: dict[ModelRequest, Separator | ForeignSeparator] = {}
_watching = threading.Lock()
_ends: dict[object, float] = {}  # of `time.monotonic`, one per deadline that runs
_LOST_DEVICE = 70  # exit status


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


def resident_separator(request: ModelRequest) -> Separator | ForeignSeparator:
    """The process's separator, loaded at the first call with a request and kept.

    Args:
        request: The model, its device and its precision; another request replaces the separator kept.

    Raises:
        RegistryError: The model is unknown or damaged.
        ModelError: The model cannot be loaded, or its device or precision is not available here.
    """
    from tasks.loading import load_separator

    with _loading:
        if request not in _resident:
            log.info("loading %s in process %d", request.model, os.getpid())
            separator = load_separator(request.model, device=request.device, precision=request.precision)
            _resident.clear()
            _resident[request] = separator
        return _resident[request]


def run_separator(request: ModelRequest, model_id: str | None) -> Separator | ForeignSeparator:
    """`resident_separator` for a track of a run, whose model must be what it was when the run began.

    Args:
        request: The model, its device and its precision.
        model_id: The id that the run's rows name; None where there is no run.

    Raises:
        ModelLost: The model's file is gone, damaged, or has become another model.
        ModelError: The model's device or precision is not available here.
    """
    from model.errors import CheckpointError, PresetError
    from storage.errors import ModelLost, RegistryError

    try:
        separator = resident_separator(request)
    except (RegistryError, CheckpointError, PresetError) as error:
        raise ModelLost(str(error)) from error
    if model_id is not None and separator.model_id != model_id:
        raise ModelLost(
            f"{request.model} has become {separator.model_id}, and the run began with {model_id}; what is finished is "
            "kept: put the earlier weights back to go on, or run again with the new ones"
        )
    return separator


@contextlib.contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """End this worker process when the body takes longer, also inside C code that never returns.

    The scheduler sees a lost worker, and the fan-out tries what was in it again, track by track. Several threads may
    have a deadline at a time; the first to pass ends the process. Outside a worker, where the process is the user's,
    there is none.

    Args:
        seconds: How long the body may take; None or 0 for no limit.
    """
    if not seconds or not in_worker():
        yield
        return
    this = object()
    _watch(this, time.monotonic() + seconds)
    try:
        yield
    finally:
        _watch(this, None)


def _watch(deadline: object, end: float | None) -> None:
    """Set a deadline's end, or forget the deadline; faulthandler, which has one timer, waits for the first of all."""
    with _watching:
        if end is None:
            del _ends[deadline]
        else:
            _ends[deadline] = end
        if _ends:
            # A stack trace on the user's screen explains nothing to them.
            faulthandler.dump_traceback_later(
                max(1e-3, min(_ends.values()) - time.monotonic()), exit=True, file=_sink()
            )
        else:
            faulthandler.cancel_dump_traceback_later()


@lru_cache(maxsize=1)
def _sink() -> TextIO:
    return open(os.devnull, "w")  # open as long as a deadline may pass: for ever


def end_if_worker() -> None:
    """End this worker process, whose GPU has failed for good: another one in its place finds it as it should be."""
    if in_worker():
        os._exit(_LOST_DEVICE)


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
