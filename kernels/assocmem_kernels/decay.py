"""The decays within a chunk, from their natural logarithms g.

Γ_ts is the decay from token s to token t, γ_t from the chunk's start to t, ρ_s from s to the
chunk's end, γ_C over the whole chunk.
"""

# A type stands where the checker expects constexpr.
# pyright: reportArgumentType=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels.tiles import load


@triton.jit
def head_decay(g, row, ok, lower, dtype: tl.constexpr = tl.float32):
    """Γ, in dtype, and γ, ρ and γ_C of a chunk from one log decay a token.

    The sums are taken in float64, and their differences in two float32 parts: a difference of
    float32 sums would lose the digits that the two share. exp(-1000) is 0 in any precision, so
    that cutting there changes nothing and keeps -inf out of the differences.
    """
    x = tl.load(g + row, mask=ok, other=0.0).to(tl.float64)
    x = tl.where(x < -1000.0, -1000.0, x)
    G, total = tl.cumsum(x, 0), tl.sum(x, 0)
    high = G.to(tl.float32)
    low = (G - high.to(tl.float64)).to(tl.float32)
    D = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    Γ = tl.exp(tl.where(lower, D, float("-inf")).to(dtype))
    return Γ, tl.exp(high), tl.exp((total - G).to(tl.float32)), tl.exp(total.to(tl.float32))


@triton.jit
def since_start(
    g, row, ok, col, K: tl.constexpr, GATE: tl.constexpr, dtype: tl.constexpr = tl.float32
):
    """γ and γ_C, as columns `[C, 1]`, `[1, 1]` (GATE 1) or tiles `[C, BK]`, `[BK, 1]` (GATE 2).

    The exponentials are taken in dtype: in float32 their last two bits are wrong.
    """
    if GATE == 1:
        # Triton 3.6 has no running sum of a column, and one of a vector takes more registers here.
        x, r = tl.load(g + row, mask=ok, other=0.0).to(tl.float32), tl.arange(0, row.shape[0])
        sums = tl.sum(tl.where(r[:, None] >= r[None, :], x[None, :], 0.0), 1)[:, None]
        total = tl.sum(x[None, :], 1)
    else:
        x = load(g, row, ok, col, K).to(tl.float32)
        sums, total = tl.cumsum(x, 0), tl.sum(x, 0)
    γ, kept = tl.exp(sums.to(dtype)), tl.exp(total.to(dtype))
    return γ.to(tl.float32), kept.to(tl.float32)[:, None]


@triton.jit
def until_end(
    g, row, ok_next, col, H: tl.constexpr, K: tl.constexpr, GATE: tl.constexpr,
    dtype: tl.constexpr = tl.float32,
):  # fmt: skip
    """ρ, a sum of its own over the log decays of the tokens that follow; shaped like γ."""
    if GATE == 1:
        x = tl.load(g + row + H, mask=ok_next, other=0.0).to(tl.float32)
        sums = tl.cumsum(x, 0, reverse=True)[:, None]
    else:
        sums = tl.cumsum(load(g, row + H, ok_next, col, K).to(tl.float32), 0, reverse=True)
    return tl.exp(sums.to(dtype)).to(tl.float32)


def gate_kind(g: Tensor | None) -> int:
    """0 for no decay, 1 for one a head, 2 for one a channel: the kernels' GATE."""
    return 0 if g is None else g.ndim - 2
