"""From a model's name to a separator ready to use."""

from pathlib import Path

from model.checkpoint import Weights
from model.separator import Separator, resolved_device
from model.shipped import shipped_weights
from storage.registry import Registry


def registry() -> Registry:
    """The user's models and those that came with the package."""
    return Registry(shipped_weights())


def load_separator(name: str = "stereo", *, device: str = "auto", precision: str = "auto") -> Separator:
    """The separator of a model id, a preset's champion, or a weights file; on "cpu", "cuda", or what there is.

    Raises RegistryError for an unknown or damaged model, CheckpointError for a file that is none.
    """
    model_id, data = registry().read(name)
    weights = Weights.from_bytes(data, name)
    return Separator.from_weights(weights, model_id=model_id, device=resolved_device(device), precision=precision)


def model_stems(name: str) -> tuple[str, tuple[str, ...]]:
    """(model id, its stems) without building the network. Raises RegistryError or CheckpointError."""
    model_id, data = registry().read(name)
    return model_id, Weights.from_bytes(data, str(Path(name).name)).preset.stems
