"""Gated DeltaNet as a layer: DeltaNet that can also forget, with a gate on what it reads."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from assocmem.nn.delta_net import DeltaNet
from assocmem.nn.softplus_decay import SoftplusDecay


class GatedDeltaNet(DeltaNet):
    """Multi-head delta rule with one decay per head and token (Yang et al., arXiv:2412.06464).

    As `DeltaNet`, with the log decay g = −exp(A_log) · softplus(W_a x + dt_bias) and the output
    y = W_o (RMSNorm(o) ⊙ SiLU(W_g x)).

    Args:
        d_model: size of the tokens.
        n_heads: number of heads H.
        **options: those of `DeltaNet`: d_key, d_value, allow_negative_eigenvalues, conv_width,
            backend.

    Weights: those of `DeltaNet`; a_proj `[H, d_model]` and gate_proj `[H·V, d_model]`,
    `nn.Linear`'s initialisation, no bias; decay, a `SoftplusDecay` with one decay per head.

    Raises:
        TypeError, ValueError: as `DeltaNet`.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> layer = nn.GatedDeltaNet(d_model=32, n_heads=4)
        >>> y, state = layer(torch.randn(2, 10, 32))
        >>> y.shape, state.S.shape
        (torch.Size([2, 10, 32]), torch.Size([2, 4, 8, 8]))
    """

    def __init__(self, d_model: int, n_heads: int, **options: Any) -> None:
        super().__init__(d_model, n_heads, **options)
        self.a_proj = nn.Linear(d_model, n_heads, bias=False)
        self.decay = SoftplusDecay(n_heads, 1)
        self.gate_proj = nn.Linear(d_model, n_heads * self.d_value, bias=False)

    def log_decay(self, x: Tensor) -> Tensor:
        """The log decays g `[B, T, H]` of tokens `[B, T, d_model]`."""
        return self.decay(self.heads(self.a_proj(x)))[..., 0]

    def read(self, o: Tensor, x: Tensor) -> Tensor:
        """RMSNorm(o) ⊙ SiLU(W_g x), `[B, T, H, V]`."""
        return self.o_norm(o) * F.silu(self.heads(self.gate_proj(x)))
