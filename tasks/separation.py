"""What a separation run does to every track: its settings, which the flow plans by and the workers are told."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from storage.files import naming
from storage.files.layout import OutputLayout
from storage.files.location import location
from tasks.settings import Device, Precision, Separation

if TYPE_CHECKING:
    from storage.results.done import Target

# Counts up when the same model and settings would give other samples than before, or the hash says something else.
_VERSION = 4
# Rows of this version have the requested precision in their hash and no device.
_UNRESOLVED_VERSION = 3


class SeparateSettings(Separation):
    """What a run does to every track: its options, the resolved id of `model`, and the stems to write."""

    model_id: str
    stems: tuple[str, ...]
    known_stems: tuple[str, ...] = ()  # that any track of the output has
    run_id: str = ""  # beside whose report tracebacks are kept
    marked: bool = False  # whether the output has its marker, to tell one that is gone from a new one

    @property
    def hash(self) -> str:
        """The hash of the settings as requested: that of rows without samples, where no network said what it ran on."""
        return self.made_on(self.device, self.precision)

    def made_on(self, device: str, precision: str) -> str:
        """The hash of what decides the samples apart from the model: the stems written and their format do not.

        Args:
            device: What the network runs on, "cpu", "cuda" or "mps".
            precision: Its arithmetic: "float32", "bfloat16" or "int8".
        """
        return _digest([_VERSION, self.tags, precision, device, *self._bitrate])

    @property
    def target(self) -> "Target":
        """What the run is to make of each track. A device or precision that is left open counts every one as done.

        Outputs of version 3 do not tell devices apart, so they are done where the device is left open and the precision
        requested is theirs; still older ones have stems and format in their hash.
        """
        from storage.results.done import Target  # only the process that plans asks

        devices = [self.device] if self.device != "auto" else get_args(Device)
        precisions = [self.precision] if self.precision != "auto" else get_args(Precision)
        hashes = [self.made_on(device, precision) for device in devices for precision in precisions]
        if self.device == "auto":
            hashes.append(_digest([_UNRESOLVED_VERSION, self.tags, self.precision, *self._bitrate]))
            hashes.append(_digest([_UNRESOLVED_VERSION, self.stems, self.format, self.tags, self.precision]))
        return Target(self.model_id, tuple(hashes), self.stems, self.format, self.names, self.keep_models)

    @property
    def _bitrate(self) -> list[int]:
        return [self.kbps] if self.kbps else []

    def place(self, place: str | None, path: str) -> str:
        """Where a track's stems lie below `folder`.

        Args:
            place: What the run has planned; None where it has not.
            path: The track's path in its catalog.
        """
        return place or naming.candidates(path, self.names)[0]

    def folder(self) -> Path:
        """The folder that holds the stems' folders."""
        out = OutputLayout(location(self.out))
        return out.stems_of(self.model_id if self.keep_models else None)


def _digest(deciding: list) -> str:
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:12]
