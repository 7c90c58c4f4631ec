"""Networks that turn a mixture's magnitudes into masks, one module each.

Every network takes magnitudes (batch, seen channels, bins, frames) and returns masks in 0…1 of shape
(batch, masks, channels, bins, frames): one mask per stem, the last stem's left out where it is what the
others leave. `bins` and `channels` are those of its preset, and the seen channels are those or, with mid
and side after them, two more; `frames` may be any multiple of 2^levels.

A network from another package joins by an entry point of the group `unbraid.networks`:

    [project.entry-points."unbraid.networks"]
    mine = "my_package:MyNetwork"

It is built as `MyNetwork(bins=…, **network_options)`; a preset names it by `network = "mine"`.
"""

from importlib import metadata

from torch import nn

from model.bounds import excerpt
from model.errors import ModelError
from model.networks.classifier import BinClassifier
from model.networks.jansson import JanssonUNet
from model.networks.recurrent import RecurrentRefiner
from model.networks.stereo import StereoUNet

NETWORKS: dict[str, type[nn.Module]] = {
    "jansson": JanssonUNet,
    "stereo": StereoUNet,
    "cnn": BinClassifier,
    "crnn": RecurrentRefiner,
}

GROUP = "unbraid.networks"

__all__ = ["GROUP", "NETWORKS", "BinClassifier", "JanssonUNet", "RecurrentRefiner", "StereoUNet", "network_class"]


def network_class(name: str) -> type[nn.Module]:
    """The class behind the name that a preset gives.

    Args:
        name: A name in `NETWORKS`, or of an entry point in the group `unbraid.networks`.

    Raises:
        ModelError: No network of that name is here, or the package that brings it cannot be imported.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    entries = metadata.entry_points(group=GROUP)
    if name not in entries.names:
        raise ModelError(
            f"there is no network {excerpt(name)}; there are {', '.join(sorted({*NETWORKS, *entries.names}))}"
        )
    try:
        return entries[name].load()
    except (ImportError, AttributeError) as error:
        raise ModelError(f"the network {name} cannot be loaded ({error}); install its package again") from error
