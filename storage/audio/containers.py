"""Is a container complete? What the decoders ignore in silence is read from the bytes here.

libsndfile trusts the file's length over the header of WAV and AIFF, and FFmpeg ends an Ogg where
the bytes end; both hand back a shortened song without an error.
"""

import struct
from pathlib import Path

_UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # what writers to a pipe leave in a size field they could not go back to
_OGG_TAIL = 1 << 17  # a page is at most 65 307 bytes, so the last one starts within


def missing_bytes(path: Path) -> str | None:
    """A clause on what a WAV, AIFF or Ogg file promises and lacks.

    Args:
        path: A local file.

    Returns:
        The clause, for the middle of a sentence; None where nothing is missing or the container is none of these.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(12)
        size = path.stat().st_size
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            return _chunks(file, size, "<", b"data")
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            return _chunks(file, size, ">", b"SSND")
        if head[:4] == b"OggS":
            return _last_ogg_page(file, size)
    return None


def _chunks(file, size: int, order: str, data_name: bytes) -> str | None:
    position = 12
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack(order + "4sI", file.read(8))
        if name == data_name:
            here = size - position - 8
            if length not in _UNKNOWN_SIZES and length > here:
                return f"its header promises {length} bytes of audio and only {here} are there"
            return None
        position += 8 + length + (length & 1)
    return "it has no audio data after its header"


def _last_ogg_page(file, size: int) -> str | None:
    file.seek(max(0, size - _OGG_TAIL))
    tail = file.read()
    start = tail.rfind(b"OggS")
    # Byte 5 of a page holds its flags; 4 marks the last page of a stream.
    if start < 0 or start + 27 > len(tail) or not tail[start + 5] & 4:
        return "its last Ogg page, with the mark that ends a stream, is missing"
    segments = tail[start + 27 : start + 27 + tail[start + 26]]
    if len(tail) < start + 27 + tail[start + 26] + sum(segments):
        return "its last Ogg page is cut in the middle"
    return None
