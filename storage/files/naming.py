"""Where the stems of a track lie: a place of its own per track, which no other track of the output shares.

A place is a relative path without the name of a stem, as `Artist/Song`. A track has three to choose from, the first of
which no other track may take being its own: its path without the ending, its path, and its path with a mark of its
exact bytes. What meets is decided as the least able file system would: upper and lower case are one, composed and
decomposed letters too, and so are dots and spaces at the end of a name.
"""

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath

FOLDERS, FLAT = "{track}/{stem}.{ext}", "{track}_{stem}.{ext}"
TEMPLATES = (FOLDERS, FLAT)
STEM_EXTENSIONS = ("flac", "wav", "ogg", "opus", "mp3")

# Names that Windows keeps for devices; a catalog made on Linux may be opened there.
_DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)
_LONGEST = 255  # bytes of a name on common file systems
_ROOM = 40  # of them for `_accompaniment.flac` and its kin


def safe_parts(relative: str) -> tuple[str, ...]:
    """The folders of a relative path, none of which leaves the output folder or names a device."""
    parts = []
    for part in PurePosixPath(relative).parts:
        if part in ("/", ".", ""):
            continue
        if part == "..":
            part = "__"
        if _DEVICES.match(part):
            part = f"_{part}"
        parts.append(part)
    return tuple(parts)


def candidates(path: str, template: str = FOLDERS) -> tuple[str, str, str]:
    """The places that a track of this path in its catalog may take, the best first.

    Args:
        path: The track's path in its catalog, with forward slashes.
        template: One of `TEMPLATES`.
    """
    longest = _LONGEST - (_ROOM if template == FLAT else 0)
    *folders, name = safe_parts(path) or ("_",)
    short = PurePosixPath(name).stem
    if short.strip(". ") == "":
        short = name
    mark = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return (
        "/".join([*folders, _cut(short, mark, longest)]),
        "/".join([*folders, _cut(name, mark, longest)]),
        "/".join([*folders, _cut(f"{name}~{mark}", mark, longest)]),
    )


def folded(place: str) -> str:
    """The place as the least able file system tells it from others."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", place).casefold())
    return "/".join(part.rstrip(". ") for part in text.split("/"))


def may_be_a_stem(place: str) -> bool:
    """Could the place be the name of a stem's file in the folder above?"""
    return place.lower().endswith(tuple(f".{extension}" for extension in STEM_EXTENSIONS))


def stem_name(place: str, stem: str, extension: str, template: str) -> str:
    """The path of a stem's file below the folder of all stems."""
    return template.format(track=place, stem=stem, ext=extension)


def place_of(name: str, stem: str | None) -> str:
    """The place from which `stem_name` made a name; of no stem the name is the place with a slash."""
    if stem is None:
        return name.rstrip("/")
    head = name.rpartition(".")[0]
    return head.removesuffix(f"/{stem}") if head.endswith(f"/{stem}") else head.removesuffix(f"_{stem}")


def _cut(name: str, mark: str, longest: int) -> str:
    raw = name.encode("utf-8", "surrogatepass")
    if len(raw) <= longest:
        return name
    return raw[: longest - 1 - len(mark)].decode("utf-8", "ignore") + f"~{mark}"
