"""Gated linear attention as a layer: linear attention whose channels forget."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from assocmem.nn.low_rank import low_rank
from assocmem.nn.retention import Retention

RANK = 16  # of the decay's projection
TEMPERATURE = 16  # the decay is a sigmoid to the power of 1/16, so that memories start out long


class GatedLinearAttention(Retention):
    """Multi-head linear attention with one decay per key channel (Yang et al., arXiv:2312.06635).

    As `Retention`, with the log decay g = log σ(W_α₂ W_α₁ x + b_α) / 16.

    Args:
        d_model: size of the tokens.
        n_heads: number of heads H.
        **options: those of `Retention`: d_key (the paper takes half of d_model / n_heads), d_value,
            backend.

    Weights: those of `Retention`; decay_proj `[16, d_model]`, `[H·K, 16]` with bias, `nn.Linear`'s
    initialisation.

    Raises:
        TypeError, ValueError: as `Retention`.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> layer = nn.GatedLinearAttention(d_model=32, n_heads=4)
        >>> y, state = layer(torch.randn(2, 10, 32))
        >>> y.shape, state.shape
        (torch.Size([2, 10, 32]), torch.Size([2, 4, 8, 8]))
    """

    def __init__(self, d_model: int, n_heads: int, **options: Any) -> None:
        super().__init__(d_model, n_heads, **options)
        self.decay_proj = low_rank(d_model, RANK, n_heads * self.d_key, bias=True)

    def log_decay(self, x: Tensor) -> Tensor:
        """The log decays g `[B, T, H, K]` of tokens `[B, T, d_model]`."""
        return F.logsigmoid(self.heads(self.decay_proj(x))) / TEMPERATURE
