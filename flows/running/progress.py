"""The progress of a phase: a bar on a terminal, plain lines now and then where output is piped, nothing when quiet.

Where a Prefect server is configured its page shows a bar too.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from flows.running.artifacts import shown_to_prefect

QUIET = "UNBRAID_QUIET"  # set it to see no progress
_LINE_EVERY = 10.0  # seconds between plain lines
_BAR_WIDTH = 30


class Progress:
    """Counts units done and failed, and the audio they hold.

    Args:
        phase: What is going on, as the line begins.
        total: How many units there are.
        unit: What is counted, in the singular.
    """

    def __init__(self, phase: str, total: int, unit: str = "track") -> None:
        self.phase, self.total, self.unit = phase, total, unit
        self.done = self.failed = 0
        self.audio_seconds = 0.0
        self.note = ""  # what else there is to say, such as a training's loss
        self._began = time.monotonic()

    def advance(self, *, failed: bool = False, audio_seconds: float = 0.0, by: int = 1) -> None:
        """Count more units as done or as failed.

        Args:
            failed: Whether they failed.
            audio_seconds: Seconds of audio that they hold, for the speed that is shown.
            by: How many units.
        """
        self.done += 0 if failed else by
        self.failed += by if failed else 0
        self.audio_seconds += audio_seconds

    @property
    def ended(self) -> int:
        return self.done + self.failed

    @property
    def elapsed(self) -> float:
        """Seconds since the phase began."""
        return time.monotonic() - self._began

    def text(self) -> str:
        """Phase, done of total, failed, audio-hours per hour, what is noted, time left."""
        return f"{self.phase}: {self.state()}"

    def state(self) -> str:
        """The text without the phase."""
        parts = [f"{self.ended} of {counted(self.total, self.unit)}"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.audio_seconds:
            parts.append(f"{self.audio_seconds / max(self.elapsed, 1e-3):.0f} audio-hours per hour")
        if self.note:
            parts.append(self.note)
        if 0 < self.ended < self.total:
            parts.append(f"{clock(self.elapsed / self.ended * (self.total - self.ended))} left")
        elif self.ended >= self.total:
            parts.append(clock(self.elapsed))
        return ", ".join(parts)


@contextlib.contextmanager
def progress(phase: str, total: int, unit: str = "track") -> Iterator[Progress]:
    """Show a phase's progress on standard error until the body ends.

    Nothing is written there where UNBRAID_QUIET is set; Prefect's page shows a bar all the same.

    Args:
        phase: The phase's name, with which the line begins.
        total: How many units there are.
        unit: What is counted, in the singular.

    Yields:
        The counter; its `advance` moves what is shown, and its `note` is shown beside it.
    """
    state = Progress(phase, total, unit)
    if os.environ.get(QUIET):
        with shown_to_prefect(state):
            yield state
        return
    with _bar(state) if sys.stderr.isatty() else _lines(state), shown_to_prefect(state):
        yield state


@contextlib.contextmanager
def _bar(state: Progress) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    class Bar:
        def __rich__(self) -> Table:
            row = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=max(1, state.total), completed=state.ended, width=_BAR_WIDTH)
            row.add_row(Text(state.phase), bar, Text(state.state()))
            return row

    with Live(Bar(), console=Console(stderr=True), refresh_per_second=4):
        yield


@contextlib.contextmanager
def _lines(state: Progress) -> Iterator[None]:
    advance, last = state.advance, time.monotonic()

    def speaking(**counts) -> None:
        nonlocal last
        before = state.ended
        advance(**counts)
        if before < state.ended < state.total and time.monotonic() - last > _LINE_EVERY:
            print(state.text(), file=sys.stderr, flush=True)
            last = time.monotonic()

    state.advance = speaking  # type: ignore[method-assign]
    try:
        yield
    finally:
        print(state.text(), file=sys.stderr, flush=True)


def counted(number: int, unit: str) -> str:
    """A number with its unit, e.g. "1 track", "2 tracks".

    Args:
        number: How many.
        unit: The unit in the singular; an s makes its plural.
    """
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def clock(seconds: float) -> str:
    """A duration as m:ss, or h:mm:ss from an hour on.

    Args:
        seconds: The duration in seconds, rounded to integers.
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
