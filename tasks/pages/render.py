"""Jinja2 templates into pages. Everything a page shows is escaped: names of tracks are hostile input."""

import datetime
import functools
import urllib.parse
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"
NOTHING = "–"


def render(template: str, **context: object) -> str:
    """A page from `templates/<template>`.

    Args:
        template: File name of the template.
        context: What the template shows, by name.

    Returns:
        The page as text. Bytes of a name that are no UTF-8 show as replacement characters.
    """
    page = _environment().get_template(template).render(**context)
    return page.encode("utf-8", "replace").decode("utf-8")


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
    """A style sheet or script of ours, to stand inside a page: no page fetches anything from elsewhere."""
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """A number with so many digits after the point, a dash where there is none."""
    if value is None:
        return NOTHING
    # Adding 0.0 takes the sign off a zero: nobody reads -0.0 dB as a number.
    text = f"{round(value, digits) + 0.0:,.{digits}f}" if isinstance(value, float) else f"{value:,}"
    return f"{text.replace(',', ' ')} {unit}".strip()


def count(things: int, noun: str) -> str:
    """ "1 track", "2 tracks"."""
    return f"{number(things)} {noun if things == 1 else noun + 's'}"


def share(value: float | None) -> str:
    """A part of one in per cent."""
    return NOTHING if value is None else f"{value:.0%}"


def clock(seconds: float | None) -> str:
    """Minutes and seconds, with hours where there are any."""
    if seconds is None:
        return NOTHING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def moment(value: str | datetime.datetime | None) -> str:
    """A time in UTC to the minute."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        try:
            return moment(datetime.datetime.fromisoformat(value))
        except ValueError:
            return value
    return f"{value:%Y-%m-%d %H:%M} UTC"


def quoted(value: str) -> str:
    """A name as part of a URL."""
    return urllib.parse.quote(value.encode("utf-8", "replace"), safe="")
