"""What is shown on the screen: tables, aligned on a terminal and plain where output is piped; no control characters."""

import re
import shutil
import sys
from collections.abc import Iterable, Sequence

import click

# C0, DEL and C1 can move the cursor, set the window's title or worse; the directional marks turn a line around.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


def printable(text: object) -> str:
    """Text that a terminal shows and does not obey: control characters become \\xNN or \\uNNNN.

    Line feeds and tabs stay, since pages of text are shown too.

    Args:
        text: What to show, as `str` gives it; names may hold any characters.
    """
    return _CONTROLS.sub(_escaped, str(text))


def echo(text: object, *, err: bool = False) -> None:
    """Print a line, with nothing in it that a terminal would obey.

    Args:
        text: The line; see `printable`.
        err: Whether it goes to standard error.
    """
    click.echo(printable(text), err=err)


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def show(names: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table to standard output.

    Args:
        names: The columns' heads.
        rows: One value per column in each. Columns with numbers are right-aligned; floats have two places, None is
            empty.
        title: What is written above the table; None for nothing.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = [list(row) for row in rows]
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for index, name in enumerate(names):
        numeric = any(isinstance(row[index], (int, float)) for row in rows)
        table.add_column(printable(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    # Piped output has no width: never fold what another program will read.
    width = None if sys.stdout.isatty() else max(240, _width(names, [names, *rows]) + 2 * len(names))
    Console(width=width, soft_wrap=False, highlight=False).print(table)


def show_table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, or where it is too wide for the terminal each row as lines of `name value`.

    Args:
        names: The columns' heads.
        rows: One value per column in each; see `show`. Lines leave empty values out.
    """
    if sys.stdout.isatty() and _width(names, rows) > shutil.get_terminal_size().columns:
        longest = max(len(printable(name)) for name in names)
        for number, row in enumerate(rows, 1):
            print(f"-- {number} " + "-" * longest)
            for name, value in zip(names, row, strict=True):
                text = _text(value)
                if text:
                    print(f"{printable(name):{longest}}  {text}")
        return
    show(names, rows)


def _width(names: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
    """Characters that a table of these rows takes."""
    longest = [max(len(_text(value)) for value in column) for column in zip(names, *rows, strict=True)]
    return sum(longest) + 2 * len(longest)


def _cell(value: object) -> str:
    return _text(value).replace("[", r"\[")


def _text(value: object) -> str:
    if value is None:
        return ""
    # A line feed in a name would start another row.
    text = printable(value).replace("\n", "\\n").replace("\t", "\\t")
    return f"{value:.2f}" if isinstance(value, float) else text
