"""Environment that must stand before Prefect and Dask are imported: quiet, offline, embedded by default."""

import logging
import os

from flows.running.orphans import mark_children

_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DASK_LOGGING__DISTRIBUTED": "critical",
    # A run that is killed is known by its silence (docs/zombies.yaml); the usual 180 s would make that long.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # On a machine that is busy with something else the embedded server takes longer than the usual 20 s to start.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}
# Without a server of the user's own, Prefect's log lines would only repeat what the progress line says.
_EMBEDDED = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "PREFECT_LOGGING_TO_API_ENABLED": "false"}

# For worker processes: how their C library hands out memory. A separation takes and returns the same large blocks
# over and over; glibc gives each back to the system and faults it in again page by page, and Dask's own setting makes
# it do so for small ones too. Kept in one heap of huge pages, the same work takes half the time (bench/separate.py).
WORKERS = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


# The user's word for all that is kept from the screen: tracebacks, the logs of Dask, Prefect and the workers.
VERBOSE = "UNBRAID_LOG"
_SPEAKING = {"PREFECT_LOGGING_LEVEL": "INFO", "DASK_LOGGING__DISTRIBUTED": "info", "UNBRAID_DEBUG": "1"}


def be_verbose() -> None:
    """Show what is usually kept from the screen, in this process and those that it starts."""
    os.environ[VERBOSE] = os.environ.get(VERBOSE) or "1"
    os.environ.update(_SPEAKING)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")


def prepare() -> None:
    """Set what the user has not set. Call before importing prefect or distributed."""
    mark_children()
    if os.environ.get(VERBOSE):
        be_verbose()
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ:
        for name, value in _EMBEDDED.items():
            os.environ.setdefault(name, value)
