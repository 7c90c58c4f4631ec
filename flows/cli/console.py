"""Tables on the screen: aligned on a terminal, plain where output is piped."""

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table


def show(names: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table to standard output. Numbers are right-aligned, floats to two places, None is empty."""
    rows = [list(row) for row in rows]
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for index, name in enumerate(names):
        numeric = any(isinstance(row[index], (int, float)) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    # Piped output has no width of its own: never fold what another program will read.
    width = None if sys.stdout.isatty() else 240
    Console(width=width, soft_wrap=False, highlight=False).print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value).replace("[", r"\[")
