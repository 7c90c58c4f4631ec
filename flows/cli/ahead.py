"""Worker processes that start before the flow's modules are imported: importing torch takes them longer than that."""

import contextlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager

from flows.running.cluster import MASHING, SEPARATING
from flows.running.environment import WORKERS, is_quiet
from flows.running.processes import spare_processes
from flows.settings import Workers
from storage.files.layout import OutputLayout
from storage.files.location import is_url, location
from tasks.cores import available_cores


def separating_ahead(tracks: int, options: Workers, out: str) -> AbstractContextManager[None]:
    """Start worker processes where there is something to separate.

    Args:
        tracks: How many tracks there are at least; no more processes than that are started.
        options: How many processes are allowed. None are started where a Dask scheduler's workers are used instead.
        out: The output. Nothing is started where it has been written to before, since all may be done.

    Returns:
        A context. What the flow has not taken in its body is ended with it.
    """
    elsewhere = options.dask or os.environ.get("UNBRAID_DASK")
    if not tracks or elsewhere or is_url(out) or OutputLayout(location(out)).runs.exists():
        return contextlib.nullcontext()
    return _spare(min(tracks, options.workers or available_cores()), SEPARATING)


def mashing_ahead() -> AbstractContextManager[None]:
    """Start the process that will make a mash-up.

    Returns:
        A context, as that of `separating_ahead`.
    """
    return _spare(1, MASHING)


def _spare(count: int, modules: Sequence[str]) -> AbstractContextManager[None]:
    return spare_processes(count, environment=WORKERS, modules=modules, quiet=is_quiet())
