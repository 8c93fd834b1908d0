"""Reachability: the write of DeltaFormer follows every path of a graph at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from assocmem.arguments import check_number

ERASES = ("linear", "mean")


def reachability(adjacency: Tensor, beta: float = -1.0, erase: str = "linear") -> Tensor:
    """What arrives at each node of a graph from node 0, by one layer of DeltaFormer's writes.

    Node t comes with w_t, row t of the adjacency matrix, and with the key e_t; node 0 alone has a
    value, 1. The write with the linear kernel function is then

        u_t = v_t − β Σ_{s<t} A_ts u_s

    With β = −1, u_t is the number of paths from node 0 to node t: above 0 exactly where a path
    leads, and large where there are many. With erase "mean" the sum is the mean over the
    predecessors, what a sharp softmax would take: u_t is the probability that a walk backwards from
    t, along random edges, ends at node 0. It stays in [0, 1], and is above 0 in the same places, as
    long as float64 holds it: on a single path of 1,075 nodes that each have another predecessor it
    falls below 5e-324, and is 0. With β = +1 paths of odd and even length cancel, and a node that
    is reached can read 0.

    Args:
        adjacency: whether an edge leads from node s to node t, `[B, n, n]` at [b, t, s], bool or
            float64 (weights); strictly lower triangular.
        beta: −1 adds paths up, +1 alternates their signs; any finite number.
        erase: "linear" or "mean".

    Returns:
        u `[B, n]`, float64; inf beyond 1.8e308 paths.

    Raises:
        TypeError: adjacency is neither a bool nor a float64 tensor, or beta not a number.
        ValueError: its shape is wrong, it is not strictly lower triangular, beta is not finite,
            erase is unknown, or u is NaN, where paths beyond the range of float64 cancel or do not
            count.

    Example:
        >>> import torch
        >>> from assocmem import constructions
        >>> adjacency = torch.zeros(1, 4, 4, dtype=torch.bool)
        >>> adjacency[0, 1, 0] = adjacency[0, 3, 1] = True  # 0 → 1 → 3, and nothing leads to 2
        >>> constructions.reachability(adjacency)
        tensor([[1., 1., 0., 1.]], dtype=torch.float64)
    """
    if not isinstance(adjacency, Tensor) or adjacency.dtype not in (torch.bool, torch.float64):
        kind = adjacency.dtype if isinstance(adjacency, Tensor) else type(adjacency).__name__
        raise TypeError(f"adjacency must be a bool or float64 tensor, got {kind}")
    if adjacency.ndim != 3 or adjacency.shape[1] != adjacency.shape[2] or adjacency.shape[1] < 1:
        raise ValueError(
            f"adjacency must have shape [B, n, n] with n >= 1, got {list(adjacency.shape)}"
        )
    if bool(adjacency.triu().any()):
        raise ValueError("adjacency must be strictly lower triangular: edges go to later nodes")
    if erase not in ERASES:
        raise ValueError(f"erase must be one of {list(ERASES)}, got {erase!r}")
    check_number("beta", beta)
    if not math.isfinite(beta):
        raise ValueError(f"beta must be finite, got {beta!r}")
    A = adjacency.double()
    if erase == "mean":
        total = A.sum(-1, keepdim=True)
        A = A / total.where(total != 0, 1.0)
    v = torch.zeros_like(A[..., :1])
    v[:, :1] = 1.0
    u = torch.linalg.solve_triangular(beta * A, v, upper=False, unitriangular=True)[..., 0]
    if u.isnan().any():
        raise ValueError("adjacency must have fewer paths: u is beyond the range of float64, NaN")
    return u
