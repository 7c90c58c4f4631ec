"""A frequency axis that is linear where harmonics must be told apart and logarithmic above.

A network on all 2049 bins of a 4096-point STFT spends most of its work above 5 kHz, where voices
have no separate harmonics. `rows` rows here: one per bin up to the knee, then each a constant
ratio wider, to the last bin; so the full band to 22 kHz costs what 5.5 kHz would.
"""

import math

import torch
from torch import nn


def row_centres(bins: int, rows: int) -> torch.Tensor:
    """Positions, in bins, of the rows' centres: 0, 1, 2 … knee, then knee · exp((row − knee) / knee).

    The knee solves centre(rows − 1) = bins − 1, so spacing grows smoothly from one bin. With as
    many rows as bins, or more, the centres are the bins.

    Args:
        bins: Bins of the linear axis, those of the preset.
        rows: Rows of the warped axis.

    Returns:
        float64 (rows,), rising from 0 to bins − 1; (bins,) where there are fewer bins than rows.
    """
    if rows >= bins:
        return torch.arange(bins, dtype=torch.float64)

    def last(knee: float) -> float:
        return knee * math.exp((rows - 1 - knee) / knee)

    low, high = (rows - 1) / 20.0, float(rows - 1)  # last() falls as the knee rises
    for _ in range(100):
        knee = (low + high) / 2
        low, high = (knee, high) if last(knee) > bins - 1 else (low, knee)
    row = torch.arange(rows, dtype=torch.float64)
    centres = torch.where(row <= knee, row, knee * torch.exp((row - knee) / knee))
    centres[-1] = bins - 1
    return centres


def gathering(bins: int, rows: int) -> torch.Tensor:
    """Weights that sum bins into rows: non-negative triangles around the row centres, each summing to one.

    Args:
        bins: Bins of the linear axis.
        rows: Rows of the warped axis.

    Returns:
        float32 (rows, bins).
    """
    centres = row_centres(bins, rows)
    bin_ = torch.arange(bins, dtype=torch.float64)
    below = torch.cat([centres[:1] - 1, centres[:-1]])[:, None]
    above = torch.cat([centres[1:], centres[-1:] + 1])[:, None]
    centre = centres[:, None]
    rising = (bin_ - below) / (centre - below)
    falling = (above - bin_) / (above - centre)
    weights = torch.clamp(torch.minimum(rising, falling), min=0)
    return (weights / weights.sum(1, keepdim=True)).float()


def places(bins: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each bin lies between the rows' centres.

    Args:
        bins: Bins of the linear axis.
        rows: Rows of the warped axis.

    Returns:
        The index of the row below each bin, int64 (bins,), and the share of the row above it, float32 (bins,) in 0…1.
    """
    centres = row_centres(bins, rows)
    bin_ = torch.arange(bins, dtype=torch.float64)
    below = torch.clamp(torch.searchsorted(centres, bin_, right=True) - 1, 0, len(centres) - 2)
    share = torch.clamp((bin_ - centres[below]) / (centres[below + 1] - centres[below]), 0, 1)
    return below, share.float()


def spreading(bins: int, rows: int) -> torch.Tensor:
    """Weights of linear interpolation between row centres, from rows to bins; those of a bin sum to one.

    Args:
        bins: Bins of the linear axis.
        rows: Rows of the warped axis.

    Returns:
        float32 (bins, rows).
    """
    below, share = places(bins, rows)
    weights = torch.zeros(bins, len(row_centres(bins, rows)))
    weights[torch.arange(bins), below] = 1 - share
    weights[torch.arange(bins), below + 1] = share
    return weights


class Gather(nn.Module):
    """(…, bins, frames) → (…, rows, frames), by the triangles of `gathering`.

    With gradients, and on a GPU, it is one matrix product. On a CPU without gradients, rows are computed in groups,
    each from the bins that have weights in it: a fifth of the time, and the same to rounding.

    Args:
        bins: Bins of the linear axis, those of the input.
        rows: Rows of the warped axis.
    """

    weights: torch.Tensor
    _ROWS = 32

    def __init__(self, bins: int, rows: int) -> None:
        super().__init__()
        self.register_buffer("weights", gathering(bins, rows), persistent=False)
        self._blocks = []
        for start in range(0, len(self.weights), self._ROWS):
            seen = self.weights[start : start + self._ROWS].sum(0).nonzero()
            self._blocks.append((slice(start, start + self._ROWS), slice(int(seen[0]), int(seen[-1]) + 1)))

    def forward(self, bins: torch.Tensor) -> torch.Tensor:
        """Bins summed into rows.

        Args:
            bins: (…, bins, frames).

        Returns:
            (…, rows, frames).
        """
        if torch.is_grad_enabled() or bins.device.type != "cpu":
            return torch.matmul(self.weights, bins)
        frames = bins.transpose(-1, -2)  # as an STFT leaves them
        out = frames.new_empty((*frames.shape[:-1], len(self.weights)))
        for rows, part in self._blocks:
            out[..., rows] = torch.matmul(frames[..., part], self.weights[rows, part].T)
        return out.transpose(-1, -2)


class Spread(nn.Module):
    """(…, rows, frames) → (…, bins, frames), by linear interpolation between row centres.

    With gradients it is `spreading`'s matrix product; without, two rows are read per bin, in a third of the time.

    Args:
        bins: Bins of the linear axis, those of the output.
        rows: Rows of the warped axis.
    """

    weights: torch.Tensor
    below: torch.Tensor
    share: torch.Tensor

    def __init__(self, bins: int, rows: int) -> None:
        super().__init__()
        below, share = places(bins, rows)
        self.register_buffer("weights", spreading(bins, rows), persistent=False)
        self.register_buffer("below", below, persistent=False)
        self.register_buffer("share", share, persistent=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows interpolated to bins.

        Args:
            rows: (…, rows, frames).

        Returns:
            (…, bins, frames).
        """
        if torch.is_grad_enabled():
            return torch.matmul(self.weights, rows)
        low = rows.index_select(-2, self.below)
        return low.lerp_(rows.index_select(-2, self.below + 1), self.share[:, None].expand_as(low))
