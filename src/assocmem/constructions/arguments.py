"""Checks of the sequences that a construction acts on."""

from __future__ import annotations

import torch
from torch import Tensor


def check_integers(name: str, x: Tensor, rank: int, shape: str, below: int | None = None) -> None:
    """Raise unless x is an int64 tensor of that rank, with entries in 0 … below − 1 if given."""
    if not isinstance(x, Tensor) or x.dtype != torch.int64:
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be an int64 tensor, got {kind}")
    if x.ndim != rank:
        raise ValueError(f"{name} must have shape {shape}, got {list(x.shape)}")
    if below is not None and x.numel() and not 0 <= int(x.min()) <= int(x.max()) < below:
        raise ValueError(f"{name} must lie in 0 … {below - 1}, got {int(x.min())} … {int(x.max())}")


def check_pairs(pairs: Tensor, n: int) -> None:
    """Raise unless pairs `[B, T, 2]` names two different places among n at every step."""
    check_integers("pairs", pairs, 3, "[B, T, 2]", below=n)
    if pairs.shape[-1] != 2:
        raise ValueError(f"pairs must have shape [B, T, 2], got {list(pairs.shape)}")
    if bool((pairs[..., 0] == pairs[..., 1]).any()):
        raise ValueError("pairs must name two different places at every step, got the same twice")
