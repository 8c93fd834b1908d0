"""How the delta rule reads and writes a state, chunk by chunk, so that errors do not add up."""

from __future__ import annotations

import triton
import triton.language as tl

from assocmem_kernels.decay import near_one
from assocmem_kernels.tiles import dot, load


@triton.jit
def plus_product(S, X, Y):
    """S + Xᵀ Y in float32, as a state takes up a chunk; summed in float64 where X is float32.

    With β near 2 no write fades, and what the sums of all chunks round away would add up.
    """
    if X.dtype != tl.float32:
        S += dot(tl.trans(X), Y)
    else:
        C: tl.constexpr = X.shape[0]
        b, total = tl.arange(0, C // 2)[:, None, None], S.to(tl.float64)
        X_2, Y_2 = tl.reshape(X, (C // 2, 2, X.shape[1])), tl.reshape(Y, (C // 2, 2, Y.shape[1]))
        for s in range(0, C // 2):
            x = tl.trans(tl.sum(tl.where(b == s, X_2, 0.0), 0)).to(tl.float64)
            y = tl.trans(tl.sum(tl.where(b == s, Y_2, 0.0), 0)).to(tl.float64)
            total += tl.sum(x[:, None, :] * y[None, :, :], 2)
        S = total.to(tl.float32)
    return S


@triton.jit
def read(k, since, γ_C, row, ok, col, K: tl.constexpr, S, GATE: tl.constexpr):
    """(γ ⊙ K) S, in float32.

    Equal keys read equal numbers, down to what is rounded away, and in the triangular system that
    cancels, where β is near 2 and nothing fades. Rows of γ ⊙ K are each rounded in their own way.
    So a decay per head comes after the product, and with a decay per channel what γ near 1 takes
    from float32 keys has a product of its own.
    """
    if GATE < 2:
        Y = dot(load(k, row, ok, col, K), S)
        if GATE == 1:
            Y *= tl.load(since + row, mask=ok, other=0.0)[:, None]
    else:
        Y = dot(load(since, row, ok, col, K), S)
        if k.dtype.element_ty == tl.float32:
            Y += dot(load(k, row, ok, col, K) * tl.trans(near_one(γ_C)), S)
    return Y


@triton.jit
def write(S, k, until, γ_C, row, ok, col, K: tl.constexpr, Y, GATE: tl.constexpr):
    """S + (ρ ⊙ K)ᵀ Y, with a decay per head on Y, which leaves K as it is in memory."""
    if GATE < 2:
        if GATE == 1:
            Y *= tl.load(until + row, mask=ok, other=0.0)[:, None]
        X = load(k, row, ok, col, K)
    else:
        X = load(until, row, ok, col, K)
        if k.dtype.element_ty == tl.float32:
            X += load(k, row, ok, col, K) * tl.trans(near_one(γ_C))
    return plus_product(S, X, Y)
