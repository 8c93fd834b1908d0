"""The layers' parts in plain loops and formulas, written down again from their definitions."""

from __future__ import annotations

import torch
from torch import Tensor


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def unit(x: Tensor) -> Tensor:
    return x / ((x * x).sum(-1, keepdim=True) + 1e-6).sqrt()


def rms_norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def split(x: Tensor, H: int) -> Tensor:
    """From `[B, T, H·n]` to `[B, T, H, n]`."""
    return x.reshape(*x.shape[:2], H, -1)


def short_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """SiLU of Σ_i w_i ⊙ x_{t-i} for x `[B, T, C]` and weight `[width, C]`."""
    y = torch.zeros_like(x)
    for t in range(x.shape[1]):
        for i in range(min(len(weight), t + 1)):
            y[:, t] += weight[i] * x[:, t - i]
    return silu(y)
