"""Embedded Prefect servers whose run was killed: nothing ends them but the next run."""

import os

import psutil

_OWNER = "UNBRAID_PROCESS"
_SERVER = "prefect.server.api.server:create_app"


def mark_children() -> None:
    """From here on the processes that this one starts carry its number."""
    os.environ[_OWNER] = str(os.getpid())


def end_orphans() -> int:
    """End the servers whose owner is gone; returns how many. Another user's are out of sight."""
    ended = 0
    for process in psutil.process_iter():
        try:
            if _SERVER not in process.cmdline():
                continue
            owner = process.environ().get(_OWNER, "")
            if owner.isdigit() and not psutil.pid_exists(int(owner)):
                process.terminate()
                ended += 1
        except psutil.Error:
            continue
    return ended
