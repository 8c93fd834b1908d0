"""A linear map of low rank, for gates with one number per channel."""

from __future__ import annotations

from torch import nn


def low_rank(d_in: int, rank: int, d_out: int, *, bias: bool) -> nn.Sequential:
    """x ↦ W₂ W₁ x (+ b), with `nn.Linear`s W₁ `[rank, d_in]` and W₂ `[d_out, rank]`."""
    return nn.Sequential(nn.Linear(d_in, rank, bias=False), nn.Linear(rank, d_out, bias=bias))
