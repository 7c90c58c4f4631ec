"""A U-Net's convolutions in 8-bit integers, for processors that multiply those four at a time (AVX-512 VNNI, AVX-VNNI).

Weights have one scale per output channel, activations one scale and zero point per tensor. In the encoder the scale is
taken from the range of the tensor's values ("dynamic quantisation"). A decoder's convolution writes its output as 8-bit
integers at once, so its range must be known before: the batch norm says it (`reach`). So a network needs no calibration
and a segment's result depends on nothing beside it. Products are summed in 32-bit integers, exactly and in any order.
oneDNN does the work, by the operators that torch's compiler uses for quantised networks.

Scheme: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, sections 2.2 and 3.1.
"""

from dataclasses import dataclass

import torch
from torch import nn

_ONE = [1, 1]
_PART = 1 << 17  # values that are rounded at a time: what is between them and their levels stays in a core's cache
DEVIATIONS = 6.0  # that lie within the range of a batch norm's output


def supported() -> bool:
    """Whether this processor multiplies 8-bit integers faster than float32, and this torch can tell it to."""
    return torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported()


# One level less than there are, so that no rounding, of the zero point or of a value, leaves 0 … 255.
_MOST = 254


@dataclass(frozen=True)
class Scale:
    """What 8-bit levels mean: level l is the value (l − zero) · step."""

    step: float
    zero: int

    @classmethod
    def over(cls, lowest: float, highest: float) -> "Scale":
        """The scale of a range, extended to 0 where it does not hold it."""
        lowest, highest = min(lowest, 0.0), max(highest, 0.0)
        step = max(highest - lowest, 1e-12) / _MOST
        return cls(step, round(-lowest / step))

    def levels(self, x: torch.Tensor) -> torch.Tensor:
        """The nearest levels of an activation; values out of range take the nearest end of it."""
        dense = _dense(x)
        levels = torch.empty_like(dense, dtype=torch.uint8)
        values, rounded = dense.view(-1), levels.view(-1)
        for start in range(0, len(values), _PART):
            part = slice(start, start + _PART)
            # Half a level more, since the conversion cuts off; by way of 16 bits it takes less than half the time.
            rounded[part] = torch.add(self.zero + 0.5, values[part], alpha=1 / self.step).to(torch.int16)
        return levels.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Quantised:
    """An activation (items, channels, rows, columns) as 8-bit integers, in channels-last order."""

    levels: torch.Tensor
    scale: Scale

    @classmethod
    def of(cls, x: torch.Tensor, highest: float = 0.0) -> "Quantised":
        """The nearest levels of an activation, on a scale of its range.

        Args:
            x: float32 (items, channels, rows, columns); its extremes and 0 are represented.
            highest: What the scale goes up to at least.
        """
        lowest, largest = (value.item() for value in _dense(x).aminmax())
        scale = Scale.over(lowest, max(largest, highest))
        return cls(scale.levels(x), scale)


def _dense(x: torch.Tensor) -> torch.Tensor:
    """A view whose last axis is the channels: over permuted axes torch's loops are slow, though no gaps lie between."""
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)


class Int8Conv2d(nn.Module):
    """A convolution of a `Quantised` input, its weights in 8-bit integers.

    Args:
        weight: (channels out, channels in, rows, columns), float32.
        bias: (channels out,) or None.
        stride: In both directions.
        padding: In both directions, on both sides.
        size: Rows and columns of the inputs that the weights are laid out for. They are laid out anew whenever an input
            of another size asks for that: the same sums, but it takes longer.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, *, stride: int = 1, padding: int = 1, size: int
    ) -> None:
        super().__init__()
        self._stride, self._padding = [stride] * 2, [padding] * 2
        # In channels-last order: over the memory as it lies these passes take a third of the time.
        rows = weight.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        self._scale = rows.flatten(1).abs().amax(1).clamp(min=1e-12) / 127
        self._zero = torch.zeros(len(weight), dtype=torch.int)
        self._bias = bias
        levels = (rows / self._scale[:, None, None, None]).round_().to(torch.int8).permute(0, 3, 1, 2)
        # The layout depends on whether inputs have a scale and a zero point, not on their values.
        self._packed = torch.ops.onednn.qconv_prepack(
            levels, self._scale, 0.5, 1, self._stride, self._padding, _ONE, 1, [1, weight.shape[1], size, size]
        )

    def forward(self, x: Quantised) -> torch.Tensor:
        """The convolution.

        Args:
            x: (items, channels in, rows, columns).

        Returns:
            float32 (items, channels out, rows out, columns out).
        """
        return self._computed(x, "none", torch.float32, 1.0, 0)

    def relu(self, x: Quantised, scale: Scale) -> torch.Tensor:
        """The levels of ReLU of the convolution; values beyond the scale's end take its end.

        Args:
            x: As for `forward`.
            scale: What the levels mean.

        Returns:
            uint8, of the shape that `forward` returns.
        """
        return self._computed(x, "relu", torch.uint8, scale.step, scale.zero)

    def _computed(self, x: Quantised, after: str, dtype: torch.dtype, step: float, zero: int) -> torch.Tensor:
        return torch.ops.onednn.qconv2d_pointwise(
            x.levels, x.scale.step, x.scale.zero, self._packed, self._scale, self._zero,
            self._bias, self._stride, self._padding, _ONE, 1, step, zero, dtype, after, [], "",
        )  # fmt: skip


class Int8Up(nn.Module):
    """A transposed convolution and ReLU. Its even and its odd output rows are an ordinary convolution each.

    Source: Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016.

    Args:
        weight: (channels in, channels out, 5, 5) of `ConvTranspose2d(stride=2, padding=2, output_padding=1)`.
        bias: (channels out,) or None.
        size: As for `Int8Conv2d`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, *, size: int) -> None:
        super().__init__()
        even, odd = as_phases(weight)
        both = None if bias is None else bias.repeat(2)
        self._even = Int8Conv2d(even, both, size=size)
        self._odd = Int8Conv2d(odd[:, :, 1:], both, size=size)  # no odd row needs the input row before

    def forward(self, x: Quantised, scale: Scale) -> list[torch.Tensor]:
        """Levels of the even output rows, and of the odd ones.

        Args:
            x: (items, channels in, rows, columns).
            scale: What the levels mean.

        Returns:
            uint8, (items, 2 · channels out, rows, columns) each: channel group b is the columns 2j + b.
        """
        return [self._even.relu(x, scale), self._odd.relu(x, scale)[:, :, 1:]]


def as_phases(weight: torch.Tensor) -> torch.Tensor:
    """Weights of convolutions (padding 1) that compute a transposed convolution's output row parity by row parity.

    Args:
        weight: (channels in, channels out, 5, 5) of `ConvTranspose2d(stride=2, padding=2, output_padding=1)`.

    Returns:
        (2, 2 · channels out, channels in, 3, 3): element a gives the rows 2i + a, and its channel group b the columns
        2j + b.
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
    return phases.flatten(1, 2).permute(0, 1, 4, 2, 3)


def beside(halves: list[torch.Tensor], skip: Quantised) -> Quantised:
    """What comes up from below, and a skip connection's channels after it.

    Args:
        halves: Levels of even and odd rows, as `Int8Up` returns them, on the scale of `skip`.
        skip: (items, channels, rows, columns).
    """
    items, _, rows, columns = skip.levels.shape
    channels = halves[0].shape[1] // 2
    both = skip.levels.new_empty(items, rows, columns, channels + skip.levels.shape[1])
    for parity, half in enumerate(halves):
        # Channels are last in memory, so the groups of even and odd columns alternate as columns do.
        both[:, parity::2, :, :channels] = half.permute(0, 2, 3, 1).reshape(items, rows // 2, columns, channels)
    both[..., channels:] = skip.levels.permute(0, 2, 3, 1)
    return Quantised(both.permute(0, 3, 1, 2), skip.scale)


def phased(weight: torch.Tensor) -> torch.Tensor:
    """The weight of a convolution of stride 2 and padding 1 that gives the phases of one of stride 1 and padding 1.

    Args:
        weight: (channels out, channels in, 3, 3).

    Returns:
        (4 · channels out, channels in, 4, 4): channel group 2a + b is the rows 2i + a, columns 2j + b.
    """
    wide = weight.new_zeros(2, 2, *weight.shape[:2], 4, 4)
    for a in range(2):
        for b in range(2):
            wide[a, b, :, :, a : a + 3, b : b + 3] = weight
    return wide.flatten(0, 2)


def columns_apart(weight: torch.Tensor) -> torch.Tensor:
    """The weight of `phased` for an input whose even and odd columns are channels, the even ones first.

    Args:
        weight: (channels out, channels in, rows, 4), stride 2 and padding 1 along the columns.

    Returns:
        (channels out, 2 · channels in, rows, 3), stride 1 and padding 1.
    """
    channels = weight.shape[1]
    apart = weight.new_zeros(len(weight), 2 * channels, weight.shape[2], 3)
    apart[:, :channels, :, 1:] = weight[..., 1::2]  # tap n sees column 2j + n − 1
    apart[:, channels:, :, :2] = weight[..., 0::2]
    return apart


def joined(phases: torch.Tensor) -> torch.Tensor:
    """The phases that `phased` gives as one picture.

    Args:
        phases: (items, 4 · channels, rows, columns).

    Returns:
        (items, channels, 2 · rows, 2 · columns), contiguous.
    """
    items, channels, rows, columns = phases.shape
    apart = phases.unflatten(1, (2, 2, channels // 4)).permute(0, 3, 4, 1, 5, 2)
    return apart.reshape(items, channels // 4, 2 * rows, 2 * columns)
