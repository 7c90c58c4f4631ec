"""The plain classifier: every bin of every frame is vocal or it is not."""

import torch
from torch import nn


class BinClassifier(nn.Module):
    """1-D convolutions and dense layers over standardised frames; softmax over vocal and non-vocal.

    Mono. A frame is seen with `context` neighbours on either side, which are the channels of convolutions
    along frequency; a dense pair of layers lets distant partials know of each other; the last convolution
    gives two classes per bin. Log magnitudes relative to the patch's mean are standardised bin by bin
    by the running mean and variance of the training data (`BatchNorm1d` without an affine part).

    `mask` says what becomes of P(vocal) when the network is used: "soft" is P itself, "binary" is 1 where P
    exceeds `threshold` and 0 elsewhere, the ideal binary mask's estimate (Wang 2005). Training always sees P.
    """

    channels = 1

    def __init__(
        self,
        bins: int = 513,
        context: int = 4,
        width: int = 32,
        dense: int = 256,
        mask: str = "soft",
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        if mask not in ("soft", "binary"):
            raise ValueError(f"a classifier's mask is soft or binary, not {mask}")
        self.bins, self.context, self.binary, self.threshold = bins, context, mask == "binary", threshold
        self.standardise = nn.BatchNorm1d(bins, affine=False)
        self.convolutions = nn.Sequential(
            nn.Conv1d(2 * context + 1, width, 9, padding=4),
            nn.ReLU(),
            nn.Conv1d(width, width, 9, padding=4),
            nn.ReLU(),
        )
        self.dense = nn.Sequential(nn.Linear(bins, dense), nn.ReLU(), nn.Linear(dense, bins))
        self.classes = nn.Conv1d(2 * width, 2, 9, padding=4)

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        """Masks of a batch of patches.

        Args:
            magnitude: |X|, (batch, 1, bins, frames).

        Returns:
            P(vocal), or the binary mask when not training, (batch, 1, 1, bins, frames).
        """
        batch, _, _, frames = magnitude.shape
        level = magnitude.mean(dim=(1, 2, 3), keepdim=True)
        x = torch.log1p(magnitude / torch.clamp(level, min=1e-8))[:, 0]
        x = nn.functional.pad(self.standardise(x), (self.context, self.context))
        # (batch, bins, frames, neighbours) → one item per frame, its neighbours as channels
        x = x.unfold(2, 2 * self.context + 1, 1).permute(0, 2, 3, 1).flatten(0, 1)
        x = self.convolutions(x)
        x = torch.cat([x, torch.relu(x + self.dense(x))], dim=1)
        with torch.autocast(x.device.type, enabled=False):
            vocal = torch.softmax(self.classes(x.float()), dim=1)[:, 1]
        vocal = vocal.unflatten(0, (batch, frames)).transpose(1, 2)[:, None, None]
        if self.binary and not self.training:
            vocal = (vocal > self.threshold).float()
        return vocal
