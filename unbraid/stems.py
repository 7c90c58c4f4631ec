"""The stems of one song: arrays by name that know their rate and can be saved."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class Stems(Mapping[str, "np.ndarray"]):
    """Stem name → float32 array of the mixture's shape, in the model's order; together they are the mixture.

    Attributes:
        rate: Sample rate in Hz.
        model_id: The model that made them.
    """

    def __init__(self, signals: Mapping[str, np.ndarray], rate: int, model_id: str) -> None:
        self._signals = dict(signals)
        self.rate = rate
        self.model_id = model_id

    def __getitem__(self, stem: str) -> np.ndarray:
        return self._signals[stem]

    def __iter__(self) -> Iterator[str]:
        return iter(self._signals)

    def __len__(self) -> int:
        return len(self._signals)

    def save(self, folder: str | os.PathLike, *, format: str = "flac", depth: str = "int24") -> dict[str, Path]:
        """Write each stem to `folder`, which is made where it is missing.

        In an integer format the files add up to the mixture rounded to that depth: what would clip in one stem moves
        to another. No stem is normalised.

        Args:
            folder: A folder of this machine, or a URL such as s3://bucket/folder.
            format: "flac", "wav", "ogg", "opus" or "mp3".
            depth: "int16", "int24", or for wav also "int32" and "float".

        Returns:
            Stem → the file written.

        Raises:
            AudioError: The format is unknown or cannot hold the stems, or the disk is full.
        """
        import numpy as np

        from model.separation.arrays import as_channels
        from model.separation.grid import on_grid
        from storage.audio.writer import DEPTHS, FORMATS, StemFormat, write
        from storage.errors import AudioError
        from storage.files.location import location, make_folder

        if format not in FORMATS:
            raise AudioError(f"{format} is not a stem format; choose one of {', '.join(FORMATS)}")
        if depth not in DEPTHS or (format == "flac" and depth not in ("int16", "int24")):
            allowed = ("int16", "int24") if format == "flac" else DEPTHS
            raise AudioError(f"{format} has no depth {depth}; choose one of {', '.join(allowed)}")
        signals = {stem: as_channels(signal, self.rate) for stem, signal in self._signals.items()}
        *_, rest = signals
        mixture = np.add.reduce([signal.astype(np.float64) for signal in signals.values()], axis=0)
        target = location(folder)
        make_folder(target)
        paths: dict[str, Path] = {}
        for stem, signal in on_grid(mixture, signals, rest, StemFormat(format, depth).bits).items():
            paths[stem] = target / f"{stem}.{format}"
            write(paths[stem], signal, self.rate, name=format, depth=depth)
        return paths

    def __repr__(self) -> str:
        shapes = ", ".join(f"{stem} {'×'.join(map(str, signal.shape))}" for stem, signal in self._signals.items())
        return f"<stems at {self.rate} Hz: {shapes}>"
