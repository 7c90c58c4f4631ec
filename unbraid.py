"""Unbraid from Python: load a model, give it a song, get stems.

import unbraid
model = unbraid.load("stereo")
stems = model("song.mp3")           # {"vocals": array, "accompaniment": array}, (channels, samples)
stems = model(audio, rate=44100)    # the same from an array (channels, samples) or (samples,)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from model.separation.foreign import ForeignSeparator
    from model.separation.stream import Separator


class Model:
    """A separator in this process: no scheduler, no server. Call it with a file or an array."""

    def __init__(self, separator: Separator | ForeignSeparator) -> None:
        self._separator = separator

    @property
    def model_id(self) -> str:
        return self._separator.model_id

    @property
    def stems(self) -> tuple[str, ...]:
        return self._separator.stems

    def __call__(self, song: str | os.PathLike | np.ndarray, rate: int | None = None) -> dict[str, np.ndarray]:
        """Stems by name, float32, of the mixture's own shape and rate; they add up to the mixture.

        `song` is an audio file, or an array (channels, samples) or (samples,) with its `rate` in Hz.
        Raises storage.errors.AudioError for a file that cannot be read, TypeError for an array without rate.
        """
        if isinstance(song, (str, os.PathLike)):
            from storage.audio.reader import read

            song, rate = read(song)
        if rate is None:
            raise TypeError("give the sample rate of the array: model(audio, rate=44100)")
        return self._separator.separate(song, rate)

    def __repr__(self) -> str:
        return f"<unbraid model {self.model_id}: {', '.join(self.stems)}>"


def load(model: str = "stereo", *, device: str = "auto") -> Model:
    """A model by id, preset name (its champion) or weights file, on "cpu", "cuda" or whichever is there.

    Raises storage.errors.RegistryError when there is no such model or its file is damaged.
    """
    from tasks.loading import load_separator

    return Model(load_separator(model, device=device))
