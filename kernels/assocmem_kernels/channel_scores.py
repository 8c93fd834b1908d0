"""Scores with a decay a channel: A_ts = Σ_c q_tc k_sc Γ_tsc for s ≤ t, and their gradient.

They are no product of matrices: Γ_tsc = exp(Σ_{s<r≤t} g_rc) has an entry for each of three indices.
A chunk has 16 tokens here; the sums are taken one s at a time.
"""

# A launch passes numbers for constexpr, and options that are no parameters of the kernel.
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels import launch
from assocmem_kernels.tiles import load, padded, store


@triton.jit
def channel_scores_kernel(
    q, k, g, A, chunks,
    H: tl.constexpr, K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A_ts = Σ_c q_tc k_sc exp(D_tsc) for s ≤ t, with D_tsc = Σ_{s<r≤t} g_rc, one s at a time.

    Σ_c is taken in A's dtype.
    """
    i, h = tl.program_id(0).to(tl.int64) // H, tl.program_id(0).to(tl.int64) % H
    r, col = tl.arange(0, C), tl.arange(0, BK)
    start, stop = tl.load(chunks + 2 * i), tl.load(chunks + 2 * i + 1)
    if start >= stop:  # a number without a chunk
        return
    row, ok = (start + r) * H + h, start + r < stop
    wide = A.dtype.element_ty
    Q = load(q, row, ok, col, K).to(wide)
    D, scores = tl.zeros((C, BK), tl.float32), tl.zeros((C, C), wide)
    for j in range(0, C):
        s = C - 1 - j
        p = ((start + s) * H + h) * K + col
        k_s = tl.load(k + p, mask=(col < K) & (start + s < stop), other=0.0).to(wide)
        inside = (col < K) & (start + s + 1 < stop) & (s < C - 1)
        g_next = tl.load(g + p + H * K, mask=inside, other=0.0).to(tl.float32)
        D = tl.where((r > s)[:, None], D + g_next[None, :], 0.0)
        a = tl.sum(Q * tl.exp(D.to(wide)) * k_s[None, :], 1)
        scores = tl.where((r[None, :] == s) & (r >= s)[:, None], a[:, None], scores)
    store(A, row, ok, r, C, scores)


@triton.jit
def channel_scores_backward_kernel(
    q, k, g, dA, dq, dk, dg, chunks,
    H: tl.constexpr, K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Add to dq, dk and dg what comes through the scores of `channel_scores_kernel`."""
    i, h = tl.program_id(0).to(tl.int64) // H, tl.program_id(0).to(tl.int64) % H
    r, col = tl.arange(0, C), tl.arange(0, BK)
    start, stop = tl.load(chunks + 2 * i), tl.load(chunks + 2 * i + 1)
    if start >= stop:  # a number without a chunk
        return
    row, ok = (start + r) * H + h, start + r < stop
    Q = load(q, row, ok, col, K).to(tl.float32)
    dQ, dK = load(dq, row, ok, col, K), load(dk, row, ok, col, K)
    dG, D = load(dg, row, ok, col, K), tl.zeros((C, BK), tl.float32)
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
    store(dq, row, ok, col, K, dQ)
    store(dk, row, ok, col, K, dK)
    store(dg, row, ok, col, K, dG)


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
