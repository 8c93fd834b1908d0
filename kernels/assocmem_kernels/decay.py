"""The decays within a chunk, from their natural logarithms g.

Γ_ts is the decay from token s to token t, γ_t from the chunk's start to t, ρ_s from s to the
chunk's end, γ_C over the whole chunk.
"""

# A type stands where constexpr is expected; a launch has options that are no parameters.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels.tiles import load


@triton.jit
def head_decay(g, row, ok, lower, dtype: tl.constexpr = tl.float32):
    """Γ, in dtype, and γ, ρ and γ_C in float32 of a chunk from one log decay per token.

    The sums are taken in float64, and their differences in two float32 parts: a difference of
    float32 sums would lose the digits that the two share. The exponentials are taken in dtype: in
    float32 their last two bits are wrong. exp(-1000) is 0 in any precision, so that cutting there
    changes nothing and keeps -inf out of the differences.
    """
    x = tl.load(g + row, mask=ok, other=0.0).to(tl.float64)
    x = tl.where(x < -1000.0, -1000.0, x)
    G, total = tl.cumsum(x, 0), tl.sum(x, 0)
    high = G.to(tl.float32)
    low = (G - high.to(tl.float64)).to(tl.float32)
    D = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    Γ = tl.exp(tl.where(lower, D, float("-inf")).to(dtype))
    γ, ρ, kept = tl.exp(G.to(dtype)), tl.exp((total - G).to(dtype)), tl.exp(total.to(dtype))
    return Γ, γ.to(tl.float32), ρ.to(tl.float32), kept.to(tl.float32)


@triton.jit
def since_start(g, row, ok, col, K: tl.constexpr, dtype: tl.constexpr):
    """γ `[C, BK]` and γ_C `[BK]` of a decay per channel.

    The exponentials are taken in dtype: in float32 their last two bits are wrong.
    """
    x = load(g, row, ok, col, K).to(tl.float32)
    γ, kept = tl.exp(tl.cumsum(x, 0).to(dtype)), tl.exp(tl.sum(x, 0).to(dtype))
    return γ.to(tl.float32), kept.to(tl.float32)


@triton.jit
def until_end(g, row, ok_next, col, H: tl.constexpr, K: tl.constexpr, dtype: tl.constexpr):
    """ρ `[C, BK]` of a decay per channel, a sum of its own over the tokens that follow."""
    x = load(g, row + H, ok_next, col, K).to(tl.float32)
    return tl.exp(tl.cumsum(x, 0, reverse=True).to(dtype)).to(tl.float32)


@triton.jit
def over_chunk(kept, number, col, K: tl.constexpr, GATE: tl.constexpr):
    """γ_C of the chunk and head with a number: 1, one for all channels, or a column `[BK, 1]`."""
    factor = 1.0
    if GATE == 1:
        factor = tl.load(kept + number)
    elif GATE == 2:
        factor = tl.load(kept + number * K + col, mask=col < K, other=0.0)[:, None]
    return factor


@triton.jit
def head_decay_gradient(pairs, to_t, from_s, S_dS, kept, before):
    """dg of a decay per head: what each of the pairs s < r ≤ t that it lies between sends to it.

    pairs `[C, C]`, in float64, are those within the chunk. Pairs after r cancel between rows and
    columns, down to the last bits. to_t is of what each token reads of the state before the chunk,
    and from_s of what it leaves in the state after it, `[C]`; S_dS of what the state had in each
    channel, `[BK]`, of which γ_C is kept.
    """
    dG = tl.cumsum(tl.sum(pairs, 1) - tl.sum(pairs, 0), 0, reverse=True).to(to_t.dtype)
    dG = dG + tl.cumsum(to_t, 0, reverse=True) + tl.sum(S_dS, 0) * kept
    return dG + tl.sum(tl.where(before, from_s[None, :], 0.0), 1)


@triton.jit
def near_one(kept):
    """1 for channels whose decays are near 1 in a chunk, else 0."""
    return tl.where(kept > 0.5, 1.0, 0.0)


def gate_kind(g: Tensor | None) -> int:
    """0 for no decay, 1 for one per head, 2 for one per channel: the kernels' GATE."""
    return 0 if g is None else g.ndim - 2


def gate_like(g: Tensor | None, q: Tensor) -> Tensor:
    """Room for the gradient of g; what has no gate has an empty one."""
    return q.new_empty(0, dtype=torch.float32) if g is None else g.new_empty(g.shape)
