"""What a worker process is set up with: its threads, its resident separator, its deadlines."""

import contextlib
import faulthandler
import logging
import os
from collections.abc import Iterator
from functools import lru_cache

from distributed import WorkerPlugin, get_worker

from model.separation.foreign import ForeignSeparator
from model.separation.stream import Separator
from storage.files.location import sweep_scratch
from tasks.settings import ModelRequest

log = logging.getLogger("unbraid.worker")


class ResidentModel(WorkerPlugin):
    """A Dask worker plugin that loads the separator when the process starts, and again after a restart.

    `quiet` silences what C libraries print, for worker processes that share the user's screen.
    """

    name = "unbraid-resident-model"

    def __init__(self, request: ModelRequest | None, threads: int, *, quiet: bool = False) -> None:
        self._request = request
        self._threads = threads
        self._quiet = quiet

    def setup(self, worker) -> None:
        import torch

        torch.set_num_threads(self._threads)
        sweep_scratch()
        if self._quiet and not os.environ.get("UNBRAID_DEBUG"):
            # Decoders write their notes on bad files straight to the screen; the rows say what matters.
            with open(os.devnull, "w") as sink:
                os.dup2(sink.fileno(), 2)
        if self._request is not None:
            resident_separator(self._request)


@lru_cache(maxsize=1)
def resident_separator(request: ModelRequest) -> Separator | ForeignSeparator:
    """The process's separator, loaded at the first call with a request and kept."""
    from tasks.loading import load_separator

    log.info("loading %s in process %d", request.model, os.getpid())
    return load_separator(request.model, device=request.device, precision=request.precision)


@contextlib.contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """End this worker process when the body takes longer, also inside C code that never returns.

    The scheduler sees a lost worker and the fan-out records the track. Outside a Dask worker, where
    the process is the user's own, there is no deadline.
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


def in_worker() -> bool:
    try:
        get_worker()
    except ValueError:
        return False
    return True
