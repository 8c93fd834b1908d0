"""Retention as a layer: linear attention that forgets at constant rates, one per head."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from assocmem import distributed, ops
from assocmem.nn.mixer import HeadNorm, Mixer, scan_on
from assocmem.ops.inputs import check_initial_state, state_dtype


class Retention(Mixer):
    """Multi-head linear attention with a constant decay per head (Sun et al., arXiv:2307.08621).

    q = W_q x, k = W_k x, v = W_v x, the decay of head h = 0, 1, … is 1 − 2^(−5−h) at every token,
    and y = W_o (RMSNorm(o) ⊙ SiLU(W_g x)), with o the heads' outputs of `ops.linear_attention`.
    Unlike RetNet, it does not turn queries and keys by their positions.

    Args:
        d_model: size of the tokens.
        n_heads: number of heads H.
        d_key: size K of a head's keys, d_model / n_heads when None.
        d_value: size V of a head's values, d_model / n_heads when None.
        backend: passed to `ops.linear_attention`.

    Weights: `Mixer`'s projections; gate_proj `[H·V, d_model]`, `nn.Linear`'s initialisation, no
    bias; o_norm, an `nn.RMSNorm` of size V with ε = 10⁻⁵ that all heads share, initially 1.

    Raises:
        TypeError, ValueError: as `Mixer`.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> layer = nn.Retention(d_model=32, n_heads=4)
        >>> y, state = layer(torch.randn(2, 10, 32))
        >>> y.shape, state.shape
        (torch.Size([2, 10, 32]), torch.Size([2, 4, 8, 8]))
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        d_key: int | None = None,
        d_value: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(d_model, n_heads, d_key=d_key, d_value=d_value, backend=backend)
        self.gate_proj = nn.Linear(d_model, n_heads * self.d_value, bias=False)
        self.o_norm = HeadNorm(self.d_value)

    def log_decay(self, x: Tensor) -> Tensor:
        """The log decays g of tokens `[B, T, d_model]`: `[B, T, H]`, or `[B, T, H, K]`."""
        exponent = torch.arange(5.0, 5 + self.n_heads, device=x.device, dtype=state_dtype(x))
        return torch.log1p(-(2**-exponent)).expand(*x.shape[:2], -1)

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        *,
        group: dist.ProcessGroup | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Read and write the memory at every token.

        Args:
            x: tokens `[B, T, d_model]`.
            state: what an earlier piece handed back, `[N, H, K, V]` (N = B unless
                sequences are packed); None for an empty memory.
            group: the ranks on which the pieces x of a sequence lie, as `Streaming` says.
            cu_seqlens: borders of N packed sequences `[N + 1]`, as `Streaming` says.

        Returns:
            y `[B, T, d_model]`, and the state after the last token, for the next piece.

        Raises:
            TypeError, ValueError: when x is not `[B, T, d_model]`, or the state or cu_seqlens do
                not fit it.
        """
        q, k, v = map(self.heads, self.project(x, cu_seqlens))
        check_initial_state(state, q, self.d_value, cu_seqlens, name="state")
        scan = scan_on(group, ops.linear_attention, distributed.linear_attention)
        o, after = scan(
            q,
            k,
            v,
            self.log_decay(x),
            initial_state=state,
            output_final_state=True,
            cu_seqlens=cu_seqlens,
            backend=self.backend,
        )
        o = self.o_norm(o) * F.silu(self.heads(self.gate_proj(x)))
        return self.o_proj(o.flatten(-2)), after
