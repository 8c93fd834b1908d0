"""What a token erases in DeltaFormer: its weights κ₁ on earlier tokens, and a chunk's system.

    P_ts = κ₁(w_t, k_s) for s < t, else 0

ERASE: 0 the softmax over s < t of scale · w_tᵀ k_s, from its normaliser: P_ts = 2^(x_ts − L_t) with
x the scores times log₂ e and L the base-2 logarithm of the sum of 2^x, 0 where the sum is empty;
1 w_tᵀ k_s; 2 max(0, w_tᵀ k_s).

Of T new tokens that follow `past` others, token t is row (b T + t) H + h of w, v, β, y and L, and
row (b S + past + t) H + h of k and u, with S = past + T.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels import launch
from assocmem_kernels.inverse import unit_lower_inverse
from assocmem_kernels.tiles import dot, load, padded, poison, store, times

CODES = {"softmax": 0, "linear": 1, "relu": 2}
BLOCK = 8  # chunks per block


@triton.jit
def in_bits(scores, scale):
    """The softmax's exponents in base 2."""
    return scores * (scale * 1.4426950408889634)


@triton.jit
def weights(scores, L, scale, ERASE: tl.constexpr):
    """κ₁ from w_tᵀ k_s, for pairs with s < t; L is that of each score's t."""
    if ERASE == 0:
        P = tl.exp2(in_bits(scores, scale) - L)
    elif ERASE == 1:
        P = scores
    else:
        P = tl.where(scores < 0.0, 0.0, scores)  # a maximum would lose a NaN
    return P


@triton.jit
def weighed(P, U, ERASE: tl.constexpr):
    """P U for weights in float32, those of the softmax in U's dtype.

    Other weights may be as large as 2/β. Then u alternates, the sum is small beside its terms, and
    what each weight has been rounded by would add up over the sequence: so weights are sums of two.
    """
    if ERASE == 0:
        Y = dot(P.to(U.dtype), U)
    else:
        Y = times(P, U)
    return Y


@triton.jit
def weighed_across(U, P, ERASE: tl.constexpr):
    """U P, as `weighed`, for tiles that lie across: a loaded one on the left."""
    Y = dot(U, P)
    if ERASE != 0 and U.dtype != tl.float32:
        Y += dot(U, P - P.to(U.dtype))
    return Y


@triton.jit
def score_gradient(scores, dP, L, delta, scale, ERASE: tl.constexpr):
    """dx_ts (`deltaformer_backward.py`) from dP_ts, for s < t; δ_t = −Σ_s P_ts dP_ts."""
    if ERASE == 0:
        dP = weights(scores, L, scale, ERASE) * (dP + delta)
    elif ERASE == 2:
        dP = tl.where(scores > 0.0, dP, 0.0)
    return dP


@triton.jit(do_not_specialize=["scale", "T", "past", "first"])
def erase_triangles_kernel(
    w, k, beta, L, triangles, inverses, scale, T, past, first,
    H: tl.constexpr, K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, ERASE: tl.constexpr,
):  # fmt: skip
    """P_cc and (I + Diag(β) P_cc)⁻¹ of one chunk c of the block that begins at token `first`."""
    i, c = tl.program_id(0).to(tl.int64), tl.program_id(1)
    b, h, r, col = i // H, i % H, tl.arange(0, C), tl.arange(0, BK)
    t = first + c * C + r
    row, row_k, ok = (b * T + t) * H + h, (b * (past + T) + past + t) * H + h, t < T
    scores = dot(load(w, row, ok, col, K), tl.trans(load(k, row_k, ok, col, K)))
    P = weights(scores, tl.load(L + row, mask=ok, other=0.0)[:, None], scale, ERASE)
    P = tl.where(r[:, None] > r[None, :], P, 0.0)
    row_c = (i * tl.num_programs(1) + c) * C + r
    store(triangles, row_c, r < C, r, C, P)
    D = P * tl.load(beta + row, mask=ok, other=0.0).to(tl.float32)[:, None]
    # A NaN or infinity is left out here: it comes back with the right-hand side.
    D = tl.where(poison(D) == 0.0, D, 0.0)
    store(inverses, row_c, r < C, r, C, unit_lower_inverse(D, C, w.dtype.element_ty))


def configuration(kernel, w: Tensor, V: int) -> launch.Config:
    """How a kernel is launched, with tiles no wider than V."""
    cfg = launch.config(kernel.__name__, launch.architecture(w), w.dtype, 0)
    return replace(cfg, BV=min(cfg.BV, padded(V)))


def blocks(T: int, C: int) -> list[tuple[int, int]]:
    """First token and end of every block of T tokens in chunks of C."""
    return [(first, min(first + BLOCK * C, T)) for first in range(0, T, BLOCK * C)]


def erase_triangles(
    w: Tensor, k: Tensor, beta: Tensor, L: Tensor, scale: float, code: int, first: int, stop: int
) -> tuple[Tensor, Tensor]:
    """P_cc and (I + Diag(β) P_cc)⁻¹ of the chunks of one block, `[B H, chunks, C, C]`."""
    B, T, H, K = w.shape
    cfg = configuration(erase_triangles_kernel, w, 1)
    chunks = triton.cdiv(stop - first, cfg.C)
    triangles, inverses = (
        w.new_empty(B * H, chunks, cfg.C, cfg.C, dtype=torch.float32) for _ in range(2)
    )
    erase_triangles_kernel[B * H, chunks](
        w, k, beta, L, triangles, inverses, scale, T, k.shape[1] - T, first,
        H, K, cfg.C, padded(K), code,
        **cfg.options,
    )  # fmt: skip
    return triangles, inverses
