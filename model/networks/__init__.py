"""Networks that turn a mixture's magnitudes into masks, a module each.

Every network takes magnitudes (batch, seen channels, bins, frames) and returns masks in 0…1 of shape
(batch, masks, channels, bins, frames): one mask a stem, the last stem's left out where it is what the
others leave. `bins` and `channels` are those of its preset, and the seen channels are those or, with mid
and side after them, two more; `frames` may be any multiple of 2^levels.
"""

from model.networks.classifier import BinClassifier
from model.networks.jansson import JanssonUNet
from model.networks.recurrent import RecurrentRefiner
from model.networks.stereo import StereoUNet

NETWORKS = {"jansson": JanssonUNet, "stereo": StereoUNet, "cnn": BinClassifier, "crnn": RecurrentRefiner}

__all__ = ["NETWORKS", "BinClassifier", "JanssonUNet", "RecurrentRefiner", "StereoUNet"]
