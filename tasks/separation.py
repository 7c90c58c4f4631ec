"""What a separation run does to every track: its settings, which the flow plans by and the workers are told."""

import hashlib
import json
from pathlib import Path

from storage.files.layout import OutputLayout
from storage.files.location import location
from storage.results.done import Wanted
from tasks.settings import Separation

# Counts up when the same model and settings would give other samples than before.
_VERSION = 3


class SeparateSettings(Separation):
    """What a run does to every track: its options, the resolved id of `model`, and the stems to write."""

    model_id: str
    stems: tuple[str, ...]
    known_stems: tuple[str, ...] = ()  # that any track of the output has
    run_id: str = ""  # beside whose report tracebacks are kept
    marked: bool = False  # whether the output has its marker, so that one that has gone is told from a new one

    @property
    def hash(self) -> str:
        """Of what decides the samples, the model apart: which stems are written, and in which format, does not."""
        return _digest([_VERSION, self.tags, self.precision, *([self.kbps] if self.kbps else [])])

    @property
    def wanted(self) -> Wanted:
        """What the run wants of each track. Outputs of older versions have stems and format in their hash."""
        older = _digest([_VERSION, self.stems, self.format, self.tags, self.precision])
        return Wanted(self.model_id, (self.hash, older), self.stems, self.format, self.names, self.keep_models)

    def folder(self) -> Path:
        """Below which the stems lie."""
        out = OutputLayout(location(self.out))
        return out.stems_of(self.model_id if self.keep_models else None)


def _digest(deciding: list) -> str:
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:12]
