"""Stems on the grid of the samples they are written with, so that they still add up to the mixture."""

import numpy as np

_SAMPLES = 8192  # are worked on at a time: what fits into a core's cache is several times as fast


def on_grid(mixture: np.ndarray, stems: dict[str, np.ndarray], rest: str, bits: int | None) -> dict[str, np.ndarray]:
    """Stems as integers of `bits` would hold them, their sum being the mixture.

    All stems but `rest` are rounded, and `rest` is the mixture minus them: exact where the mixture is already on
    the grid, else within half a step. Where `rest` would leave the range of the integers, its excess
    moves on through the other stems, as much into each as it has room for, so the sum holds wherever the
    mixture is within what the stems can hold together: full scale times their number.

    Args:
        mixture: (channels, samples), full scale 1.0.
        stems: Every stem by name, of the mixture's shape.
        rest: The name of the stem that takes up what rounding leaves.
        bits: Integer depth of the files; None for float or lossy files, for which the stems are returned as they are.

    Returns:
        The stems by name, float32 (channels, samples).
    """
    if bits is None:
        return stems
    parts = [slice(start, start + _SAMPLES) for start in range(0, mixture.shape[1], _SAMPLES)]
    out = {name: np.empty(mixture.shape, np.float32) for name in stems}
    for part in parts:
        placed = _placed(mixture[:, part], {name: stem[:, part] for name, stem in stems.items()}, rest, bits)
        for name, stem in placed.items():
            np.multiply(stem, 1 / _steps(bits), out=out[name][:, part], casting="same_kind")
    return out


def _steps(bits: int) -> float:
    """How many of the integers' steps full scale has: a power of two, so scaling by it rounds nothing."""
    return float(2 ** (bits - 1))


def _placed(mixture: np.ndarray, stems: dict[str, np.ndarray], rest: str, bits: int) -> dict[str, np.ndarray]:
    """What `on_grid` returns, in steps of the integers."""
    steps = _steps(bits)
    low, high = -steps, steps - 1
    names = [name for name in stems if name != rest]
    # float64 holds sums of 24-bit integers exactly; float32 would not beyond full scale.
    rounded = {}
    remainder = np.multiply(mixture, steps, dtype=np.float64)
    for name in names:
        scaled = np.multiply(stems[name], steps, dtype=np.float64)
        rounded[name] = np.clip(np.rint(scaled, out=scaled), low, high, out=scaled)
        remainder -= scaled
    np.rint(remainder, out=remainder)
    kept = np.clip(remainder, low, high)
    excess = np.subtract(remainder, kept, out=remainder)
    for name in names:
        if not excess.any():
            break
        filled = np.clip(rounded[name] + excess, low, high)
        excess -= filled - rounded[name]
        rounded[name] = filled
    return {**rounded, rest: kept}
