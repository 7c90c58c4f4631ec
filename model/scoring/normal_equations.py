"""Distortion filters from correlations: the normal equations of BSSEval, solved with one matrix in memory."""

from collections.abc import Callable

import numpy as np
import torch

FILTER_LENGTH = 512
_RIDGES = (1e-14, 1e-12, 1e-10, 1e-8)
_RESIDUAL = 1e-6  # a solution that leaves more than this share of the right side is none


def projection(total: torch.Tensor, onto: list[int], estimates: list[int]) -> torch.Tensor:
    """The filters that bring references nearest to estimates.

    The normal equations: Σ_b,k R_ab[i − k] · h_b[k] = R_ay[i].

    Args:
        total: The song's correlations, float64 (references, references and estimates, lags 0 … 511).
        onto: The numbers of the references that are filtered.
        estimates: The numbers of the estimates' channels.

    Returns:
        (onto, estimates, 512).
    """
    length = FILTER_LENGTH
    right = total[onto][:, estimates].permute(0, 2, 1).reshape(len(onto) * length, -1)
    return _solve(lambda: _normal_matrix(total, onto), right).reshape(len(onto), length, -1).permute(0, 2, 1)


def _normal_matrix(total: torch.Tensor, onto: list[int]) -> torch.Tensor:
    """The correlations of the delayed references `onto`, (onto · 512, onto · 512), with museval's ε on the diagonal."""
    length = FILTER_LENGTH
    matrix = total.new_empty(len(onto) * length, len(onto) * length)
    for row, a in enumerate(onto):
        for column, b in enumerate(onto):
            # Entry (i, k) is R_ab[i − k]: windows of the lags from 511 down to −511, from the last one up.
            lags = torch.cat([total[a, b].flip(0), total[b, a, 1:]])
            block = matrix[row * length : (row + 1) * length, column * length : (column + 1) * length]
            block.copy_(lags.unfold(0, length, 1).flip(0))
    torch.diagonal(matrix).add_(torch.finfo(matrix.dtype).eps)
    return matrix


def _solve(normal_matrix: Callable[[], torch.Tensor], right: torch.Tensor) -> torch.Tensor:
    """Solve the normal equations, with one matrix in memory where Cholesky does, which is nearly always.

    Cholesky where the matrix is positive definite to the last bit; lossy, band-limited stems' is not, and LU
    with museval's ε on the diagonal solves it all the same; where the references depend on each
    other, so that LU finds no solution either, a ridge picks one of the many that project alike.
    """
    solution = _by_cholesky(normal_matrix(), right)
    if solution is not None:
        return solution
    matrix = normal_matrix()
    solution, failed = torch.linalg.solve_ex(matrix, right)
    if not int(failed) and _residual(matrix, solution, right) < _RESIDUAL:
        return solution
    level, ridge = float(torch.diagonal(matrix).mean()), 0.0
    del matrix
    for more in _RIDGES:
        ridge += more
        matrix = normal_matrix()
        torch.diagonal(matrix).add_(ridge * level)
        ridged = _by_cholesky(matrix, right)
        if ridged is not None:
            return ridged
    return solution


def _by_cholesky(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor | None:
    """The solution for a symmetric matrix, which is overwritten; None where it is not positive definite."""
    # LAPACK wants columns; of a symmetric matrix in rows the transposed view has them, and nothing is copied.
    columns = matrix.mT
    factor, failed = torch.linalg.cholesky_ex(
        columns, out=(columns, torch.empty(0, dtype=torch.int32).to(matrix.device))
    )
    if int(failed):
        return None
    half = torch.linalg.solve_triangular(factor, right, upper=False)
    return torch.linalg.solve_triangular(factor.mT, half, upper=True)


def _residual(matrix: torch.Tensor, solution: torch.Tensor, right: torch.Tensor) -> float:
    """The share of the right side that a solution does not explain; infinite where it is not finite."""
    share = float(torch.linalg.norm(matrix @ solution - right) / torch.linalg.norm(right).clamp(min=1e-300))
    return share if np.isfinite(share) else float("inf")
