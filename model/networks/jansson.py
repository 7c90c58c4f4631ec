"""The U-Net of Jansson et al., 2017, for singing voices."""

import itertools

import torch
from torch import nn


class JanssonUNet(nn.Module):
    """The U-Net of Jansson et al., "Singing voice separation with deep U-Net", ISMIR 2017.

    Mono, 512 bins × 128 frames, magnitudes scaled to 0…1 by the patch's maximum. Six 5×5
    convolutions of stride 2 with batch norm and leaky ReLU 0.2 (16 … 512 channels), six transposed
    ones with batch norm and ReLU, dropout 0.5 in the first three, skips, a sigmoid mask.
    9.82 M parameters.
    """

    channels = 1

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
            # All but the deepest see the skip of their depth beside what came up.
            entering = channels[level + 1] * (1 if level == levels - 1 else 2)
            leaving = channels[level]
            layers: list[nn.Module] = [nn.ConvTranspose2d(entering, leaving, 5, stride=2, padding=2, output_padding=1)]
            if level:
                layers += [nn.BatchNorm2d(leaving), nn.ReLU(inplace=True)]
                if level >= levels - 3:
                    layers.append(nn.Dropout(0.5))
            self.up.append(nn.Sequential(*layers))

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        """Masks of a batch of patches.

        Args:
            magnitude: |X|, (batch, 1, bins, frames); both axes multiples of 2^levels.

        Returns:
            The vocals' mask in 0…1, (batch, 1, 1, bins, frames).
        """
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
