"""Demucs (Défossez et al.): `--model demucs:htdemucs`, or `demucs:/folder#name` for models in a folder."""

from pathlib import Path

import numpy as np
import torch

from model.errors import ModelError
from model.separation.foreign import ForeignModel, weights_digest


def load(name: str, device: str) -> ForeignModel:
    """A model that `demucs.pretrained.get_model` loads: by name from Meta's server, or from a folder.

    Args:
        name: A name that demucs knows, such as htdemucs, or `folder#name` for a model in a folder.
        device: "cpu" or "cuda".

    Raises:
        ModelError: The package is missing or knows no such model.
    """
    try:
        from demucs.apply import apply_model
        from demucs.pretrained import get_model
    except ImportError as error:
        raise ModelError(f"demucs is not installed ({error}); pip install 'unbraid[demucs]'") from error
    folder, _, signature = name.rpartition("#")
    try:
        model = get_model(signature, Path(folder) if folder else None).to(device).eval()
    except (Exception, SystemExit) as error:  # its loader ends the process where a model is unknown
        raise ModelError(f"demucs cannot load {name} ({type(error).__name__}: {error})") from error

    @torch.inference_mode()
    def separate(audio: np.ndarray, rate: int) -> dict[str, np.ndarray]:
        mixture = torch.from_numpy(audio)
        # As demucs.separate does: it learned from mixtures of zero mean and unit variance.
        reference = mixture.mean(0)
        mean, deviation = reference.mean(), reference.std() + 1e-8
        estimates = apply_model(
            model, ((mixture - mean) / deviation)[None], device=device, shifts=0, split=True, overlap=0.25
        )[0]  # no random shifts: the same input gives the same stems
        signals = (estimates * deviation + mean).cpu().numpy()
        return dict(zip(model.sources, signals, strict=True))

    return ForeignModel(
        model_id=f"demucs:{signature}-{weights_digest(model)}",
        stems=tuple(model.sources),
        sample_rate=model.samplerate,
        channels=model.audio_channels,
        separate=separate,
    )
