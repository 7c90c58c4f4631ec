"""Ctrl-C, SIGTERM and SIGHUP: stop, tidy up, and leave within seconds, with one sentence and nothing left behind."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

_SECONDS_TO_STOP = 3.5  # until what has not stopped by itself is ended, and
_SECONDS_TO_TIDY = 1.0  # until even tidying up is given up
_KEPT = "stopped; what is finished is kept"
_PROGRAMS = ("unbraid", "unbraid.exe", "-m")  # sys.argv[0] is -m while `python -m` looks for its module
_in_program = os.path.basename(sys.argv[0]) in _PROGRAMS  # as these modules load
_SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]


sentence: Callable[[], str] = _KEPT.format  # the last line printed; the command line says more
_stopping = False
_came: int = signal.SIGINT  # the signal that stops this process


class Stopped(KeyboardInterrupt):
    """A signal came that stops this process."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def in_program() -> bool:
    """Whether this process is `unbraid` and no other program that has imported it."""
    return _in_program


def install_in_program() -> None:
    """A signal that comes while modules load leaves at once, where this process is `unbraid` and no other program."""
    if _in_program:
        _handle(lambda number, _frame: leave(number))


def install() -> None:
    """From here on a signal raises Stopped in the main thread; a second one ends what has not stopped yet, a third all.

    A signal that is ignored stays so: `nohup` sets SIGHUP aside, and a shell SIGINT for what runs in the background.
    """
    _handle(_stop)


def _handle(handler: Callable[[int, object], None]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)


def has_come() -> bool:
    """Whether a signal has come that stops this process: a library may have turned Stopped into another error."""
    return _stopping


def _stop(number: int, _frame: object) -> None:
    global _came, _stopping
    _came, _stopping = number, True
    for other in _SIGNALS:
        signal.signal(other, lambda *_: _leave_now(number))
    watchdog = threading.Timer(_SECONDS_TO_STOP, leave, (number,))
    watchdog.daemon = True
    watchdog.start()
    raise Stopped(number)


def _leave_now(number: int) -> NoReturn:
    """As a second signal comes: whoever is impatient wants the same end sooner."""
    for other in _SIGNALS:
        signal.signal(other, lambda *_: os._exit(128 + number))
    leave(number)


def leave(number: int | None = None) -> NoReturn:
    """End this process and all that it started, say so, and exit with 128 + the signal's number.

    Not by sys.exit: libraries would wait for servers and workers that are gone.

    Args:
        number: The signal's number; None for that of the signal that came.
    """
    number = number or _came
    guard = threading.Timer(_SECONDS_TO_TIDY, _exit, (number,))
    guard.daemon = True
    guard.start()
    with contextlib.suppress(Exception):
        _end_children()
        record = sys.modules.get("flows.running.record")
        if record is not None:
            record.stop_all()
    _exit(number)


def _exit(number: int) -> NoReturn:
    """Print the sentence and end this process as it is."""
    with contextlib.suppress(Exception):
        os.write(2, f"unbraid: {sentence()}\n".encode("utf-8", "replace"))  # sys.stderr's lock may be held
    os._exit(128 + number)


def _end_children() -> None:
    """Workers, and an embedded server: whoever is left has not stopped by itself."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(children, timeout=0.5)
