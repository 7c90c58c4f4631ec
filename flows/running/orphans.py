"""Embedded Prefect servers: those whose run was killed, which nothing ends but the next run, and this run's own."""

import os
import sys

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


def own_is_lost() -> bool:
    """Whether this process has started an embedded server that is gone, though nobody has ended it."""
    module = sys.modules.get("prefect.server.api.server")
    servers = module.SubprocessASGIServer._instances.values() if module is not None else ()
    started = [server.server_process for server in servers if server.server_process is not None]
    return any(process.poll() is not None for process in started)
