"""Linear attention as a layer, which takes a sequence whole or in pieces."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assocmem import ops


def elu_plus_one(x: Tensor) -> Tensor:
    """φ(x) = elu(x) + 1, a positive feature of every number (arXiv:2006.16236, Eq. 7)."""
    return F.elu(x) + 1


class LinearAttention(nn.Module):
    """Multi-head linear attention with a feature map (Katharopoulos et al., arXiv:2006.16236).

    y_t = W_o o_t, with o the heads' outputs of `ops.linear_attention` on φ(W_q x), φ(W_k x), W_v x.

    Args:
        d_model: size of the tokens.
        n_heads: number of heads H.
        d_key: size K of a head's keys, d_model / n_heads when None.
        d_value: size V of a head's values, d_model / n_heads when None.
        feature_map: φ, applied to queries and keys; keeps their shape or changes the last size.
        normalize: divide the read-out by that of the constant value 1 (Eq. 5 there); needs a
            positive φ.
        backend: passed to `ops.linear_attention`.

    The projections have no bias and `nn.Linear`'s initialisation.

    Raises:
        ValueError: when d_model is no multiple of n_heads and a head's size is not given.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        d_key: int | None = None,
        d_value: int | None = None,
        feature_map: Callable[[Tensor], Tensor] = elu_plus_one,
        normalize: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if d_model % n_heads and (d_key is None or d_value is None):
            raise ValueError(
                f"d_model must be a multiple of n_heads = {n_heads} unless d_key and d_value are "
                f"given, got {d_model}"
            )
        d_key = d_model // n_heads if d_key is None else d_key
        d_value = d_model // n_heads if d_value is None else d_value
        self.n_heads = n_heads
        self.feature_map = feature_map
        self.normalize = normalize
        self.backend = backend
        self.q_proj = nn.Linear(d_model, n_heads * d_key, bias=False)
        self.k_proj = nn.Linear(d_model, n_heads * d_key, bias=False)
        self.v_proj = nn.Linear(d_model, n_heads * d_value, bias=False)
        self.o_proj = nn.Linear(n_heads * d_value, d_model, bias=False)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read and write the memory at every token.

        Args:
            x: tokens `[B, T, d_model]`.
            state: what an earlier piece handed back, `[B, H, m, V]` with m the size of φ (V + 1
                with normalize); None for an empty memory.

        Returns:
            y `[B, T, d_model]`, and the state after the last token, for the next piece.

        Raises:
            ValueError: when x is not `[B, T, d_model]`.
        """
        if x.ndim != 3 or x.shape[-1] != self.q_proj.in_features:
            raise ValueError(
                f"x must have shape [B, T, d_model] with d_model = {self.q_proj.in_features}, "
                f"got {list(x.shape)}"
            )
        q, k, v = (
            proj(x).unflatten(-1, (self.n_heads, -1))
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        o, state = ops.linear_attention(
            self.feature_map(q),
            self.feature_map(k),
            v,
            initial_state=state,
            output_final_state=True,
            normalize=self.normalize,
            backend=self.backend,
        )
        assert isinstance(state, torch.Tensor)  # asked for above
        return self.o_proj(o.flatten(-2)), state
