"""A layer written for flash-linear-attention; its first import decides whose operator it runs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assocmem.ops import delta_rule as chunk_gated_delta_rule  # from fla.ops import ...


class GatedDeltaNetLayer(nn.Module):
    """Gated DeltaNet without its convolutions: what the operator is given, and by which names."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.beta_and_g = nn.Linear(d_model, 2 * n_heads)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, state: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """From tokens `[B, T, d_model]` to the same shape, and the state after the last one."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).unbind(2)
        beta, g = self.beta_and_g(x).chunk(2, -1)
        o, state = chunk_gated_delta_rule(
            q=F.normalize(q, dim=-1),
            k=F.normalize(k, dim=-1),
            v=v,
            g=F.logsigmoid(g + 3),
            beta=torch.sigmoid(beta),
            scale=1.0,
            initial_state=state,
            output_final_state=True,
            cu_seqlens=cu_seqlens,
        )
        return self.out(o.flatten(-2)), state
