"""Convolutions that propose, and a recurrence that refines, all four stems at once."""

import torch
from torch import nn

from model.spectra.bands import Gather, Spread


class RecurrentRefiner(nn.Module):
    """A convolutional estimate of every stem from the stereo magnitude, refined by bidirectional LSTMs.

    Input: magnitudes relative to the patch's mean, log-compressed, in `rows` rows of the warped frequency axis
    (`model.spectra.bands`). Three convolutions propose logits for each stem, channel and row. Mean-pooled features
    and the proposal's energies then pass `layers` bidirectional LSTMs of `hidden` units per direction over
    time (as in Uhlich et al., ICASSP 2017, and Open-Unmix), whose output is added to the proposal. The
    masks are a softmax over stems: they sum to one.
    """

    def __init__(
        self,
        bins: int = 2049,
        rows: int = 256,
        channels: int = 2,
        estimated: int = 4,
        width: int = 24,
        hidden: int = 256,
        layers: int = 2,
    ) -> None:
        super().__init__()
        self.bins, self.channels, self.estimated, self.rows = bins, channels, estimated, rows
        self.gather = Gather(bins, rows)
        self.spread = Spread(bins, rows)
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, width, 5, padding=2),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 5, padding=2),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
        )
        self.proposal = nn.Conv2d(width, estimated * channels, 3, padding=1)
        self.narrow = nn.Linear((channels + estimated) * rows, hidden)
        self.recurrence = nn.LSTM(hidden, hidden, layers, batch_first=True, bidirectional=True)
        self.refinement = nn.Linear(3 * hidden, estimated * channels * rows)

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        """Masks of a batch of patches.

        Args:
            magnitude: |X|, (batch, channels, bins, frames).

        Returns:
            Masks that sum to one over stems, (batch, stems, channels, bins, frames).
        """
        x = self.gather(magnitude)
        x = x / torch.clamp(x.mean(dim=(1, 2, 3), keepdim=True), min=1e-8)
        x = torch.log1p(4 * x)
        proposed = self.proposal(self.convolutions(x.contiguous(memory_format=torch.channels_last)))
        proposed = proposed.unflatten(1, (self.estimated, self.channels))
        shares = torch.softmax(proposed, dim=1)
        seen = torch.cat([x, (shares * x[:, None]).mean(2)], dim=1)  # (batch, channels + stems, rows, frames)
        seen = torch.tanh(self.narrow(seen.flatten(1, 2).transpose(1, 2)))
        with torch.autocast(x.device.type, enabled=False):
            # oneDNN's LSTM is exact and quick in float32; bfloat16 states would drift over a segment.
            seen = seen.float()
            past_and_future, _ = self.recurrence(seen)
        refined = self.refinement(torch.cat([seen, past_and_future], dim=-1)).transpose(1, 2)
        refined = refined.unflatten(1, (self.estimated, self.channels, self.rows))
        with torch.autocast(x.device.type, enabled=False):
            masks = torch.softmax((proposed + refined).float(), dim=1)
            return self.spread(masks)
