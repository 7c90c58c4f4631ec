"""Open-Unmix (Stöter et al., JOSS 2019): `--model openunmix:umxl`, or `openunmix:/folder` for weights in a folder."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.errors import ModelError
from model.separation.foreign import ForeignModel, weights_digest


def load(name: str, device: str) -> ForeignModel:
    """A model that `openunmix.utils.load_separator` loads: umx, umxhq, umxse, umxl, or a folder.

    Args:
        name: One of these names, or the path of a folder that openunmix's training wrote.
        device: "cpu" or "cuda".

    Raises:
        ModelError: The package is missing or knows no such model.
    """
    utils = loader()
    try:
        # In a folder every target is a .json beside its weights; the published names bring theirs.
        target_names = sorted(path.stem for path in Path(name).glob("*.json") if path.stem != "separator")
        separator = utils.load_separator(name, targets=target_names or None, device=device, pretrained=True)
    except Exception as error:
        raise ModelError(f"openunmix cannot load {name} ({type(error).__name__}: {error})") from error
    separator.freeze()
    separator = separator.to(device)
    targets = tuple(separator.target_models)

    @torch.inference_mode()
    def separate(audio: np.ndarray, rate: int) -> dict[str, np.ndarray]:
        estimates = separator(torch.from_numpy(audio)[None].to(device))[0].cpu().numpy()
        return dict(zip(targets, estimates, strict=False))

    return ForeignModel(
        model_id=f"openunmix:{Path(name).name}-{weights_digest(separator)}",
        stems=targets,
        sample_rate=int(separator.sample_rate),
        channels=_channels(next(iter(separator.target_models.values()))),
        separate=separate,
    )


def loader() -> Any:
    """The module `openunmix.utils`.

    openunmix imports torchaudio, to resample in a function that is not called here, and torchaudio loads beside one
    build of torch only. Where it does not load, an empty module takes its place while openunmix is imported.

    Raises:
        ModelError: The package is missing.
    """
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError):
        sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    try:
        from openunmix import utils
    except ImportError as error:
        raise ModelError(f"openunmix is not installed ({error}); pip install 'unbraid[openunmix]'") from error
    finally:
        if sys.modules.get("torchaudio") is not None and not hasattr(sys.modules["torchaudio"], "__path__"):
            del sys.modules["torchaudio"]
    return utils


def _channels(target: Any) -> int:
    """Channels of a target: it does not store their number, but its last batch norm has channels · bins features."""
    return target.bn3.num_features // target.nb_output_bins
