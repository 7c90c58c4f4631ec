"""The folder of the weights that come with the package."""

from importlib import resources
from pathlib import Path


def shipped_weights() -> Path:
    return Path(str(resources.files("model") / "weights"))
