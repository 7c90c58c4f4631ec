"""Bounds of a preset's numbers. Weights files come from strangers: no number is used before it is checked."""

import math
import re
from collections.abc import Mapping

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
    "levels": (1, 8),
    "hidden": (1, 2_048),
    "layers": (1, 8),
    "context": (0, 64),
    "dense": (1, 4_096),
}
_REAL = {"views": (0.25, 4.0), "threshold": (0.0, 1.0), "spatial_hz": (0.0, 400_000.0)}
_ANY = 1e9  # for all other numbers: finite, and no count of anything that is allocated
_LONGEST_LIST = 64


def check_name(what: str, name: object) -> None:
    """A name of a stem or preset, which becomes part of paths, must be 1 to 64 letters, digits, - and _.

    Args:
        what: What the error calls it, such as "the stem name".
        name: The name, as it was read.

    Raises:
        PresetError: It is something else.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PresetError(f"{what} {str(name)[:80]!r} must be 1 to 64 letters, digits, - and _")


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
    for name, value in fields.items():
        if isinstance(value, Mapping):
            check_numbers(value, f"{where}.{name}")
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        if len(values) > _LONGEST_LIST:
            raise PresetError(f"{where}.{name} has {len(values)} entries; {_LONGEST_LIST} are allowed")
        for single in values:
            _check(f"{where}.{name}", name, single)


def _check(where: str, name: str, value: object) -> None:
    if name in _WHOLE:
        low, high = _WHOLE[name]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise PresetError(f"{where} is {str(value)[:40]}; it must be a whole number from {low} to {high}")
    elif name in _REAL or isinstance(value, (int, float)):
        lowest, highest = _REAL.get(name, (-_ANY, _ANY))
        if not isinstance(value, (int, float)) or not math.isfinite(value) or not lowest <= value <= highest:
            raise PresetError(f"{where} is {str(value)[:40]}; it must be a number from {lowest:g} to {highest:g}")
    elif isinstance(value, (list, tuple)):
        raise PresetError(f"{where} has lists in a list")
