"""Bounds of a preset's numbers. Weights files come from strangers: no number is used before it is checked."""

import dataclasses
import re
from collections.abc import Mapping
from types import UnionType
from typing import Any, get_args, get_origin

from model.errors import PresetError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST_STEMS = 16
# Generous for any network that will be trained with this, and small enough that none of them fills the memory.
_WHOLE = {
    "sample_rate": (1_000, 768_000),
    "n_fft": (16, 65_536),
    "hop": (4, 65_536),
    "bins": (4, 32_769),
    "channels": (1, 16),
    "core_frames": (1, 16_384),
    "context_frames": (0, 4_096),
    "batch": (1, 1_024),
    "frames": (1, 65_536),
    "batch_size": (1, 65_536),
    "steps": (1, 10**9),
    "rows": (4, 4_096),
    "widths": (1, 2_048),
    "width": (1, 1_024),
    "bottleneck": (1, 256),
    "estimated": (1, _MOST_STEMS),
    "unnamed": (0, _MOST_STEMS),
    "levels": (1, 8),
    "hidden": (1, 2_048),
    "layers": (1, 8),
    "context": (0, 64),
    "dense": (1, 4_096),
}
_HZ = 0.0, 400_000.0
_REAL = {"views": (0.25, 4.0), "threshold": (0.0, 1.0), "spatial_hz": _HZ, "repetition_hz": _HZ}
_ANY = 1e9  # for all other numbers: finite, and no count of anything that is allocated
_LISTS = ("views", "widths")  # of those above; the others are single numbers
_LONGEST_LIST = 64
_DEEPEST = 6  # tables in tables
_LONGEST_EXCERPT = 100  # characters of somebody else's text in a sentence
_WORDS = {int: "a whole number", float: "a number", str: "text", dict: "a table"}


def check_name(what: str, name: object) -> None:
    """A name of a stem or preset, which becomes part of paths, must be 1 to 64 letters, digits, - and _.

    Args:
        what: What the error calls it, such as "the stem name".
        name: The name, as it was read.

    Raises:
        PresetError: It is something else.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PresetError(f"{what} {excerpt(repr(name))} must be 1 to 64 letters, digits, - and _")


def check_stems(stems: object) -> None:
    """Stems must be two to sixteen names, distinct even where a file system folds case.

    Args:
        stems: The list, as it was read.

    Raises:
        PresetError: It is something else.
    """
    if not isinstance(stems, (list, tuple)) or not 2 <= len(stems) <= _MOST_STEMS:
        raise PresetError(f"a preset has 2 to {_MOST_STEMS} stems in a list")
    for stem in stems:
        check_name("the stem name", stem)
    if len({stem.lower() for stem in stems}) < len(stems):
        raise PresetError(f"the stems {', '.join(stems)} are not all different")


def check_numbers(fields: Mapping[str, object], where: str) -> None:
    """Every number in `fields`, and in the tables and lists they hold, must be within its bounds.

    Args:
        fields: A preset's table; the name of a field decides its bounds.
        where: The path of the table, which the error begins with.

    Raises:
        PresetError: A number is out of bounds, or a list too long; it names the field.
    """
    if where.count(".") > _DEEPEST:
        raise PresetError(f"{excerpt(where)} has too many tables in each other")
    for name, value in fields.items():
        place = f"{where}.{excerpt(name)}"
        single = (name in _WHOLE or name in _REAL) and name not in _LISTS
        if single and isinstance(value, (Mapping, list, tuple)):
            raise PresetError(f"{place} must be a single number")
        if isinstance(value, Mapping):
            check_numbers(value, place)
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        if len(values) > _LONGEST_LIST:
            raise PresetError(f"{place} has {len(values)} entries; {_LONGEST_LIST} are allowed")
        for item in values:
            _check(place, name, item)


def _check(where: str, name: str, value: object) -> None:
    if name in _WHOLE:
        low, high = _WHOLE[name]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise PresetError(f"{where} is {excerpt(value)}; it must be a whole number from {low} to {high}")
    elif name in _REAL or isinstance(value, (int, float)):
        lowest, highest = _REAL.get(name, (-_ANY, _ANY))
        if not isinstance(value, (int, float)) or not lowest <= value <= highest:  # nor is NaN
            raise PresetError(f"{where} is {excerpt(value)}; it must be a number from {lowest:g} to {highest:g}")
    elif isinstance(value, (list, tuple)):
        raise PresetError(f"{where} has lists in a list")


def check_types(values: Any, where: str) -> None:
    """Every field of a dataclass, and of the dataclasses it holds, must have its declared type.

    Args:
        values: The dataclass, made from somebody else's table.
        where: What the error calls it.

    Raises:
        PresetError: A field has another type; it is named.
    """
    for field in dataclasses.fields(values):
        value, place = getattr(values, field.name), f"{where}.{field.name}"
        if dataclasses.is_dataclass(value):
            check_types(value, place)
        elif not _is_a(value, field.type):
            raise PresetError(f"{place} is {excerpt(repr(value))}; it must be {_words(field.type)}")


def _is_a(value: object, kind: Any) -> bool:
    """Whether a value is of an annotated type: a plain one, a union, or a tuple or dictionary of plain ones."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_is_a(value, choice) for choice in inner)
    if origin is tuple:
        fits = isinstance(value, tuple) and (inner[-1] is ... or len(value) == len(inner))
        return fits and all(_is_a(item, inner[0]) for item in value)  # type: ignore[attr-defined]
    if origin is dict:
        return isinstance(value, dict) and all(_is_a(item, inner[1]) for item in value.values())
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _words(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return _words(inner[0])
    if origin is tuple:
        return "a list of " + (
            "names" if inner[0] is str else "numbers" if inner[-1] is ... else f"{len(inner)} numbers"
        )
    return _WORDS[origin or kind]


def excerpt(text: object) -> str:
    """The beginning of a text, on one line, for a sentence.

    Args:
        text: Anything; as `str` shows it.
    """
    line = " ".join(str(text).split())
    return line if len(line) <= _LONGEST_EXCERPT else f"{line[:_LONGEST_EXCERPT]}…"
