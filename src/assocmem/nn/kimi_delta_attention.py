"""Kimi Delta Attention as a layer: Gated DeltaNet whose channels each forget at their own rate."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from assocmem.nn.delta_net import DeltaNet
from assocmem.nn.low_rank import low_rank
from assocmem.nn.softplus_decay import SoftplusDecay


class KimiDeltaAttention(DeltaNet):
    """Multi-head delta rule with one decay per key channel (Kimi Team, arXiv:2510.26692).

    As `DeltaNet`, with the log decay g = −exp(A_log) · softplus(W_a₂ W_a₁ x + dt_bias) and the
    output y = W_o (RMSNorm(o) ⊙ σ(W_g₂ W_g₁ x + b)).

    Args:
        d_model: size of the tokens.
        n_heads: number of heads H.
        **options: those of `DeltaNet`: d_key, d_value, allow_negative_eigenvalues, conv_width,
            backend. On a GPU in half precision, negative eigenvalues and slow decays can make the
            state grow where keys recur (the page on kernels says when).

    Weights: those of `DeltaNet`; a_proj `[V, d_model]`, `[H·K, V]` without bias and gate_proj
    `[V, d_model]`, `[H·V, V]` with bias, both with a head's size as their rank and `nn.Linear`'s
    initialisation; decay, a `SoftplusDecay` with one rate A per head and one time step per channel.

    Raises:
        TypeError, ValueError: as `DeltaNet`.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> layer = nn.KimiDeltaAttention(d_model=32, n_heads=4)
        >>> y, state = layer(torch.randn(2, 10, 32))
        >>> y.shape, state.S.shape
        (torch.Size([2, 10, 32]), torch.Size([2, 4, 8, 8]))
    """

    def __init__(self, d_model: int, n_heads: int, **options: Any) -> None:
        super().__init__(d_model, n_heads, **options)
        rank = self.d_value
        self.a_proj = low_rank(d_model, rank, n_heads * self.d_key, bias=False)
        self.decay = SoftplusDecay(n_heads, self.d_key)
        self.gate_proj = low_rank(d_model, rank, n_heads * self.d_value, bias=True)

    def log_decay(self, x: Tensor) -> Tensor:
        """The log decays g `[B, T, H, K]` of tokens `[B, T, d_model]`."""
        return self.decay(self.heads(self.a_proj(x)))

    def read(self, o: Tensor, x: Tensor) -> Tensor:
        """RMSNorm(o) ⊙ σ(W_g₂ W_g₁ x + b), `[B, T, H, V]`."""
        return self.o_norm(o) * self.heads(self.gate_proj(x)).sigmoid()
