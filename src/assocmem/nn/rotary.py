"""Rotary positions: queries and keys are turned by angles that grow with their position."""

from __future__ import annotations

import torch
from torch import Tensor


def check_rotary(d_key: int) -> None:
    """Raise unless the channels of a key come in pairs."""
    if d_key % 2:
        raise ValueError(f"d_key must be even with rotary, got {d_key}")


def rotate(x: Tensor, position: Tensor) -> Tensor:
    """Turn channels 2i and 2i + 1 of the token at position t by the angle t · 10000^(−2i/K).

    The inner product of a turned query and a turned key depends on the distance of their positions
    (RoPE; Su et al., arXiv:2104.09864).

    Args:
        x: queries or keys `[B, T, H, K]` with even K.
        position: positions t of the tokens, integers `[T]`, or `[B, T]`.
    """
    K = x.shape[3]
    exact = torch.promote_types(x.dtype, torch.float32)
    frequency = 10000.0 ** -(torch.arange(0, K, 2, device=x.device, dtype=exact) / K)
    angle = (position.to(exact)[..., None] * frequency)[..., None, :]  # [..., T, 1, K / 2]
    a, b = x[..., 0::2], x[..., 1::2]
    turned = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos())
    return torch.stack(turned, -1).flatten(-2).to(x.dtype)
