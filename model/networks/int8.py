"""A U-Net's convolutions in 8-bit integers, for processors that multiply those four at a time (AVX-512 VNNI, AVX-VNNI).

Weights have one scale per output channel, activations one scale and zero point per tensor, taken from the range
of its values ("dynamic quantisation"), so a network needs no calibration and a segment's result depends on
nothing beside it. Products are summed in 32-bit integers, exactly and in any order. Everything between the convolutions
stays in float32. oneDNN does the work, by the operators that torch's compiler uses for quantised networks.

Scheme: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, sections 2.2 and 3.1.
"""

from dataclasses import dataclass

import torch
from torch import nn

_ONE = [1, 1]
_PART = 1 << 17  # values that are rounded at a time: what is between them and their levels stays in a core's cache


def supported() -> bool:
    """Whether this processor multiplies 8-bit integers faster than float32, and this torch can tell it to."""
    return torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported()


@dataclass(frozen=True)
class Quantised:
    """An activation (items, channels, rows, frames) as 8-bit integers, in channels-last order.

    A level l is the value (l − zero) · scale.
    """

    levels: torch.Tensor
    scale: float
    zero: int

    @classmethod
    def of(cls, x: torch.Tensor) -> "Quantised":
        """The nearest levels of an activation, on a scale of its range.

        Args:
            x: float32 (items, channels, rows, frames); its extremes and 0 are represented.
        """
        lowest, highest = (value.item() for value in _dense(x).aminmax())
        scale, zero = _scale(min(lowest, 0.0), max(highest, 0.0))
        return cls(_levels(x, scale, zero), scale, zero)

    def beside(self, x: torch.Tensor) -> "Quantised":
        """A skip connection's channels after those that come up to it, on one scale.

        Both have nearly the same range in a trained network, so the scale stays as it is, or loses a bit at most.

        Args:
            x: Output of `Int8Conv2d.transposed`, nowhere negative: float32 (items, 4 · channels, rows / 2, frames / 2).

        Returns:
            Channels of `x`, interleaved, then these: (items, channels of both, rows, frames).
        """
        highest = _dense(x).amax().item()
        skip = self if highest <= (_MOST - self.zero) * self.scale else self._up_to(highest)
        levels = interleaved(_levels(x, skip.scale, skip.zero))
        return Quantised(torch.cat([levels, skip.levels], dim=1), skip.scale, skip.zero)

    def _up_to(self, highest: float) -> "Quantised":
        """The same values on a scale that goes up to `highest`."""
        scale, zero = _scale(-self.zero * self.scale, highest)
        values = self.levels.to(torch.float32).sub_(self.zero).mul_(self.scale)
        return Quantised(_levels(values, scale, zero), scale, zero)


# One level less than there are, so that no rounding, of the zero point or of a value, leaves 0 … 255.
_MOST = 254


def _scale(lowest: float, highest: float) -> tuple[float, int]:
    scale = max(highest - lowest, 1e-12) / _MOST
    return scale, round(-lowest / scale)


def _levels(x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
    dense = _dense(x)
    levels = torch.empty_like(dense, dtype=torch.uint8)
    values, rounded = dense.view(-1), levels.view(-1)
    for start in range(0, len(values), _PART):
        part = slice(start, start + _PART)
        # Half a level more, since the conversion cuts off.
        rounded[part] = torch.add(zero + 0.5, values[part], alpha=1 / scale)
    return levels.permute(0, 3, 1, 2)


def _dense(x: torch.Tensor) -> torch.Tensor:
    """A view whose last axis is the channels: over permuted axes torch's loops are slow, though no gaps lie between."""
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)


def interleaved(phases: torch.Tensor) -> torch.Tensor:
    """Phases of a transposed convolution's output as the output: channel group 2a + b is the phase (a, b).

    Args:
        phases: (items, 4 · channels, rows, frames).

    Returns:
        (items, channels, 2 · rows, 2 · frames), in channels-last order.
    """
    items, channels, rows, frames = phases.shape
    split = phases.permute(0, 2, 3, 1).reshape(items, rows, frames, 2, channels // 2).transpose(2, 3)
    return split.reshape(items, 2 * rows, 2 * frames, channels // 4).permute(0, 3, 1, 2)


class Int8Conv2d(nn.Module):
    """A convolution of a `Quantised` input to float32, its weights in 8-bit integers.

    Args:
        weight: (channels out, channels in, k, k), float32.
        bias: (channels out,) or None.
        stride: In both directions.
        padding: In both directions.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, *, stride: int, padding: int) -> None:
        super().__init__()
        self._stride, self._padding = [stride] * 2, [padding] * 2
        # In channels-last order: over the memory as it lies these passes take a third of the time.
        rows = weight.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        self._scale = rows.flatten(1).abs().amax(1).clamp(min=1e-12) / 127
        self._zero = torch.zeros(len(weight), dtype=torch.int)
        self._bias = bias
        levels = (rows / self._scale[:, None, None, None]).round_().to(torch.int8).permute(0, 3, 1, 2)
        self._packed = torch.ops.onednn.qconv_prepack(
            levels, self._scale, 1.0, 0, self._stride, self._padding, _ONE, 1, None
        )

    @classmethod
    def transposed(cls, conv: nn.ConvTranspose2d) -> "Int8Conv2d":
        """A transposed convolution as one of stride 1 with four times the channels, one group per output phase.

        Source: Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016.

        Args:
            conv: 5×5, stride 2, padding 2, output padding 1.

        Returns:
            The convolution; `interleaved` turns its output into that of `conv`.
        """
        bias = None if conv.bias is None else conv.bias.repeat(4)
        return cls(as_phases(conv.weight), bias, stride=1, padding=1)

    def forward(self, x: Quantised, *, relu: bool = False) -> torch.Tensor:
        """The convolution.

        Args:
            x: (items, channels in, rows, frames).
            relu: Whether to apply ReLU to the result.

        Returns:
            float32 (items, channels out, rows out, frames out).
        """
        return torch.ops.onednn.qconv2d_pointwise(
            x.levels, x.scale, x.zero, self._packed, self._scale, self._zero,
            self._bias, self._stride, self._padding, _ONE, 1,
            1.0, 0, torch.float32, "relu" if relu else "none", [], "",
        )  # fmt: skip


def as_phases(weight: torch.Tensor) -> torch.Tensor:
    """The weight of a convolution (3×3, padding 1) whose channels are the phases of a transposed one's output.

    Args:
        weight: (channels in, channels out, 5, 5) of `ConvTranspose2d(stride=2, padding=2, output_padding=1)`.

    Returns:
        (4 · channels out, channels in, 3, 3), in the order that `interleaved` takes, channels last in memory.
    """
    before, after = weight.shape[:2]
    taps = weight.permute(2, 3, 1, 0).contiguous()  # transposed once, not tap by tap
    phases = weight.new_zeros(2, 2, after, 3, 3, before)
    for a in range(2):
        for b in range(2):
            for row in range(3):
                for column in range(3):
                    # Output 2j + a takes input j + d with tap a + 2 − 2d of the transposed kernel, d = row − 1.
                    i, j = a + 4 - 2 * row, b + 4 - 2 * column
                    if 0 <= i < 5 and 0 <= j < 5:
                        phases[a, b, :, row, column] = taps[i, j]
    return phases.reshape(4 * after, 3, 3, before).permute(0, 3, 1, 2)
