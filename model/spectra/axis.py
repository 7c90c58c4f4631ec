"""A frequency axis that is linear where harmonics must be told apart and logarithmic above, as numbers without torch.

A network on all 2049 bins of a 4096-point STFT spends most of its work above 5 kHz, where voices
have no separate harmonics. `rows` rows here: one per bin up to the knee, then each a constant
ratio wider, to the last bin; so the full band to 22 kHz costs what 5.5 kHz would.

The networks' layers on this axis are in `model.spectra.bands`. Pages draw on it too, in a process that needs no torch.
"""

import math

import numpy as np


def row_centres(bins: int, rows: int) -> np.ndarray:
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
        return np.arange(bins, dtype=np.float64)

    def last(knee: float) -> float:
        return knee * math.exp((rows - 1 - knee) / knee)

    low, high = (rows - 1) / 20.0, float(rows - 1)  # last() falls as the knee rises
    for _ in range(100):
        knee = (low + high) / 2
        low, high = (knee, high) if last(knee) > bins - 1 else (low, knee)
    row = np.arange(rows, dtype=np.float64)
    centres = np.where(row <= knee, row, knee * np.exp((row - knee) / knee))
    centres[-1] = bins - 1
    return centres


def gathering(bins: int, rows: int) -> np.ndarray:
    """Weights that sum bins into rows: non-negative triangles around the row centres, each summing to one.

    Args:
        bins: Bins of the linear axis.
        rows: Rows of the warped axis.

    Returns:
        float32 (rows, bins).
    """
    centres = row_centres(bins, rows)
    bin_ = np.arange(bins, dtype=np.float64)
    below = np.concatenate([centres[:1] - 1, centres[:-1]])[:, None]
    above = np.concatenate([centres[1:], centres[-1:] + 1])[:, None]
    centre = centres[:, None]
    rising = (bin_ - below) / (centre - below)
    falling = (above - bin_) / (above - centre)
    weights = np.maximum(np.minimum(rising, falling), 0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def places(bins: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each bin lies between the rows' centres.

    Args:
        bins: Bins of the linear axis.
        rows: Rows of the warped axis.

    Returns:
        The index of the row below each bin, int64 (bins,), and the share of the row above it, float32 (bins,) in 0…1.
    """
    centres = row_centres(bins, rows)
    bin_ = np.arange(bins, dtype=np.float64)
    below = np.clip(np.searchsorted(centres, bin_, side="right") - 1, 0, len(centres) - 2)
    share = np.clip((bin_ - centres[below]) / (centres[below + 1] - centres[below]), 0, 1)
    return below, share.astype(np.float32)


def spreading(bins: int, rows: int) -> np.ndarray:
    """Weights of linear interpolation between row centres, from rows to bins; those of a bin sum to one.

    Args:
        bins: Bins of the linear axis.
        rows: Rows of the warped axis.

    Returns:
        float32 (bins, rows).
    """
    below, share = places(bins, rows)
    weights = np.zeros((bins, len(row_centres(bins, rows))), np.float32)
    weights[np.arange(bins), below] = 1 - share
    weights[np.arange(bins), below + 1] = share
    return weights
