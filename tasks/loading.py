"""From a model's name to a separator ready to use."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from model.header import preset_in, read_header
from model.preset import Preset, borrowing_presets, load_preset
from model.weights import shipped_weights
from storage.registry import Registry

if TYPE_CHECKING:
    from model.checkpoint import Weights
    from model.separation.foreign import ForeignSeparator
    from model.separation.stream import Separator

# Torch is imported where a network is built: the process that plans a run asks for names alone.


def registry() -> Registry:
    """The user's models and those that came with the package."""
    return Registry(shipped_weights(), borrowers=borrowing_presets())


def load_weights(name: str) -> tuple[str, Weights]:
    """(model id, weights) of a model id, a preset's champion or a weights file, under the preset of the id.

    Raises:
        RegistryError: The model is unknown or damaged.
        CheckpointError: The file is none of ours.
    """
    from model.checkpoint import Weights

    model_id, data = registry().read(name)
    weights = Weights.from_bytes(data, str(Path(name).name))
    return model_id, dataclasses.replace(weights, preset=_viewing(model_id, weights.preset))


def _viewing(model_id: str, stored: Preset) -> Preset:
    """The preset that a model is used under: that of its id, where this one borrows the weights of `stored`."""
    preset = model_id.rpartition("-")[0]
    return load_preset(preset).viewing(stored) if borrowing_presets().get(preset) == stored.name else stored


def load_separator(
    name: str = "stereo", *, device: str = "auto", precision: str = "auto"
) -> Separator | ForeignSeparator:
    """The separator of a model id, a preset's champion, a weights file, or another's (demucs:htdemucs).

    It runs on "cpu", "cuda", or what there is. Raises RegistryError for an unknown or damaged model,
    CheckpointError for a file that is none, ModelError for another's model that cannot be loaded.
    """
    from model.separation.stream import Separator, resolved_device

    if ":" in name:
        from model.separation.foreign import is_foreign, load_foreign

        if is_foreign(name):
            return load_foreign(name, resolved_device(device))
    model_id, weights = load_weights(name)
    return Separator.from_weights(weights, model_id=model_id, device=resolved_device(device), precision=precision)


def resolved_arithmetic(name: str, device: str, precision: str) -> tuple[str, str]:
    """What a model runs on in this process, where the request leaves it open.

    Args:
        name: As `load_separator` takes it.
        device: "auto", "cpu" or "cuda".
        precision: "auto" or one of `model.separation.stream.PRECISIONS`.

    Returns:
        The device and the precision, neither of them "auto".

    Raises:
        RegistryError: The model is unknown or damaged.
        ModelError: A device or precision is requested that is not here.
    """
    import torch

    from model.networks import network_class
    from model.separation.foreign import ForeignSeparator, is_foreign
    from model.separation.stream import resolved_device, separating_precision

    device = resolved_device(device)
    if is_foreign(name):
        return device, ForeignSeparator.precision
    network = network_class(_preset_of(name)[1].network)
    return device, separating_precision(precision, torch.device(device), network)


def model_stems(name: str) -> tuple[str, tuple[str, ...]]:
    """(model id, its stems), without building a network of ours. Raises what `load_separator` does."""
    if ":" in name:
        from model.separation.foreign import is_foreign, load_foreign

        if is_foreign(name):
            separator = load_foreign(name, "cpu")
            return separator.model_id, separator.stems
    model_id, preset = _preset_of(name)
    return model_id, preset.stems


def _preset_of(name: str) -> tuple[str, Preset]:
    """(model id, the preset it is used under) of a model of ours."""
    model_id, data = registry().read(name)
    shown = str(Path(name).name)
    return model_id, _viewing(model_id, preset_in(read_header(data, shown), shown))
