"""Signals that tests feed in."""

import numpy as np


def noise(channels: int, samples: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    """White noise on the 16-bit grid, float32 (channels, samples)."""
    random = np.random.default_rng(seed)
    raw = np.clip(random.standard_normal((channels, samples)) * level, -1, 1 - 2**-15)
    return (np.round(raw * 32768) / 32768).astype(np.float32)
