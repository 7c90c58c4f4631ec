"""The JSON header of a weights file, read without torch: which preset it belongs to and which stems it gives."""

import json

from model.errors import CheckpointError
from model.preset import Preset

_LONGEST_HEADER = 4_000_000  # bytes; ours have some ten thousand


def read_header(data: bytes, name: str) -> dict:
    """The JSON that was written beside the tensors.

    Args:
        data: The bytes of a safetensors file.
        name: What to call it in an error.

    Returns:
        The table that `model.checkpoint.pack` was given.

    Raises:
        CheckpointError: The bytes are cut, damaged or not ours.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(data[8 : 8 + length])
        ends = [entry["data_offsets"][1] for tensor, entry in header.items() if tensor != "__metadata__"]
        if max(ends, default=0) != len(data) - 8 - length:
            raise ValueError(len(data))
        ours = json.loads(header["__metadata__"]["unbraid"])
        if not isinstance(ours, dict):
            raise TypeError("a header that is no table")
        return ours
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, MemoryError, RecursionError) as error:
        raise CheckpointError(
            f"{name} is not a complete unbraid checkpoint ({type(error).__name__}); fetch or train it again"
        ) from error


def preset_in(header: dict, name: str) -> Preset:
    """The preset that a weights file's header describes.

    Args:
        header: What `read_header` returns.
        name: What to call the file in an error.

    Raises:
        CheckpointError: The header has no preset.
        PresetError: Its preset does not fit this version, or holds a number out of bounds.
    """
    if "preset" not in header:
        raise CheckpointError(f"{name} holds no preset; it was not written by unbraid")
    return Preset.from_dict(header["preset"])
