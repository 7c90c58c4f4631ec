"""What must be in the environment before Prefect and Dask are imported: quiet, offline, embedded by default."""

import contextlib
import logging
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
_EMBEDDED = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    # An embedded server that is gone does not come back: no use in asking again for minutes.
    "PREFECT_CLIENT_MAX_RETRIES": "1",
}

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

# For Dask's workers: what they hold is the network and one track, none of which Dask could move to the disk. A worker
# that Dask stops at 80 % of its limit would never go on; at 95 % it is ended, and its track is tried by another.
WORKER_MEMORY = {f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")}

# Set to run flows under Prefect where no server is configured too, with an embedded one.
FORCED = "UNBRAID_PREFECT"
_SERVER = "PREFECT_API_URL"

# Set by the user to see all that is kept from the screen: tracebacks, the logs of Dask, Prefect and the workers.
_VERBOSE = "UNBRAID_LOG"
_SPEAKING = {"PREFECT_LOGGING_LEVEL": "INFO", "DASK_LOGGING__DISTRIBUTED": "info"}


def is_quiet() -> bool:
    """Whether the user has left what is usually kept from the screen where it is."""
    return not os.environ.get(_VERBOSE)


def be_verbose() -> None:
    """Show what is usually kept from the screen, in this process and those that it starts."""
    os.environ[_VERBOSE] = os.environ.get(_VERBOSE) or "1"
    os.environ.update(_SPEAKING)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")


def prepare() -> None:
    """Set what the user has not set. Call before importing prefect or distributed."""
    mark_children()
    if not is_quiet():
        be_verbose()
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if prefect_server() is None:
        for name, value in _EMBEDDED.items():
            os.environ.setdefault(name, value)


def with_prefect() -> bool:
    """Whether flows of this process run under Prefect: a server is configured, or it is forced, or in use already."""
    return bool(os.environ.get(FORCED)) or "prefect" in sys.modules or prefect_server() is not None


def prefect_server() -> str | None:
    """The API address of the user's Prefect server, None where there is none.

    Read where Prefect reads it, in its order: the environment, .env, prefect.toml and pyproject.toml of the present
    folder, the active profile (`prefect config set`, `prefect cloud login`). Not through Prefect, whose import takes
    longer than many a run.
    """
    if _SERVER in os.environ:
        return os.environ[_SERVER] or None
    written = _dotenv(Path(".env"))
    tables = _toml(Path("prefect.toml")), _table(_toml(Path("pyproject.toml")), "tool", "prefect")
    places = [written.get(_SERVER), *(_table(table, "api").get("url") for table in tables)]
    profiles = _toml(_profiles(written, *tables))
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active")
    places.append(_table(profiles, "profiles", str(active)).get(_SERVER))
    return next((str(place) for place in places if place), None)


def _profiles(written: Mapping[str, str], *tables: Mapping[str, Any]) -> Path:
    """Where Prefect keeps its profiles."""
    named = [os.environ.get("PREFECT_PROFILES_PATH"), written.get("PREFECT_PROFILES_PATH")]
    named += [table.get("profiles_path") for table in tables]
    home = os.environ.get("PREFECT_HOME") or Path.home() / ".prefect"
    return Path(next((path for path in named if path), Path(home) / "profiles.toml")).expanduser()


def _toml(path: Path) -> dict[str, Any]:
    """What a file says, nothing where it is not there or is no TOML."""
    with contextlib.suppress(OSError, ValueError):
        return tomllib.loads(path.read_text())
    return {}


def _table(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        inner = values.get(name)
        values = inner if isinstance(inner, dict) else {}
    return dict(values)


def _dotenv(path: Path) -> dict[str, str]:
    values = {}
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            name, equals, value = line.strip().removeprefix("export ").partition("=")
            if equals:
                values[name.strip()] = value.strip().strip("\"'")
    return values
