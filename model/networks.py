"""Networks that turn a mixture's magnitudes into masks.

Every network takes magnitudes (batch, channels, bins, frames) and returns masks in 0…1 of shape
(batch, estimated stems, channels, bins, frames). `bins`, `frames` and `channels` are those of its
preset; `frames` may be any multiple of 2^levels.
"""

import itertools

import torch
from torch import nn

from model.bands import gathering, spreading


class JanssonUNet(nn.Module):
    """The U-Net of Jansson et al., "Singing voice separation with deep U-Net", ISMIR 2017.

    Mono, 512 bins × 128 frames, magnitudes scaled to 0…1 by the patch's maximum. Six 5×5
    convolutions of stride 2 with batch norm and leaky ReLU 0.2 (16 … 512 channels), six transposed
    ones with batch norm and ReLU, dropout 0.5 in the first three, skips, a sigmoid mask.
    9.82 M parameters.
    """

    def __init__(self, bins: int = 512, width: int = 16, levels: int = 6) -> None:
        super().__init__()
        self.bins = bins
        channels = [1] + [width << level for level in range(levels)]
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 5, stride=2, padding=2),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2, inplace=True),
            )
            for before, after in itertools.pairwise(channels)
        )
        self.up = nn.ModuleList()
        for level in reversed(range(levels)):
            # All but the deepest see the skip of their own depth beside what came up.
            entering = channels[level + 1] * (1 if level == levels - 1 else 2)
            leaving = channels[level]
            layers: list[nn.Module] = [nn.ConvTranspose2d(entering, leaving, 5, stride=2, padding=2, output_padding=1)]
            if level:
                layers += [nn.BatchNorm2d(leaving), nn.ReLU(inplace=True)]
                if level >= levels - 3:
                    layers.append(nn.Dropout(0.5))
            self.up.append(nn.Sequential(*layers))

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        peak = magnitude.amax(dim=(1, 2, 3), keepdim=True)
        x = magnitude / torch.clamp(peak, min=1e-8)
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        skips.pop()
        for block in self.up[:-1]:
            x = torch.cat([block(x), skips.pop()], dim=1)
        return torch.sigmoid(self.up[-1](x).float())[:, None]


class StereoUNet(nn.Module):
    """A U-Net over the whole band of a stereo signal, on the bent frequency axis of `model.bands`.

    Input: magnitudes relative to the patch's mean, log-compressed, in `rows` rows. Each level halves
    both axes by a 5×5 convolution; from the second on a frequency-wise bottleneck (the
    time-distributed fully connected layer of Choi et al., "Investigating U-Nets with various
    intermediate blocks", ISMIR 2020) lets a partial see its harmonics far away. The masks are
    interpolated back to all bins. Because the input is relative, a louder file gives the same masks.
    """

    def __init__(
        self,
        bins: int = 2049,
        rows: int = 512,
        channels: int = 2,
        widths: tuple[int, ...] = (32, 64, 128, 192, 256, 256),
        bottleneck: int = 4,
        estimated: int = 1,
    ) -> None:
        super().__init__()
        self.bins, self.channels, self.estimated = bins, channels, estimated
        self.register_buffer("gather", gathering(bins, rows), persistent=False)
        self.register_buffer("spread", spreading(bins, rows), persistent=False)
        self.input_scale = nn.Parameter(torch.ones(1, 1, rows, 1))
        self.input_shift = nn.Parameter(torch.zeros(1, 1, rows, 1))
        self.down = nn.ModuleList()
        before = channels
        for level, width in enumerate(widths):
            self.down.append(_Down(before, width, (rows >> (level + 1)) if level else 0, bottleneck))
            before = width
        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            leaving = widths[level - 1] if level else widths[0] // 2
            self.up.append(_Up(before, leaving))
            before = leaving + (widths[level - 1] if level else channels)
        self.masks = nn.Conv2d(before, channels * estimated, 3, padding=1)

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        x = torch.matmul(self.gather, magnitude)
        x = x / torch.clamp(x.mean(dim=(1, 2, 3), keepdim=True), min=1e-8)
        x = torch.log1p(4 * x) * self.input_scale + self.input_shift
        x = x.contiguous(memory_format=torch.channels_last)
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(x)
        for block in self.up:
            x = torch.cat([block(x), skips.pop().to(x.dtype)], dim=1)
        with torch.autocast(x.device.type, enabled=False):
            # In bfloat16 a mask has steps of 1/256: a leak at −48 dB. These few operations stay exact.
            mask = torch.matmul(self.spread, torch.sigmoid(self.masks(x.float())))
        return mask.unflatten(1, (self.estimated, self.channels))


class _Down(nn.Module):
    """Convolution of stride 2, then the frequency bottleneck over `rows` rows (none where 0)."""

    def __init__(self, before: int, after: int, rows: int, factor: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 5, stride=2, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(after)
        self.across = _AcrossFrequency(rows, factor) if rows else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.across(nn.functional.leaky_relu(self.norm(self.conv(x)), 0.2))


class _AcrossFrequency(nn.Module):
    """x + W₂ relu(W₁ x) along frequency, the same for every channel and frame; starts as identity."""

    def __init__(self, rows: int, factor: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(rows, max(4, rows // factor))
        self.expand = nn.Linear(max(4, rows // factor), rows)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        moved = torch.relu(self.squeeze(x.transpose(-1, -2)))
        return x + self.expand(moved).transpose(-1, -2)


class _Up(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x)))


NETWORKS = {"jansson": JanssonUNet, "stereo": StereoUNet}
