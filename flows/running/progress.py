"""One line of progress a phase: live on a terminal, plain lines now and then where output is piped."""

import contextlib
import sys
import time
from collections.abc import Iterator

_LINE_EVERY = 10.0  # seconds between plain lines


class Progress:
    """Counts tracks done and failed and the audio they hold."""

    def __init__(self, phase: str, total: int) -> None:
        self.phase, self.total = phase, total
        self.done = self.failed = 0
        self.audio_seconds = 0.0
        self._began = time.monotonic()

    def advance(self, *, failed: bool = False, audio_seconds: float = 0.0, by: int = 1) -> None:
        self.done += 0 if failed else by
        self.failed += by if failed else 0
        self.audio_seconds += audio_seconds

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def text(self) -> str:
        """done of total, failed, audio-hours per hour, time left."""
        ended = self.done + self.failed
        parts = [f"{self.phase}: {ended} of {self.total}"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.audio_seconds:
            parts.append(f"{self.audio_seconds / max(self.elapsed, 1e-3):.0f} audio-hours per hour")
        if 0 < ended < self.total:
            parts.append(f"{_clock(self.elapsed / ended * (self.total - ended))} left")
        elif ended >= self.total:
            parts.append(f"{_clock(self.elapsed)}")
        return ", ".join(parts)


@contextlib.contextmanager
def progress(phase: str, total: int) -> Iterator[Progress]:
    """Show a phase's progress until the body ends; `Progress.advance` moves it."""
    state = Progress(phase, total)
    if sys.stderr.isatty():
        with _live(state):
            yield state
        return
    with _lines(state):
        yield state


@contextlib.contextmanager
def _live(state: Progress) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    class Line:
        def __rich__(self) -> Text:
            return Text(state.text())

    with Live(Line(), console=Console(stderr=True), refresh_per_second=4):
        yield


@contextlib.contextmanager
def _lines(state: Progress) -> Iterator[None]:
    advance, last = state.advance, time.monotonic()

    def speaking(**counts) -> None:
        nonlocal last
        before = state.done + state.failed
        advance(**counts)
        if before < state.done + state.failed < state.total and time.monotonic() - last > _LINE_EVERY:
            print(state.text(), file=sys.stderr, flush=True)
            last = time.monotonic()

    state.advance = speaking  # type: ignore[method-assign]
    try:
        yield
    finally:
        print(state.text(), file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
