"""Scores with a decay a channel: A_ts = Σ_c q_tc k_sc Γ_tsc for s ≤ t, and their gradient.

They are no product of matrices: Γ_tsc = exp(Σ_{s<r≤t} g_rc) has an entry for each of three indices.
The definition takes the sums one s at a time. Γ_tsc = exp(G_tc) exp(−G_sc), with sums G from the
chunk's middle, makes a product of it, where neither factor leaves the range of float32 and the
digits that G_t and G_s share do not matter: in half precision, unless decays are strong. A chunk
has 16 tokens here.
"""

# A launch passes numbers for constexpr, and options that are no parameters of the kernel.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels import launch
from assocmem_kernels.chunks import own_chunk
from assocmem_kernels.tiles import dot, load, padded, store

# Up to this |G| the two factors are used. float32 ends at exp(±88): half of that, in logarithms, is
# left to large keys and to small gradients.
STRONG = tl.constexpr(40.0)


@triton.jit
def all_below(G, limit):
    """Whether |G| is below a limit everywhere; a NaN is not."""
    return tl.max(tl.max(tl.where(tl.abs(G) < limit, 0, 1), 1), 0) == 0


@triton.jit
def from_middle(g, row, ok, col, K: tl.constexpr):
    """G, of which half of all that decays in the chunk is subtracted."""
    x = load(g, row, ok, col, K).to(tl.float32)
    return tl.cumsum(x, 0) - 0.5 * tl.sum(x, 0)[None, :]


@triton.jit
def scores_one_by_one(
    q, k, g, start, stop, h, row, ok, col,
    H: tl.constexpr, K: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """A, with Σ_c in the dtype `wide`, from D_tsc = Σ_{s<r≤t} g_rc, which grows as s goes back."""
    C: tl.constexpr = row.shape[0]
    r, Q = tl.arange(0, C), load(q, row, ok, col, K).to(wide)
    D, scores = tl.zeros(Q.shape, tl.float32), tl.zeros((C, C), wide)
    for j in range(0, C):
        s = C - 1 - j
        p = ((start + s) * H + h) * K + col
        k_s = tl.load(k + p, mask=(col < K) & (start + s < stop), other=0.0).to(wide)
        inside = (col < K) & (start + s + 1 < stop) & (s < C - 1)
        g_next = tl.load(g + p + H * K, mask=inside, other=0.0).to(tl.float32)
        D = tl.where((r > s)[:, None], D + g_next[None, :], 0.0)
        a = tl.sum(Q * tl.exp(D.to(wide)) * k_s[None, :], 1)
        scores = tl.where((r[None, :] == s) & (r >= s)[:, None], a[:, None], scores)
    return scores


@triton.jit
def gradients_one_by_one(
    q, k, g, dA, start, stop, h, row, ok, col, H: tl.constexpr, K: tl.constexpr
):
    """What dq, dk and dg get from dA."""
    C: tl.constexpr = row.shape[0]
    r, Q = tl.arange(0, C), load(q, row, ok, col, K).to(tl.float32)
    dQ, dK, dG = tl.zeros_like(Q), tl.zeros_like(Q), tl.zeros_like(Q)
    D = tl.zeros_like(Q)
    for j in range(0, C):
        s = C - 1 - j
        p = ((start + s) * H + h) * K + col
        k_s = tl.load(k + p, mask=(col < K) & (start + s < stop), other=0.0).to(tl.float32)
        inside = (col < K) & (start + s + 1 < stop) & (s < C - 1)
        g_next = tl.load(g + p + H * K, mask=inside, other=0.0).to(tl.float32)
        D = tl.where((r > s)[:, None], D + g_next[None, :], 0.0)
        da = tl.load(dA + row * C + s, mask=ok & (r >= s), other=0.0).to(tl.float32)
        W = da[:, None] * tl.exp(D)
        dQ += W * k_s[None, :]
        dK += tl.where((r == s)[:, None], tl.sum(W * Q, 0)[None, :], 0.0)
        later = (r > s)[:, None]
        dG += tl.where(later, tl.cumsum(tl.where(later, W * Q * k_s, 0.0), 0, reverse=True), 0.0)
    return dQ, dK, dG


@triton.jit
def channel_scores_kernel(
    q, k, g, A, chunks,
    H: tl.constexpr, K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A of one chunk, summed in A's dtype."""
    _i, h, start, stop = own_chunk(chunks, H)
    r, col = tl.arange(0, C), tl.arange(0, BK)
    if start >= stop:  # a number without a chunk
        return
    row, ok = (start + r) * H + h, start + r < stop
    wide: tl.constexpr = A.dtype.element_ty
    if q.dtype.element_ty == tl.float32:
        scores = scores_one_by_one(q, k, g, start, stop, h, row, ok, col, H, K, wide)
    else:
        G = from_middle(g, row, ok, col, K)
        if all_below(G, STRONG):
            Q, Kc = load(q, row, ok, col, K) * tl.exp(G), load(k, row, ok, col, K) * tl.exp(-G)
            scores = tl.where(r[:, None] >= r[None, :], dot(Q, tl.trans(Kc)), 0.0)
        else:
            scores = scores_one_by_one(q, k, g, start, stop, h, row, ok, col, H, K, wide)
    store(A, row, ok, r, C, scores)


@triton.jit
def channel_scores_backward_kernel(
    q, k, g, dA, dq, dk, dg, chunks,
    H: tl.constexpr, K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Add to dq, dk and dg what comes through the scores of `channel_scores_kernel`.

    A log decay g_r acts on the pairs s < r ≤ t: those with t ≥ r, without those with s ≥ r.
    """
    _i, h, start, stop = own_chunk(chunks, H)
    r, col = tl.arange(0, C), tl.arange(0, BK)
    if start >= stop:  # a number without a chunk
        return
    row, ok = (start + r) * H + h, start + r < stop
    if q.dtype.element_ty == tl.float32:
        dQ, dK, dG = gradients_one_by_one(q, k, g, dA, start, stop, h, row, ok, col, H, K)
    else:
        G = from_middle(g, row, ok, col, K)
        if all_below(G, STRONG):
            W = tl.where(r[:, None] >= r[None, :], load(dA, row, ok, r, C).to(tl.float32), 0.0)
            Q, Kc = load(q, row, ok, col, K) * tl.exp(G), load(k, row, ok, col, K) * tl.exp(-G)
            dQ, dK = dot(W, Kc), dot(tl.trans(W), Q)
            dG = tl.cumsum(Q * dQ - Kc * dK, 0, reverse=True)
            dQ, dK = dQ * tl.exp(G), dK * tl.exp(-G)
        else:
            dQ, dK, dG = gradients_one_by_one(q, k, g, dA, start, stop, h, row, ok, col, H, K)
    store(dq, row, ok, col, K, load(dq, row, ok, col, K) + dQ)
    store(dk, row, ok, col, K, load(dk, row, ok, col, K) + dK)
    store(dg, row, ok, col, K, load(dg, row, ok, col, K) + dG)


def channel_scores(
    q: Tensor, k: Tensor, g: Tensor, chunks: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A `[B, T, H, C]`, its columns the tokens s of t's chunk."""
    B, T, H, K = q.shape
    cfg = launch.config("channel_scores_kernel", launch.architecture(q), q.dtype, 2)
    A = torch.empty(B, T, H, cfg.C, dtype=dtype, device=q.device)
    channel_scores_kernel[(len(chunks) * H,)](
        q, k, g, A, chunks, H, K, cfg.C, padded(K), num_warps=cfg.num_warps
    )
    return A


def channel_scores_backward(
    q: Tensor, k: Tensor, g: Tensor, dA: Tensor, dq: Tensor, dk: Tensor, dg: Tensor, chunks: Tensor
) -> None:
    """Add the gradients that come through A to dq, dk and dg, which are in float32."""
    H, K = q.shape[2:]
    cfg = launch.config("channel_scores_backward_kernel", launch.architecture(q), q.dtype, 2)
    channel_scores_backward_kernel[(len(chunks) * H,)](
        q, k, g, dA, dq, dk, dg, chunks, H, K, cfg.C, padded(K), num_warps=cfg.num_warps
    )
