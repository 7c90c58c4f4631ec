"""Weights and training state as bytes: safetensors with a JSON header, never pickle.

A model's id is its preset's name and the first eight hex digits of the SHA-256 of its file's bytes,
so a file that is damaged, cut or swapped does not match its name.
"""

import contextlib
import hashlib
import json
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from model.bounds import excerpt
from model.errors import CheckpointError
from model.header import preset_in, read_header
from model.networks import NETWORKS, network_class
from model.preset import Preset

_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)


@dataclass(frozen=True)
class Weights:
    """A network's weights, the preset they belong to, and the record of the training that made them.

    `calibrations` has, per preset (this one, and those that borrow these weights), what
    `model.separation.prediction.Calibration` makes predictions with; empty where none was fitted.
    """

    preset: Preset
    tensors: dict[str, torch.Tensor]
    record: dict
    calibrations: dict = field(default_factory=dict)

    def to_bytes(self, dtype: torch.dtype | None = None) -> bytes:
        """The weights as the bytes of a safetensors file.

        Args:
            dtype: Type to convert floating-point tensors to (float16 halves the file); None keeps theirs.
        """
        tensors = {
            name: tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
            for name, tensor in self.tensors.items()
        }
        header = {"preset": self.preset.to_dict(), "record": self.record}
        return pack(tensors, {**header, "calibrations": self.calibrations} if self.calibrations else header)

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> "Weights":
        """The weights that `to_bytes` wrote, checked.

        Args:
            data: The bytes of the file.
            name: What to call it in an error.

        Raises:
            CheckpointError: The bytes are cut, damaged or not ours, or a tensor holds NaN, infinity or what float32
                cannot hold.
            PresetError: The preset in the header does not fit this version, or holds a number out of bounds.
        """
        tensors, header = unpack(data, name)
        for tensor_name, tensor in tensors.items():
            if tensor.dtype not in _TYPES:
                raise CheckpointError(
                    f"{name}: the tensor {excerpt(tensor_name)} is of {tensor.dtype}, which no network has"
                )
            if tensor.is_floating_point() and not _finite(tensor):
                raise CheckpointError(
                    f"{name}: the tensor {excerpt(tensor_name)} holds NaN or infinity; train it again"
                )
        record, calibrations = header.get("record", {}), header.get("calibrations", {})
        if not isinstance(record, dict) or not isinstance(calibrations, dict):
            raise CheckpointError(f"{name}: its record is not a table; it was not written by unbraid")
        return cls(preset_in(header, name), tensors, record, calibrations)

    def network(self) -> torch.nn.Module:
        """The network with these weights in float32, in evaluation mode.

        Raises:
            CheckpointError: The network cannot be built, or the weights do not fit it.
        """
        # Of a network of ours only shapes are built: its weights replace them, and a stranger's preset may describe one
        # that no machine holds. That of another package may need its numbers as it is built.
        with torch.device("meta") if self.preset.network in NETWORKS else contextlib.nullcontext():
            network = build(self.preset)
        self._check_fit(network)
        # Copies: a network in use changes its weights in place.
        copies = {name: self.tensors[name].to(empty.dtype, copy=True) for name, empty in network.state_dict().items()}
        network.load_state_dict(copies, assign=True)
        return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _check_fit(self, network: torch.nn.Module) -> None:
        """Compare the tensors' shapes and the preset's channels with the network's. Raises CheckpointError."""
        shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        given = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        for name in sorted(shapes.keys() | given.keys()):
            if shapes.get(name) != given.get(name):
                raise CheckpointError(
                    f"weights do not fit the network of preset {self.preset.name}: {excerpt(name)} is "
                    f"{given.get(name, 'missing')}, and the network has {shapes.get(name, 'none')}"
                )
        channels = getattr(network, "channels", self.preset.channels)
        if channels != self.preset.channels:
            raise CheckpointError(
                f"preset {self.preset.name} has {self.preset.channels} channels, and its network {channels}"
            )


def build(preset: Preset) -> torch.nn.Module:
    """A fresh network of the preset's kind, its weights drawn from torch's random numbers.

    Args:
        preset: What names the network, its bins and its options.

    Raises:
        CheckpointError: There is no such network, or it does not take the preset's options.
    """
    try:
        return network_class(preset.network)(bins=preset.bins, **preset.network_options)
    except Exception as error:  # its options may be anything
        raise CheckpointError(f"the network of preset {preset.name} cannot be built: {excerpt(error)}") from error


def model_id(preset_name: str, data: bytes) -> str:
    """The id of a model.

    Args:
        preset_name: Name of the preset the weights belong to.
        data: The bytes of the weights file.

    Returns:
        The name, a hyphen and the first eight hex digits of the SHA-256 of the bytes.
    """
    return f"{preset_name}-{hashlib.sha256(data).hexdigest()[:8]}"


def pack(tensors: dict[str, torch.Tensor], header: dict) -> bytes:
    """Tensors and a header as the bytes of a safetensors file.

    Args:
        tensors: By name, on any device.
        header: Plain values that JSON can hold; `model.header.read_header` returns them.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save_tensors(tensors, {"unbraid": json.dumps(header, sort_keys=True)})


def unpack(data: bytes, name: str) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors and the header that `pack` wrote.

    Args:
        data: The bytes of the file.
        name: What to call it in an error.

    Returns:
        The tensors by name, on the CPU, and the header.

    Raises:
        CheckpointError: The bytes are cut, damaged or not ours.
    """
    header = read_header(data, name)
    try:
        return load_tensors(data), header
    except (SafetensorError, ValueError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise CheckpointError(
            f"{name} is not a complete unbraid checkpoint ({type(error).__name__}); fetch or train it again"
        ) from error


def _finite(tensor: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite: of such a value in float16 all five bits of the exponent are set."""
    if tensor.dtype is torch.float64:  # finite in float32, which is computed in
        tensor = tensor.float()
    if tensor.dtype is torch.float16:  # in a tenth of the time of `isfinite`
        return not bool((tensor.view(torch.int16) & 0x7C00).eq(0x7C00).any())
    return bool(tensor.isfinite().all())
