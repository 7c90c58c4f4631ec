"""The networks' layers between the linear frequency axis and the warped one of `model.spectra.axis`."""

import torch
from torch import nn

from model.spectra import axis


class Gather(nn.Module):
    """(…, bins, frames) → (…, rows, frames), by the triangles of `model.spectra.axis.gathering`.

    On a GPU it is one matrix product. On a CPU rows are computed in groups, each from the bins that have weights in
    it: a fifth of the time, and the same to rounding.

    Args:
        bins: Bins of the linear axis, those of the input.
        rows: Rows of the warped axis.
    """

    weights: torch.Tensor
    _ROWS = 32

    def __init__(self, bins: int, rows: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.from_numpy(axis.gathering(bins, rows)), persistent=False)
        self._blocks = _blocks(self.weights, self._ROWS)

    def forward(self, bins: torch.Tensor) -> torch.Tensor:
        """Bins summed into rows.

        Args:
            bins: (…, bins, frames).

        Returns:
            (…, rows, frames).
        """
        if bins.device.type != "cpu":
            return torch.matmul(self.weights, bins)
        return _banded(self.weights, self._blocks, bins)


class Spread(nn.Module):
    """(…, rows, frames) → (…, bins, frames), by linear interpolation between row centres.

    On a CPU bins are computed in groups, each from the rows that have weights in it. Elsewhere it is one matrix product
    with gradients; without, two rows are read per bin.

    Args:
        bins: Bins of the linear axis, those of the output.
        rows: Rows of the warped axis.
    """

    weights: torch.Tensor
    below: torch.Tensor
    share: torch.Tensor
    _BINS = 64

    def __init__(self, bins: int, rows: int) -> None:
        super().__init__()
        below, share = (torch.from_numpy(each) for each in axis.places(bins, rows))
        self.register_buffer("weights", torch.from_numpy(axis.spreading(bins, rows)), persistent=False)
        self.register_buffer("below", below, persistent=False)
        self.register_buffer("share", share, persistent=False)
        self._blocks = _blocks(self.weights, self._BINS)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows interpolated to bins.

        Args:
            rows: (…, rows, frames).

        Returns:
            (…, bins, frames).
        """
        if rows.device.type == "cpu":
            return _banded(self.weights, self._blocks, rows)
        if torch.is_grad_enabled():
            return torch.matmul(self.weights, rows)
        low = rows.index_select(-2, self.below)
        return low.lerp_(rows.index_select(-2, self.below + 1), self.share[:, None].expand_as(low))


def _blocks(weights: torch.Tensor, size: int) -> list[tuple[slice, slice]]:
    """Groups of `size` rows of a banded matrix, each with the columns that are not zero in it."""
    blocks = []
    for start in range(0, len(weights), size):
        seen = weights[start : start + size].sum(0).nonzero()
        blocks.append((slice(start, start + size), slice(int(seen[0]), int(seen[-1]) + 1)))
    return blocks


def _banded(weights: torch.Tensor, blocks: list[tuple[slice, slice]], x: torch.Tensor) -> torch.Tensor:
    """A banded matrix times x (…, columns, frames)."""
    if torch.is_grad_enabled():
        return _Banded.apply(weights, blocks, x)
    # Without gradients x comes frame by frame in memory, as an STFT leaves it.
    frames = x.transpose(-1, -2)
    out = frames.new_empty((*frames.shape[:-1], len(weights)))
    for rows, columns in blocks:
        out[..., rows] = torch.matmul(frames[..., columns], weights[rows, columns].T)
    return out.transpose(-1, -2)


class _Banded(torch.autograd.Function):
    """A banded matrix times x (…, columns, frames), whose memory is row by row, and its gradient to x."""

    @staticmethod
    def forward(ctx, weights: torch.Tensor, blocks: list[tuple[slice, slice]], x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weights)
        ctx.blocks = blocks
        out = x.new_empty((*x.shape[:-2], len(weights), x.shape[-1]))
        for rows, columns in blocks:
            out[..., rows, :] = torch.matmul(weights[rows, columns], x[..., columns, :])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grown: torch.Tensor) -> tuple[None, None, torch.Tensor | None]:
        if not ctx.needs_input_grad[2]:
            return None, None, None
        (weights,) = ctx.saved_tensors
        gradient = grown.new_zeros((*grown.shape[:-2], weights.shape[1], grown.shape[-1]))
        for rows, columns in ctx.blocks:
            gradient[..., columns, :] += torch.matmul(weights[rows, columns].T, grown[..., rows, :])
        return None, None, gradient
