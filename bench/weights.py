"""Random weights of a preset, for benches in which the quality of the separation is irrelevant."""

from pathlib import Path
from typing import Any

import torch

from model.checkpoint import Weights, build, model_id
from model.preset import load_preset


def random_weights(preset_name: str, folder: Path, **settings: Any) -> str:
    """Write random weights of a preset, the same each time.

    Args:
        preset_name: The preset.
        folder: Where the file goes.
        settings: What replaces settings of the preset, as for `load_preset`.

    Returns:
        The file's path.
    """
    torch.manual_seed(0)
    preset = load_preset(preset_name, **settings)
    data = Weights(preset, build(preset).state_dict(), {}).to_bytes()
    path = folder / f"{model_id(preset_name, data)}.safetensors"
    path.write_bytes(data)
    return str(path)
