"""A worker process without a scheduler: it does what it is sent over a socket, until the socket closes.

    python -P -m tasks.process DESCRIPTOR OWNER [MODULE …]

`flows/running/processes.py` starts it and sends (function, arguments); it answers (True, result) or (False, error).
Modules that are named are imported before the first call is read.
"""

import importlib
import os
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection

from tasks.worker import mark_as_worker


def serve(connection: Connection, owner: int, modules: Sequence[str] = ()) -> None:
    """Answer calls until the other end is closed.

    Args:
        connection: Where calls come from, as (function, arguments), and answers go.
        owner: The id of the process that started this one; when it is gone, this one ends, even in mid-call.
        modules: What to import first.
    """
    threading.Thread(target=_outlive_nobody, args=(owner,), daemon=True).start()
    for module in modules:
        importlib.import_module(module)
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = True, function(*arguments)
        except Exception as error:
            answer = False, error
        try:
            connection.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:  # what cannot be pickled
            connection.send((False, RuntimeError(f"{type(error).__name__}: {error}")))


def _outlive_nobody(owner: int) -> None:
    """End this process when the one that started it is gone: nobody waits for what it does."""
    pause = threading.Event()
    while os.getppid() == owner:
        pause.wait(1.0)
    os._exit(1)


if __name__ == "__main__":
    mark_as_worker()
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]), sys.argv[3:])
