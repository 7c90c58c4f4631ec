"""Something done again and again while something else goes on."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def beating(seconds: float, action: Callable[[], object]) -> Iterator[None]:
    """Around a body: call `action` at once, and from a thread every so often until the body ends.

    Args:
        seconds: The interval between two calls, in seconds.
        action: What to call. The first call's exception is raised here; a later one ends the beat.
    """
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(seconds):
            action()

    action()
    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
