"""From a model's name to a separator ready to use."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from model.header import preset_in, read_header
from model.preset import Preset, borrowing_presets, load_preset
from model.weights import shipped_weights
from storage.registry import Registry
from tasks.settings import is_weights_file

if TYPE_CHECKING:
    from model.checkpoint import Weights
    from model.separation.foreign import ForeignSeparator
    from model.separation.stream import Separator

# Torch is imported where a network is built: the process that plans a run asks for names alone.


def registry() -> Registry:
    """The user's models and those that came with the package."""
    return Registry(shipped_weights(), borrowers=borrowing_presets())


def load_weights(name: str) -> tuple[str, Weights]:
    """The weights of a model, under the preset that its id names.

    Args:
        name: A model id, a preset's name (its champion is taken), or the path of a weights file.

    Returns:
        (model id, weights).

    Raises:
        RegistryError: The model is unknown or damaged.
        CheckpointError: The file is not a weights file of ours.
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
    """A separator ready to use, of our model or of another project's.

    Args:
        name: A model id, a preset's name (its champion is taken), the path of a weights file, or `family:model` for
            another project's, e.g. demucs:htdemucs.
        device: Where it runs: "cpu", "cuda", "mps" (Apple's GPU), or "auto" for the first that is here of cuda, mps and
            cpu.
        precision: "auto" or one of `model.separation.arithmetic.PRECISIONS`; another project's model ignores it.

    Raises:
        RegistryError: The model is unknown or damaged.
        CheckpointError: The file is not a weights file of ours.
        ModelError: Another project's model cannot be loaded, or the device or precision is not available here.
    """
    from model.separation.arithmetic import resolved_device
    from model.separation.stream import Separator

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
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto" or one of `model.separation.arithmetic.PRECISIONS`.

    Returns:
        The device and the precision, neither of them "auto".

    Raises:
        RegistryError: The model is unknown or damaged.
        ModelError: The device or precision is not available here.
    """
    import torch

    from model.networks import network_class
    from model.separation.arithmetic import resolved_device, separating_precision
    from model.separation.foreign import ForeignSeparator, is_foreign

    device = resolved_device(device)
    if is_foreign(name):
        return device, ForeignSeparator.precision
    network = network_class(_preset_of(name)[1].network)
    return device, separating_precision(precision, torch.device(device), network)


def model_stems(name: str) -> tuple[str, tuple[str, ...]]:
    """A model's id and stems, without building a network of ours.

    Args:
        name: As `load_separator` takes it.

    Returns:
        (model id, stem names in the model's order).

    Raises:
        RegistryError: The model is unknown or damaged.
        CheckpointError: The file is not a weights file of ours.
        ModelError: Another project's model cannot be loaded.
    """
    if ":" in name:
        from model.separation.foreign import is_foreign, load_foreign

        if is_foreign(name):
            separator = load_foreign(name, "cpu")
            return separator.model_id, separator.stems
    model_id, preset = _preset_of(name)
    return model_id, preset.stems


def lasting_name(name: str, model_id: str) -> str:
    """The name by which workers find the model that a run began with, whatever becomes a preset's champion meanwhile.

    Args:
        name: The model as the user names it, as `load_separator` takes it.
        model_id: What it is.

    Returns:
        The id of a registered model; the name of a weights file or of another project's model as it is.
    """
    return name if ":" in name or is_weights_file(name) else model_id


def _preset_of(name: str) -> tuple[str, Preset]:
    """(model id, the preset it is used under) of a model of ours."""
    model_id, data = registry().read(name)
    shown = str(Path(name).name)
    return model_id, _viewing(model_id, preset_in(read_header(data, shown), shown))
