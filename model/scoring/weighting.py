"""K-weighting (ITU-R BS.1770-4) of a signal that arrives in blocks.

A recursive filter takes one sample after the other. Written in state space, a stretch of samples is two matrix
products: one with the filter's response to the samples, one with that to the state before them; and so are the states
of a row of stretches (Burrus, "Block realization of digital filters", 1972). That is as fast as scipy's compiled loop,
and a worker need not import scipy.signal, which takes longer than separating a short song.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch

_STRETCH = 32  # samples
_ROW = 32  # stretches


class KWeighting:
    """The two filters of K-weighting, a high shelf and a high pass, in a row.

    Args:
        rate: Sample rate in Hz.
        channels: Channels of the signal.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self._filter = _k_weighting(rate)
        self._state = np.zeros((channels, self._filter.order))

    def push(self, block: np.ndarray) -> np.ndarray:
        """The weighted signal, as far as it has come.

        Args:
            block: The signal's next samples, (channels, samples), of any length.

        Returns:
            float64, of the same shape.
        """
        even = block.shape[1] // _STRETCH * _STRETCH
        out = np.empty(block.shape)
        if even:
            out[:, :even], self._state = self._filter.stretches(block[:, :even], self._state)
        if even < block.shape[1]:
            out[:, even:], self._state = self._filter.rest(block[:, even:].astype(np.float64), self._state)
        return out


def sections(rate: int) -> np.ndarray:
    """The second-order sections of K-weighting, by the formulas of Bristow-Johnson's cookbook, as pyloudnorm has them.

    Args:
        rate: Sample rate in Hz.

    Returns:
        (2, 6), b0 b1 b2 a0 a1 a2 each, with a0 = 1: a shelf of +4 dB at 1.5 kHz, and a high pass at 38 Hz.
    """
    gain, angle = 10 ** (4.0 / 40), 2 * math.pi * 1500.0 / rate
    cosine, slope = math.cos(angle), 2 * math.sqrt(gain) * math.sin(angle) / math.sqrt(2)
    up, down = gain + 1, gain - 1
    shelf = [
        gain * (up + down * cosine + slope), -2 * gain * (down + up * cosine), gain * (up + down * cosine - slope),
        up - down * cosine + slope, 2 * (down - up * cosine), up - down * cosine - slope,
    ]  # fmt: skip
    angle = 2 * math.pi * 38.0 / rate
    cosine, alpha = math.cos(angle), math.sin(angle)  # Q is ½
    high_pass = [(1 + cosine) / 2, -(1 + cosine), (1 + cosine) / 2, 1 + alpha, -2 * cosine, 1 - alpha]
    return np.array([[value / filter_[3] for value in filter_] for filter_ in (shelf, high_pass)])


@dataclass(frozen=True)
class _BlockFilter:
    """A filter as matrices. `order` is the number n of its states; a stretch has L samples, a row R stretches.

    Attributes:
        powers: What i samples of silence make of a state, (L + 1, n, n).
        entering: What a stretch adds to the state after it, (n, L).
        response: The response to a stretch and the state before it, (L, L + n).
        row: What the additions of a row's stretches add to the state after each number of them, ((R + 1) · n, R · n).
        fading: What each number of silent stretches makes of a state, ((R + 1) · n, n).
    """

    powers: np.ndarray
    entering: np.ndarray
    response: np.ndarray
    row: np.ndarray
    fading: np.ndarray

    @property
    def order(self) -> int:
        return self.powers.shape[1]

    def stretches(self, signal: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The response to complete stretches, and the state after them.

        Args:
            signal: (channels, stretches · L).
            state: (channels, n).
        """
        channels, samples = signal.shape
        count, order = samples // _STRETCH, self.order
        parts = np.empty((channels, count, _STRETCH + order))  # each stretch, and the state before it
        parts[..., :_STRETCH] = signal.reshape(channels, count, _STRETCH)
        added = _product(parts[..., :_STRETCH], self.entering)
        rows = -(-count // _ROW)
        filled = np.zeros((channels, rows * _ROW, order))
        filled[:, :count] = added
        within = _product(filled.reshape(channels, rows, _ROW * order), self.row)
        before = np.empty((channels, rows, order))  # the state at the beginning of each row
        for number in range(rows):
            before[:, number] = state
            state = state @ self.fading[-order:].T + within[:, number, -order:]
        states = within + before @ self.fading.T
        parts[..., _STRETCH:] = states[:, :, : _ROW * order].reshape(channels, rows * _ROW, order)[:, :count]
        last = parts[:, -1, _STRETCH:] @ self.powers[-1].T + added[:, -1]
        return _product(parts, self.response).reshape(channels, samples), last

    def rest(self, signal: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The response to less than a stretch, and the state after it; arguments as for `stretches`."""
        count = signal.shape[1]
        out = signal @ self.response[:count, :count].T + state @ self.response[:count, _STRETCH:].T
        return out, state @ self.powers[count].T + signal @ self.entering[:, _STRETCH - count :].T


def _product(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """rows · matrixᵀ over the last axis, by torch, which keeps to a worker's number of threads."""
    return torch.matmul(torch.from_numpy(rows), torch.from_numpy(matrix).T).numpy()


@functools.lru_cache(maxsize=8)
def _k_weighting(rate: int) -> _BlockFilter:
    """The filter at a sample rate."""
    step, inlet, outlet, through = np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), 1.0
    for b0, b1, b2, _, a1, a2 in sections(rate):  # each section's input is what comes out of those before
        enters = np.array([[b1 - a1 * b0], [b2 - a2 * b0]])
        step = np.block([[step, np.zeros((len(step), 2))], [enters @ outlet, np.array([[-a1, 1.0], [-a2, 0.0]])]])
        inlet = np.vstack([inlet, enters * through])
        outlet, through = np.hstack([b0 * outlet, [[1.0, 0.0]]]), b0 * through
    powers = _powers(step, _STRETCH)
    impulse = np.array([through, *((outlet @ power @ inlet).item() for power in powers[: _STRETCH - 1])])
    lags = np.subtract.outer(np.arange(_STRETCH), np.arange(_STRETCH))
    fading = _powers(powers[-1], _ROW)
    order = len(step)
    row = np.zeros((_ROW + 1, order, _ROW, order))
    for after in range(_ROW + 1):
        for stretch in range(after):
            row[after, :, stretch] = fading[after - 1 - stretch]
    return _BlockFilter(
        powers=powers,
        entering=np.hstack([power @ inlet for power in powers[-2::-1]]),
        response=np.hstack(
            [
                np.where(lags >= 0, impulse[np.maximum(lags, 0)], 0.0),
                np.vstack([outlet @ power for power in powers[:-1]]),
            ]
        ),
        row=row.reshape((_ROW + 1) * order, _ROW * order),
        fading=fading.reshape((_ROW + 1) * order, order),
    )


def _powers(matrix: np.ndarray, most: int) -> np.ndarray:
    """(most + 1, n, n): the powers of a matrix from 0 on."""
    powers = [np.eye(len(matrix))]
    for _ in range(most):
        powers.append(matrix @ powers[-1])
    return np.stack(powers)
