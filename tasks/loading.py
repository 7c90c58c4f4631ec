"""From a model's name to a separator ready to use."""

import dataclasses
from pathlib import Path

from model.checkpoint import Weights
from model.preset import borrowing_presets, load_preset
from model.separation.foreign import ForeignSeparator, is_foreign, load_foreign
from model.separation.stream import Separator, resolved_device
from model.weights import shipped_weights
from storage.registry import Registry


def registry() -> Registry:
    """The user's models and those that came with the package."""
    return Registry(shipped_weights(), borrowers=borrowing_presets())


def load_weights(name: str) -> tuple[str, Weights]:
    """(model id, weights) of a model id, a preset's champion or a weights file, under the preset of the id.

    Raises:
        RegistryError: The model is unknown or damaged.
        CheckpointError: The file is none of ours.
    """
    model_id, data = registry().read(name)
    weights = Weights.from_bytes(data, str(Path(name).name))
    preset = model_id.rpartition("-")[0]
    if borrowing_presets().get(preset) == weights.preset.name:
        weights = dataclasses.replace(weights, preset=load_preset(preset).viewing(weights.preset))
    return model_id, weights


def load_separator(
    name: str = "stereo", *, device: str = "auto", precision: str = "auto"
) -> Separator | ForeignSeparator:
    """The separator of a model id, a preset's champion, a weights file, or another's (demucs:htdemucs).

    It runs on "cpu", "cuda", or what there is. Raises RegistryError for an unknown or damaged model,
    CheckpointError for a file that is none, ModelError for another's model that cannot be loaded.
    """
    if is_foreign(name):
        return load_foreign(name, resolved_device(device))
    model_id, weights = load_weights(name)
    return Separator.from_weights(weights, model_id=model_id, device=resolved_device(device), precision=precision)


def model_stems(name: str) -> tuple[str, tuple[str, ...]]:
    """(model id, its stems), without building a network of ours. Raises what `load_separator` does."""
    if is_foreign(name):
        separator = load_foreign(name, "cpu")
        return separator.model_id, separator.stems
    model_id, weights = load_weights(name)
    return model_id, weights.preset.stems
