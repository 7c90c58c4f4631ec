"""Unbraid from Python: load a model, give it a song, get stems. No scheduler, no server.

    import unbraid

    model = unbraid.load("stereo")
    stems = model("song.mp3")             # a file, or model(audio, rate=44100) with an array or a tensor
    stems["vocals"], stems.rate           # float32 (channels, samples), Hz
    stems.save("out")                     # out/vocals.flac, out/accompaniment.flac

    unbraid.bss_eval(references, estimates, rate)         # SDR, ISR, SIR, SAR as museval defines them
    unbraid.models()                                      # the weights that are here
    unbraid.open_results("OUT").sql("select * from metrics")

Heavy imports (torch, duckdb) happen in the functions that need them, so `import unbraid` is quick.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m unbraid` imports this package first, with the current folder before all others, where a user's own
    # model/ or tasks.py would hide ours.
    sys.path[:] = [entry for entry in sys.path if entry not in ("", os.getcwd())]

from model.errors import CheckpointError, InputError, ModelError, PresetError
from storage.errors import (
    AudioError,
    CatalogError,
    DatasetError,
    MetricsError,
    RegistryError,
    StorageError,
    StoreError,
)
from unbraid.results import Results, open_results
from unbraid.stems import Stems

if TYPE_CHECKING:
    import numpy as np
    import torch

    from model.scoring.scores import TrackScores
    from model.separation.foreign import ForeignSeparator
    from model.separation.stream import Separator
    from storage.registry import RegisteredModel

__all__ = [
    "AudioError",
    "CatalogError",
    "CheckpointError",
    "DatasetError",
    "InputError",
    "MetricsError",
    "Model",
    "ModelError",
    "PresetError",
    "RegistryError",
    "Results",
    "Stems",
    "StorageError",
    "StoreError",
    "__version__",
    "bss_eval",
    "load",
    "models",
    "open_results",
]


try:
    __version__ = metadata.version("unbraid")
except metadata.PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"


class Model:
    """A separator in this process. Call it with a file, an array or a tensor."""

    def __init__(self, separator: Separator | ForeignSeparator) -> None:
        self._separator = separator

    @property
    def model_id(self) -> str:
        """The preset's name and the first eight hex digits of the SHA-256 of the weights file."""
        return self._separator.model_id

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of the stems; the last one is what the others leave of the mixture."""
        return self._separator.stems

    def __call__(self, song: str | os.PathLike | np.ndarray | torch.Tensor, rate: int | None = None) -> Stems:
        """Separate a song.

        Args:
            song: An audio file, or the mixture itself as an array or tensor, (channels, samples) or (samples,),
                floating point with full scale at 1. (samples, channels) is told by its shape.
            rate: The sample rate of an array or tensor in Hz. Files bring their own.

        Returns:
            The stems by name, float32 of the mixture's own shape and rate. They add up to the mixture.

        Raises:
            AudioError: The file cannot be read whole.
            InputError: The array is not audio: its shape, its type or a sample that is NaN or infinite says so.
            TypeError: An array was given without its rate, or a file with one.
        """
        from storage.audio import reader

        if isinstance(song, (str, os.PathLike)):
            if rate is not None:
                raise TypeError("a file has its own sample rate; leave out rate=")
            mixture, rate = reader.read(song)
        else:
            if rate is None:
                raise TypeError("give the sample rate of the array: model(audio, rate=44100)")
            mixture = _array(song)
        return Stems(self._separator.separate(mixture, rate), rate, self.model_id)

    def __repr__(self) -> str:
        return f"<unbraid model {self.model_id}: {', '.join(self.stems)}>"


def load(model: str = "stereo", *, device: str = "auto") -> Model:
    """Load a model, once for any number of songs.

    Args:
        model: A model id, a preset's name (its champion is taken), the path of a weights file, or another project's
            model such as "demucs:htdemucs".
        device: "cpu", "cuda", "mps" (Apple's GPU), or "auto" for the first that is here of cuda, mps and cpu.

    Raises:
        RegistryError: There is no such model, or its file is damaged.
        ModelError: There is no such device, or another project's model cannot be loaded.
    """
    from tasks.loading import load_separator

    return Model(load_separator(model, device=device))


def models() -> list[RegisteredModel]:
    """The models that are here: yours first of all those that came with the package, sorted by id.

    Each has `model_id`, `preset`, `champion` (whether the preset's name means this one) and `card`, a text.
    """
    from tasks.loading import registry

    return registry().models()


def bss_eval(
    references: dict[str, np.ndarray], estimates: dict[str, np.ndarray], rate: int, *, engine: str = "bsseval"
) -> TrackScores:
    """Score estimates against their references by BSSEval v4: the numbers museval prints.

    Args:
        references: Stem → the true stem, an array or tensor (channels, samples) or (samples,), all of one shape.
        estimates: The same stems as separated.
        rate: Sample rate in Hz.
        engine: "bsseval"; "sdr" for SDR alone, about a hundred times as fast; "museval" for museval itself.

    Returns:
        `.stems[stem]` has the medians over windows of 1 s (`sdr` is cSDR) and the scores of the whole track
        (`usdr`, `si_sdr`), in dB; `.windows[stem]` is (4, windows): SDR, ISR, SIR, SAR.

    Raises:
        InputError: An array is not audio.
        ValueError: Stems, shapes or the engine do not fit.
    """
    from model.scoring.scores import score
    from model.separation.arrays import as_channels

    true, separated = (
        {stem: as_channels(_array(signal), rate) for stem, signal in signals.items()}
        for signals in (references, estimates)
    )
    return score(true, separated, rate, engine=engine)


def _array(signal: Any) -> np.ndarray:
    """An array, or a tensor of any device, as an array."""
    import numpy as np

    return np.asarray(signal.detach().cpu() if hasattr(signal, "detach") else signal)
