"""Turns Jinja2 templates into pages. Everything a page shows is escaped: names of tracks are hostile input."""

import datetime
import functools
import urllib.parse
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"
NOTHING = "–"


def render(template: str, **context: object) -> str:
    """A page from `templates/<template>`.

    Args:
        template: File name of the template.
        context: What the template shows, by name.

    Returns:
        The page as text. Bytes of a name that are not valid UTF-8 appear as question marks.
    """
    page = compiled(template).render(**context)
    return page.encode("utf-8", "replace").decode("utf-8")


def compiled(template: str) -> Template:
    """`templates/<template>`, compiled once per process.

    Args:
        template: File name of the template.
    """
    return _environment().get_template(template)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=number, clock=clock, share=share, moment=moment, quote=quoted)
    environment.globals.update(asset=asset, count=count)
    return environment


def asset(name: str) -> Markup:
    """A style sheet or script of ours, to be embedded in a page: no page fetches anything from elsewhere.

    Args:
        name: Its file name in `templates/`.

    Returns:
        Its text, which is not escaped.
    """
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """A number as text, thousands apart by spaces.

    Args:
        value: The number; None gives a dash.
        digits: Digits after the point of a float; an integer has none.
        unit: Follows the number after a space, "" for none.
    """
    if value is None:
        return NOTHING
    # Adding 0.0 takes the sign off a zero: nobody reads -0.0 dB as a number.
    text = f"{round(value, digits) + 0.0:,.{digits}f}" if isinstance(value, float) else f"{value:,}"
    return f"{text.replace(',', ' ')} {unit}".strip()


def count(things: int, noun: str) -> str:
    """A count with its noun: "1 track", "2 tracks".

    Args:
        things: How many.
        noun: One of them; the plural adds an s.
    """
    return f"{number(things)} {noun if things == 1 else noun + 's'}"


def share(value: float | None) -> str:
    """A share in per cent, without decimals.

    Args:
        value: Of 1, so 0.5 is 50 %; None gives a dash.
    """
    return NOTHING if value is None else f"{value:.0%}"


def clock(seconds: float | None) -> str:
    """A duration as minutes and seconds, with hours where there are any: "3:07", "1:02:30".

    Args:
        seconds: The duration; None gives a dash.
    """
    if seconds is None:
        return NOTHING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def moment(value: str | datetime.datetime | None) -> str:
    """A time in UTC to the minute: "2026-01-31 09:05 UTC".

    Args:
        value: The time in UTC, or its ISO text; other text is returned as it is, None gives a dash.
    """
    if value is None:
        return NOTHING
    if isinstance(value, str):
        try:
            return moment(datetime.datetime.fromisoformat(value))
        except ValueError:
            return value
    return f"{value:%Y-%m-%d %H:%M} UTC"


def quoted(value: str) -> str:
    """A name percent-encoded as part of a URL.

    Args:
        value: Any text; characters that have no UTF-8 become question marks.
    """
    return urllib.parse.quote(value.encode("utf-8", "replace"), safe="")
