"""Triangular systems (I + strict_lower(L)) X = D, solved by substitution.

Not by a series in powers of L, whose error for similar keys is larger than the solution.
"""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem.ops.poison import without_poison


def wide(x: Tensor) -> Tensor:
    """In float64, where the device has it: rounding a system changes its solution by far more."""
    return x if x.device.type == "mps" else x.double()


def solve(L: Tensor, D: Tensor) -> Tensor:
    """(I + strict_lower(L))⁻¹ D; the rest of L is not looked at."""
    return torch.linalg.solve_triangular(L, D, upper=False, unitriangular=True)


def solve_transposed(L: Tensor, D: Tensor) -> Tensor:
    """(I + strict_lower(L))⁻ᵀ D."""
    return torch.linalg.solve_triangular(L.mT, D, upper=True, unitriangular=True)


def solve_around_poison(L: Tensor, D: Tensor) -> Tensor:
    """`solve`, in which a NaN in D_s or L_ts reaches the rows from s on only."""
    D, lost = without_poison(D)
    return solve(L.nan_to_num(0.0, 0.0, 0.0), D) + lost
