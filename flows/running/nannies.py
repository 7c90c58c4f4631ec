"""The nannies of a cluster of this machine: each starts a Dask worker's process, and starts it again when it dies."""

import contextlib
import os
import signal
from collections.abc import Iterator

from flows.running.beat import beating

_LOOK_SECONDS = 2.0
_KILL_SECONDS = 2.0  # that the cluster's thread has for killing the workers


@contextlib.contextmanager
def killed_at_the_end(local) -> Iterator[None]:
    """Around a run on local workers: as it ends they are killed, in the middle of what they do.

    All results are in by then, or nobody wants them. Dask would ask each worker to close, wait for its task and for
    those that are only starting, and fail where one takes too long.

    Args:
        local: A `LocalCluster`.
    """
    try:
        yield
    finally:
        with contextlib.suppress(TimeoutError, RuntimeError):  # RuntimeError: the cluster's loop is closed
            local.sync(_kill_workers, local, callback_timeout=_KILL_SECONDS)


async def _kill_workers(local) -> None:
    """Kill all workers of a local cluster, those that are starting too; to be called in the cluster's loop."""
    from distributed.core import Status

    local.worker_spec.clear()  # or the cluster would start others
    for nanny in list(local._created):
        if nanny.status not in (Status.closing, Status.closed, Status.failed):
            nanny.close_gracefully()  # or it would start its worker again
        process = getattr(nanny.process, "process", None)
        if process is not None and process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def replenished(local, count: int) -> contextlib.AbstractContextManager[None]:
    """Around a run: start workers, and bring back those whose nanny gave up, as it does on one killed while it starts.

    Args:
        local: A `LocalCluster`.
        count: How many workers it is to have.
    """
    from distributed.core import Status

    def complete() -> None:
        for name, nanny in list(local.workers.items()):
            if nanny.status in (Status.failed, Status.closed):  # Dask would count it as a worker forever
                del local.workers[name]
                local.worker_spec.pop(name, None)
        local.scale(count)  # nothing is done where all are there

    return beating(_LOOK_SECONDS, lambda: local.loop.add_callback(complete))
