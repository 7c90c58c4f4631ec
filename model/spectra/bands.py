"""The networks' layers between the linear frequency axis and the warped one of `model.spectra.axis`."""

import torch
from torch import nn

from model.spectra import axis


def gathering(bins: int, rows: int) -> torch.Tensor:
    """`model.spectra.axis.gathering` as a tensor.

    Args:
        bins: Bins of the linear axis.
        rows: Rows of the warped axis.

    Returns:
        float32 (rows, bins).
    """
    return torch.from_numpy(axis.gathering(bins, rows))


def spreading(bins: int, rows: int) -> torch.Tensor:
    """`model.spectra.axis.spreading` as a tensor.

    Args:
        bins: Bins of the linear axis.
        rows: Rows of the warped axis.

    Returns:
        float32 (bins, rows).
    """
    return torch.from_numpy(axis.spreading(bins, rows))


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
        below, share = (torch.from_numpy(each) for each in axis.places(bins, rows))
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
