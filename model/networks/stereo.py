"""Our own U-Net: the network of the presets stereo, hq and four-stem."""

import math

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.networks.int8 import DEVIATIONS, Int8Conv2d, Int8Up, Quantised, Scale, beside, columns_apart, joined, phased
from model.spectra.bands import Gather, Spread


class StereoUNet(nn.Module):
    """A U-Net over the full band of a stereo signal, on the warped frequency axis of `model.spectra.bands`.

    Input: magnitudes relative to the patch's mean, log-compressed, in `rows` rows. Each level halves
    both axes by a 5×5 convolution; from the second on a frequency-wise bottleneck (the
    time-distributed fully connected layer of Choi et al., "Investigating U-Nets with various
    intermediate blocks", ISMIR 2020) lets a partial see its harmonics far away. The masks are
    interpolated back to all bins. Because the input is relative, a louder file gives the same masks.

    With `mid_side` it sees |L + R| / 2 and |L − R| / 2 too (`model.spectra.frontend.magnitudes`): magnitudes of left
    and right alone do not tell a voice in the middle from a backing that is as loud on both sides. With
    `exclusive` the masks of all stems sum to one (Spleeter's four-stem model shares a bin among its stems the same
    way); without, each is a separate sigmoid. `unnamed` more stems then share the bins and have their masks left out:
    a network that knows drums and bass apart, but is asked for the vocals alone.
    """

    def __init__(
        self,
        bins: int = 2049,
        rows: int = 512,
        channels: int = 2,
        widths: tuple[int, ...] = (32, 64, 128, 192, 256, 256),
        bottleneck: int = 4,
        estimated: int = 1,
        mid_side: bool = False,
        exclusive: bool = False,
        unnamed: int = 0,
    ) -> None:
        super().__init__()
        self.bins, self.channels, self.estimated, self.exclusive = bins, channels, estimated, exclusive
        self.sharing = estimated + unnamed  # stems that the last layer has logits of
        self.multiple = 1 << len(widths)  # frames come in multiples of this
        seen = channels + 2 if mid_side else channels
        self.gather = Gather(bins, rows)
        self.spread = Spread(bins, rows)
        self.input_scale = nn.Parameter(torch.ones(1, 1, rows, 1))
        self.input_shift = nn.Parameter(torch.zeros(1, 1, rows, 1))
        self.down = nn.ModuleList()
        before = seen
        for level, width in enumerate(widths):
            self.down.append(_Down(before, width, (rows >> (level + 1)) if level else 0, bottleneck))
            before = width
        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            leaving = widths[level - 1] if level else widths[0] // 2
            self.up.append(_Up(before, leaving))
            before = leaving + (widths[level - 1] if level else seen)
        self.masks = nn.Conv2d(before, channels * self.sharing, 3, padding=1)
        self._int8: _Int8Trunk | None = None

    def adapted(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Another network's tensors as this one can start from.

        A network with one mask per channel, a sigmoid, and one that shares the bins among K stems by a softmax give the
        first stem the same mask if its logit is higher by log(K − 1) and the others' are zero:
        exp(z + log(K − 1)) / (exp(z + log(K − 1)) + K − 1) = 1 / (1 + exp(−z)).

        Args:
            tensors: The state of another network.

        Returns:
            The tensors, those of its last layer for the masks of this network where they were for one.
        """
        weight, bias = tensors.get("masks.weight"), tensors.get("masks.bias")
        if not self.exclusive or self.sharing < 2 or weight is None or bias is None:
            return tensors
        if weight.shape != (self.channels, *self.masks.weight.shape[1:]):
            return tensors
        added = (self.sharing - 1) * self.channels
        weight = torch.cat([weight, weight.new_zeros(added, *weight.shape[1:])])
        bias = torch.cat([bias + math.log(self.sharing - 1), bias.new_zeros(added)])
        return {**tensors, "masks.weight": weight, "masks.bias": bias}

    def fuse(self, dtype: torch.dtype = torch.float32) -> None:
        """Fold the batch norms into their convolutions, for inference: the same masks to rounding, in less time.

        Args:
            dtype: Type of the blocks' weights from now on: what autocast would convert them to at every call.
        """
        for block in (*self.down, *self.up):
            block.fuse()
            block.to(dtype)

    @torch.no_grad()  # or every tensor on the way would be kept for gradients that nobody takes
    def quantise(self) -> None:
        """Compute the convolutions in 8-bit integers from now on (`model.networks.int8`), for use on a CPU."""
        reach = [block.reach() for block in self.up if isinstance(block, _Up)]
        self.fuse()
        self._int8 = _Int8Trunk(self, reach)

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        """Masks of a batch of patches.

        Args:
            magnitude: (batch, seen channels, bins, frames), as `model.spectra.frontend.magnitudes` returns them; frames
                in multiples of `multiple`.

        Returns:
            Masks in 0…1, (batch, masks, channels, bins, frames).
        """
        logits = self.logits(self.rows(magnitude))
        with torch.autocast(logits.device.type, enabled=False):
            return self.spread(self.masks_of(logits))

    def rows(self, magnitude: torch.Tensor) -> torch.Tensor:
        """What the convolutions see of a batch of patches.

        Args:
            magnitude: As for `forward`.

        Returns:
            Compressed relative magnitudes, (batch, seen channels, rows, frames).
        """
        x = self.gather(magnitude)
        gain = 4 / torch.clamp(x[:, : self.channels].mean(dim=(1, 2, 3), keepdim=True), min=1e-8)
        return torch.addcmul(self.input_shift, torch.log1p(x * gain), self.input_scale)

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """What the convolutions make of it.

        Args:
            rows: What `rows` returned.

        Returns:
            (batch, stems · channels, rows, frames), the unnamed stems last.
        """
        return self._logits(rows) if self._int8 is None else self._int8(rows)

    def masks_of(self, logits: torch.Tensor) -> torch.Tensor:
        """The masks that logits mean, before they are interpolated to bins.

        Args:
            logits: What `logits` returned.

        Returns:
            Masks in 0…1, (batch, masks, channels, rows, frames).
        """
        apart = logits.unflatten(1, (self.sharing, self.channels))
        shared = torch.softmax(apart, dim=1) if self.exclusive else torch.sigmoid(apart)
        return shared[:, : self.estimated]

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(x)
        for block in self.up:
            x = torch.cat([block(x), skips.pop().to(x.dtype)], dim=1)
        with torch.autocast(x.device.type, enabled=False):
            # In bfloat16 a mask has steps of 1/256: a leak at −48 dB. These few operations stay exact.
            return self.masks(x.float())


class _Int8Trunk(nn.Module):
    """What `StereoUNet._logits` computes, its convolutions in 8-bit integers; batch norms are folded in.

    Inside, rows are frames and columns are frequency, as a spectrum lies in memory.

    Args:
        network: The network, its batch norms folded.
        reach: What each decoder block's output goes up to.
    """

    def __init__(self, network: StereoUNet, reach: list[float]) -> None:
        super().__init__()
        down = [block for block in network.down if isinstance(block, _Down)]
        up = [block for block in network.up if isinstance(block, _Up)]
        size = len(network.gather.weights)  # rows, and about as many frames as a full segment has
        self.down = nn.ModuleList(
            Int8Conv2d(_turned(block.conv.weight), block.conv.bias, stride=2, padding=2, size=size >> level)
            for level, block in enumerate(down)
        )
        self.across = [block.across for block in down]
        self.up = nn.ModuleList(
            Int8Up(_turned(block.conv.weight), block.conv.bias, size=size >> (len(up) - level))
            for level, block in enumerate(up)
        )
        self._reach = reach
        # The last convolution computes the four phases of its output as channels, from those of what comes up
        # and from the input itself; they are added at the end.
        wide = phased(_turned(network.masks.weight))
        channels = up[-1].conv.out_channels
        assert network.masks.bias is not None
        bias = network.masks.bias.repeat(4)
        self._masks_even = Int8Conv2d(columns_apart(wide[:, :channels, 1::2]), bias, size=size // 2)
        self._masks_odd = Int8Conv2d(columns_apart(wide[:, :channels, 0::2]), None, size=size // 2)
        self._masks_seen = Int8Conv2d(wide[:, channels:], None, stride=2, size=size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits.

        Args:
            x: (items, seen channels, rows, frames).

        Returns:
            (items, masks, rows, frames), in memory frame by frame.
        """
        seen = level = Quantised.of(_turned(x))
        skips: list[Quantised] = []
        for conv, across, reach in zip(self.down, self.across, [*reversed(self._reach[:-1]), 0.0], strict=True):
            after = nn.functional.leaky_relu_(conv(level), 0.2)
            if isinstance(across, _AcrossFrequency):
                after = across.of_columns(after)
            level = Quantised.of(after, reach)
            skips.append(level)
        skips.pop()
        for conv in self.up[:-1]:
            skip = skips.pop()
            level = beside(conv(level, skip.scale), skip)
        top = Scale.over(0.0, self._reach[-1])
        even, odd = (Quantised(levels, top) for levels in self.up[-1](level, top))
        logits = self._masks_seen(seen).add_(self._masks_even(even)[:, :, 1:]).add_(self._masks_odd(odd)[:, :, :-1])
        return _turned(joined(logits))


def _turned(x: torch.Tensor) -> torch.Tensor:
    """The last two axes exchanged."""
    return x.transpose(-1, -2)


class _Down(nn.Module):
    """Convolution of stride 2, then the frequency bottleneck over `rows` rows (none where 0)."""

    def __init__(self, before: int, after: int, rows: int, factor: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 5, stride=2, padding=2, bias=False)
        self.norm: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(after)
        self.across = _AcrossFrequency(rows, factor) if rows else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        after = nn.functional.leaky_relu(self.norm(self.conv(x)), 0.2, inplace=not torch.is_grad_enabled())
        return self.across(after)

    def fuse(self) -> None:
        assert isinstance(self.norm, nn.BatchNorm2d)
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class _AcrossFrequency(nn.Module):
    """x + W₂ relu(W₁ x) along frequency, the same for every channel and frame; starts as identity."""

    def __init__(self, rows: int, factor: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(rows, max(4, rows // factor))
        self.expand = nn.Linear(max(4, rows // factor), rows)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            moved = torch.relu(self.squeeze(x.transpose(-1, -2)))
            return x + self.expand(moved).transpose(-1, -2)
        # The same sums without a copy: in channels-last order the rows of a matrix are already contiguous.
        rows = x.permute(0, 2, 3, 1).flatten(2)
        items = len(rows)
        moved = torch.bmm(self.squeeze.weight.expand(items, -1, -1), rows).add_(self.squeeze.bias[:, None]).relu_()
        added = torch.bmm(self.expand.weight.expand(items, -1, -1), moved).add_(self.expand.bias[:, None]).add_(rows)
        return added.unflatten(2, (x.shape[3], x.shape[1])).permute(0, 3, 1, 2)

    def of_columns(self, x: torch.Tensor) -> torch.Tensor:
        """The same where frequency is the last axis; `x` is overwritten.

        Args:
            x: (items, channels, frames, rows), channels last in memory.
        """
        frames = x.permute(0, 2, 3, 1).flatten(0, 1)
        items = len(frames)
        moved = torch.bmm(self.squeeze.weight.expand(items, -1, -1), frames).add_(self.squeeze.bias[:, None]).relu_()
        frames.add_(self.expand.bias[:, None]).baddbmm_(self.expand.weight.expand(items, -1, -1), moved)
        return x


class _Up(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1, bias=False)
        self.norm: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.norm(self.conv(x)), inplace=not torch.is_grad_enabled())

    def fuse(self) -> None:
        assert isinstance(self.norm, nn.BatchNorm2d)
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm, transpose=True), nn.Identity()

    def reach(self) -> float:
        """What the output goes up to: a batch norm's output has this mean and deviation, channel by channel.

        Source: Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019, section 5.
        """
        assert isinstance(self.norm, nn.BatchNorm2d)
        return float((self.norm.bias + DEVIATIONS * self.norm.weight.abs()).max())
