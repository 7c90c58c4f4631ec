"""Our own U-Net: the network of the presets stereo, hq and four-stem."""

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.networks.int8 import Int8Conv2d, Quantised
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
    `exclusive` the masks are those of all `estimated` stems and sum to one (Spleeter's four-stem model shares
    a bin among its stems the same way); without, each is a separate sigmoid.
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
    ) -> None:
        super().__init__()
        self.bins, self.channels, self.estimated, self.exclusive = bins, channels, estimated, exclusive
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
        self.masks = nn.Conv2d(before, channels * estimated, 3, padding=1)
        self._int8: _Int8Trunk | None = None

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
        self.fuse()
        self._int8 = _Int8Trunk(self)

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        """Masks of a batch of patches.

        Args:
            magnitude: (batch, seen channels, bins, frames), as `model.spectra.frontend.magnitudes` returns them; frames
                in multiples of `multiple`.

        Returns:
            Masks in 0…1, (batch, masks, channels, bins, frames).
        """
        x = self.gather(magnitude)
        x = x / torch.clamp(x[:, : self.channels].mean(dim=(1, 2, 3), keepdim=True), min=1e-8)
        x = torch.log1p(4 * x) * self.input_scale + self.input_shift
        x = x.contiguous(memory_format=torch.channels_last)
        logits = self._logits(x) if self._int8 is None else self._int8(x)
        with torch.autocast(x.device.type, enabled=False):
            logits = logits.unflatten(1, (self.estimated, self.channels))
            mask = torch.softmax(logits, dim=1) if self.exclusive else torch.sigmoid(logits)
            return self.spread(mask)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
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
    """What `StereoUNet._logits` computes, its convolutions in 8-bit integers; batch norms are folded in."""

    def __init__(self, network: StereoUNet) -> None:
        super().__init__()
        down = [block for block in network.down if isinstance(block, _Down)]
        up = [block for block in network.up if isinstance(block, _Up)]
        self.down = nn.ModuleList(Int8Conv2d(block.conv.weight, block.conv.bias, stride=2, padding=2) for block in down)
        self.across = nn.ModuleList(block.across for block in down)
        self.up = nn.ModuleList(Int8Conv2d.transposed(block.conv) for block in up)
        self.masks = Int8Conv2d(network.masks.weight, network.masks.bias, stride=1, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        level = Quantised.of(x)
        skips: list[Quantised] = []
        for conv, across in zip(self.down, self.across, strict=True):
            skips.append(level)
            level = Quantised.of(across(nn.functional.leaky_relu_(conv(level), 0.2)))
        for conv in self.up:
            level = skips.pop().beside(conv(level, relu=True))
        return self.masks(level)


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
