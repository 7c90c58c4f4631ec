"""Random weights of a preset, for benches that measure or break everything but the network's taste."""

from pathlib import Path

import torch

from model.checkpoint import Weights, build, model_id
from model.preset import load_preset


def random_weights(preset_name: str, folder: Path) -> str:
    """A weights file of a preset, the same each time; returns its path."""
    torch.manual_seed(0)
    preset = load_preset(preset_name)
    data = Weights(preset, build(preset).state_dict(), {}).to_bytes()
    path = folder / f"{model_id(preset_name, data)}.safetensors"
    path.write_bytes(data)
    return str(path)
