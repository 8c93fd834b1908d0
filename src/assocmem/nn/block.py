"""A block of a sequence model: mix the tokens, then change each by itself."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from assocmem.nn.mixer import Mixer
from assocmem.nn.streaming import Streaming


class SwiGLU(nn.Module):
    """The gated feed-forward W₃ (SiLU(W₁ x) ⊙ W₂ x) of every token (Shazeer, arXiv:2002.05202).

    Args:
        d_model: size of the tokens.
        d_hidden: size between the matrices.

    Weights, without bias and with `nn.Linear`'s initialisation: gate_proj (W₁) and up_proj (W₂)
    `[d_hidden, d_model]`, down_proj (W₃) `[d_model, d_hidden]`.
    """

    def __init__(self, d_model: int, d_hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(d_model, d_hidden, bias=False)
        self.up_proj = nn.Linear(d_model, d_hidden, bias=False)
        self.down_proj = nn.Linear(d_hidden, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """From tokens `[..., d_model]` to the same shape."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(Streaming):
    """Two residual steps: h = x + mixer(RMSNorm(x)), y = h + SwiGLU(RMSNorm(h)).

    Args:
        mixer: a layer that mixes the tokens.
        d_hidden: size within the feed-forward; 8/3 d_model when None, with which its three matrices
            have 8 d_model² numbers, as the two of a Transformer's with 4 d_model.

    Weights: those of the mixer and of `SwiGLU`; mixer_norm and feed_forward_norm, each an
    `nn.RMSNorm` of size d_model with ε = 10⁻⁵, initially 1.
    """

    def __init__(self, mixer: Mixer, d_hidden: int | None = None) -> None:
        super().__init__()
        d_model = mixer.d_model
        self.mixer_norm = nn.RMSNorm(d_model, eps=1e-5)
        self.mixer = mixer
        self.feed_forward_norm = nn.RMSNorm(d_model, eps=1e-5)
        self.feed_forward = SwiGLU(d_model, 8 * d_model // 3 if d_hidden is None else d_hidden)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """From tokens `[B, T, d_model]` to the same shape, with the mixer's state."""
        mixed, state = self.mixer(self.mixer_norm(x), state)
        h = x + mixed
        return h + self.feed_forward(self.feed_forward_norm(h)), state
