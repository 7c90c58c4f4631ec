"""Where the stems of a track lie: one place per track, which no other track of the output shares.

A place is a relative path without the name of a stem, such as `Artist/Song`. A track has three candidates and takes the
first that no other track may take: its path without the ending, its path, and its path with a mark of its exact bytes.
Whether two places collide is decided as the least able file system would: upper and lower case are equal, composed and
decomposed letters too, and dots and spaces at the end of a name do not count.
"""

import hashlib
import re
import unicodedata

FOLDERS, FLAT = "{track}/{stem}.{ext}", "{track}_{stem}.{ext}"
TEMPLATES = (FOLDERS, FLAT)
STEM_EXTENSIONS = ("flac", "wav", "ogg", "opus", "mp3")

# Names that Windows keeps for devices; a catalog made on Linux may be opened there.
_DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)
_ENDS_LOOSELY = re.compile(r"[. ](?:/|$)")  # a part of a path
_LONGEST = 255  # bytes of a name on common file systems
_ROOM = 40  # of those, kept free for `_accompaniment.flac` and similar endings


def safe_parts(relative: str) -> tuple[str, ...]:
    """Split a relative path into folders, none of which leaves the output folder or names a device of Windows.

    Args:
        relative: A path with forward slashes; ".." becomes "__", and a leading slash is dropped.
    """
    parts = []
    for part in relative.split("/"):  # as pathlib would, which takes ten times as long: a catalog is a million paths
        if part in (".", ""):
            continue
        if part == "..":
            part = "__"
        if _DEVICES.match(part):
            part = f"_{part}"
        parts.append(part)
    return tuple(parts)


def candidates(path: str, template: str = FOLDERS) -> tuple[str, str, str]:
    """The places that a track with this path in its catalog may take, the best first.

    Args:
        path: The track's path in its catalog, with forward slashes.
        template: One of `TEMPLATES`.

    Returns:
        (path without its ending, path, path with a mark of its exact bytes), each name cut to what file systems take.
    """
    longest = _LONGEST - (_ROOM if template == FLAT else 0)
    *folders, name = safe_parts(path) or ("_",)
    dot = name.rfind(".")
    short = name[:dot] if 0 < dot < len(name) - 1 else name
    if short.strip(". ") == "":
        short = name
    mark = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return (
        "/".join([*folders, _cut(short, mark, longest)]),
        "/".join([*folders, _cut(name, mark, longest)]),
        "/".join([*folders, _cut(f"{name}~{mark}", mark, longest)]),
    )


def folded(place: str) -> str:
    """The form of a place by which the least able file system tells it from others; only for comparison.

    Args:
        place: A track's place, with forward slashes.
    """
    if place.isascii():
        text = place.lower()
    else:
        text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", place).casefold())
    if _ENDS_LOOSELY.search(text):
        text = "/".join([part.rstrip(". ") for part in text.split("/")])
    return text


def may_be_a_stem(place: str) -> bool:
    """Could the place be the name of a stem's file in the folder above?

    Args:
        place: A track's place, with forward slashes.
    """
    return place.lower().endswith(tuple(f".{extension}" for extension in STEM_EXTENSIONS))


def stem_name(place: str, stem: str, extension: str, template: str) -> str:
    """The path of a stem's file below the folder of all stems.

    Args:
        place: The track's place.
        stem: The stem's name, e.g. "vocals".
        extension: The file's ending without its dot, one of `STEM_EXTENSIONS`.
        template: One of `TEMPLATES`.
    """
    return template.format(track=place, stem=stem, ext=extension)


def place_of(name: str, stem: str | None) -> str:
    """The place from which `stem_name` made a name, with either template.

    Args:
        name: The path of a stem's file below the folder of all stems, or a track's place with a slash at its end.
        stem: The stem's name; None where `name` is a place, as in the row of an interrupted track.
    """
    if stem is None:
        return name.rstrip("/")
    head = name.rpartition(".")[0]
    return head.removesuffix(f"/{stem}") if head.endswith(f"/{stem}") else head.removesuffix(f"_{stem}")


def _cut(name: str, mark: str, longest: int) -> str:
    raw = name.encode("utf-8", "surrogatepass")
    if len(raw) <= longest:
        return name
    return raw[: longest - 1 - len(mark)].decode("utf-8", "ignore") + f"~{mark}"
