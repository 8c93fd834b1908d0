"""Gradients of DeltaFormer's corrections, in blocks of chunks from the last to the first.

With G = ∂L/∂V and B = β ⊙ G, of which later tokens give

    G = (I + Diag(β) P)⁻ᵀ dU,    that is    G_s = dU_s − Σ_{t>s} P_ts B_t

and dP = −B Uᵀ. Two sums over earlier tokens need no P, as Y = P U is kept: dβ_t = −⟨G_t, y_t⟩, and
for the softmax the inner product of a row of P with its gradient, −δ_t = −⟨B_t, y_t⟩. So the scores
x get, of the softmax, with x_ts = scale · w_tᵀ k_s, or of the other κ₁ with x_ts = w_tᵀ k_s,

    dx_ts = P_ts (δ_t − ⟨B_t, u_s⟩),    dx_ts = −κ₁′(x_ts) ⟨B_t, u_s⟩

With tiles that are laid out so that every product has a loaded tile on its left (`recall_kernel`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels.erase import (
    blocks,
    configuration,
    erase_triangles,
    score_gradient,
    weighed,
    weighed_across,
    weights,
)
from assocmem_kernels.tiles import dot, load, padded, store, times


@triton.jit(do_not_specialize=["scale", "T", "past", "low", "high"])
def collect_kernel(
    w, k, B, G, L, scale, T, past, low, high,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, ERASE: tl.constexpr,
):  # fmt: skip
    """G_s −= Σ_t P_ts B_t over all t from `high` on, for C of the tokens s from `low` to `high`.

    Both are counted from the first of all tokens.
    """
    i, r, col = tl.program_id(0).to(tl.int64), tl.arange(0, C), tl.arange(0, BK)
    b, h, s = i // H, i % H, low + tl.program_id(1) * C + r
    row_s, ok_s = (b * (past + T) + s) * H + h, s < high
    Kc, col_v = load(k, row_s, ok_s, col, K), tl.program_id(2) * BV + tl.arange(0, BV)
    X = tl.zeros((BV, C), tl.float32)
    for j in range(high - past, T, C):
        row, ok = (b * T + j + r) * H + h, j + r < T
        scores = dot(load(w, row, ok, col, K), tl.trans(Kc))
        P = weights(scores, tl.load(L + row, mask=ok, other=0.0)[:, None], scale, ERASE)
        X += weighed_across(tl.trans(load(B, row, ok, col_v, V)), P, ERASE)
    store(G, row_s, ok_s, col_v, V, load(G, row_s, ok_s, col_v, V) - tl.trans(X))


@triton.jit(do_not_specialize=["scale", "T", "past", "first", "stop"])
def correct_backward_kernel(
    w, k, beta, B, G, L, inverses, scale, T, past, first, stop,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, ERASE: tl.constexpr,
):  # fmt: skip
    """Walk the chunks of a block from the last: G_c = T_cᵀ (G_c − Σ_{b>c} P_bcᵀ B_b), B = β ⊙ G."""
    i, r, col = tl.program_id(0).to(tl.int64), tl.arange(0, C), tl.arange(0, BK)
    b, h, col_v = i // H, i % H, tl.program_id(1) * BV + tl.arange(0, BV)
    chunks, to_k = tl.cdiv(stop - first, C), (b + 1) * past * H
    for later in range(0, chunks):
        c = chunks - 1 - later
        t = first + c * C + r
        row, ok = (b * T + t) * H + h, t < stop
        Kc, X = load(k, row + to_k, ok, col, K), load(G, row + to_k, ok, col_v, V)
        for j in range(c + 1, chunks):
            t_j = first + j * C + r
            row_j, ok_j = (b * T + t_j) * H + h, t_j < stop
            scores = dot(Kc, tl.trans(load(w, row_j, ok_j, col, K)))
            P = weights(scores, tl.load(L + row_j, mask=ok_j, other=0.0)[None, :], scale, ERASE)
            X -= weighed(P, load(B, row_j, ok_j, col_v, V), ERASE)
        T_c = load(inverses, (i * chunks + c) * C + r, r < C, r, C)
        X = times(tl.trans(T_c), X.to(Kc.dtype))
        store(G, row + to_k, ok, col_v, V, X)
        X *= tl.load(beta + row, mask=ok, other=0.0).to(tl.float32)[:, None]
        store(B, row, ok, col_v, V, X)
        tl.debug_barrier()  # the chunk before loads the B that other threads have stored


@triton.jit(do_not_specialize=["scale", "T", "past"])
def erase_key_gradient_kernel(
    w, k, u, B, L, delta, dw, scale, T, past,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, ERASE: tl.constexpr,
):  # fmt: skip
    """dw_t = Σ_{s<t} dx_ts k_s for C tokens t, of the softmax times its scale."""
    i, r, col = tl.program_id(0).to(tl.int64), tl.arange(0, C), tl.arange(0, BK)
    b, h, start = i // H, i % H, tl.program_id(1) * C
    t = start + r
    row, ok = (b * T + t) * H + h, t < T
    W = load(w, row, ok, col, K)
    L_t, δ = tl.load(L + row, mask=ok, other=0.0), tl.load(delta + row, mask=ok, other=0.0)
    dW = tl.zeros((BK, C), tl.float32)
    for j in range(0, past + start + C, C):
        s = j + r
        row_s, ok_s = (b * (past + T) + s) * H + h, s < past + T
        Kc, dP = load(k, row_s, ok_s, col, K), tl.zeros((C, C), tl.float32)
        for c in range(0, V, BV):
            col_v = c + tl.arange(0, BV)
            dP -= dot(load(u, row_s, ok_s, col_v, V), tl.trans(load(B, row, ok, col_v, V)))
        scores = dot(Kc, tl.trans(W))
        dx = score_gradient(scores, dP, L_t[None, :], δ[None, :], scale, ERASE)
        dx = tl.where(s[:, None] < past + t[None, :], dx, 0.0)
        dW += dot(tl.trans(Kc), dx)
    if ERASE == 0:
        dW *= scale
    store(dw, row, ok, col, K, tl.trans(dW))


@triton.jit(do_not_specialize=["scale", "T", "past"])
def key_gradient_kernel(
    w, k, u, B, L, delta, dk, scale, T, past,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, ERASE: tl.constexpr,
):  # fmt: skip
    """dk_s = Σ_{t>s} dx_ts w_t for C tokens s, of the softmax times its scale."""
    i, r, col = tl.program_id(0).to(tl.int64), tl.arange(0, C), tl.arange(0, BK)
    b, h, start = i // H, i % H, tl.program_id(1) * C
    s = start + r
    row_s, ok_s = (b * (past + T) + s) * H + h, s < past + T
    Kc, dK = load(k, row_s, ok_s, col, K), tl.zeros((BK, C), tl.float32)
    for j in range(tl.maximum(start - past, 0), T, C):
        t = j + r
        row, ok = (b * T + t) * H + h, t < T
        W, dP = load(w, row, ok, col, K), tl.zeros((C, C), tl.float32)
        for c in range(0, V, BV):
            col_v = c + tl.arange(0, BV)
            dP -= dot(load(B, row, ok, col_v, V), tl.trans(load(u, row_s, ok_s, col_v, V)))
        L_t, δ = tl.load(L + row, mask=ok, other=0.0), tl.load(delta + row, mask=ok, other=0.0)
        scores = dot(W, tl.trans(Kc))
        dx = score_gradient(scores, dP, L_t[:, None], δ[:, None], scale, ERASE)
        dx = tl.where(s[None, :] < past + t[:, None], dx, 0.0)
        dK += dot(tl.trans(W), dx)
    if ERASE == 0:
        dK *= scale
    store(dk, row_s, ok_s, col, K, tl.trans(dK))


def write_gradient(
    w: Tensor, k: Tensor, beta: Tensor, past: Tensor, L: Tensor, du: Tensor, scale: float, code: int
) -> tuple[Tensor, Tensor]:
    """G of all S tokens in float32, `[B, S, H, V]`, which is dpast of the earlier ones; and B."""
    (n, T, H, K), V, before = w.shape, du.shape[-1], past.shape[1]
    G = torch.empty(n, before + T, H, V, dtype=torch.float32, device=du.device)
    G[:, :before], G[:, before:] = 0.0, du
    B = torch.empty(du.shape, dtype=past.dtype, device=du.device)
    collect = configuration(collect_kernel, w, V)
    correct = configuration(correct_backward_kernel, w, V)

    def collect_from_later(low: int, high: int) -> None:
        collect_kernel[n * H, triton.cdiv(high - low, collect.C), triton.cdiv(V, collect.BV)](
            w, k, B, G, L, scale, T, before, low, high,
            H, K, V, collect.C, padded(K), collect.BV, code,
            **collect.options,
        )  # fmt: skip

    for first, stop in reversed(blocks(T, correct.C)):
        if stop < T:
            collect_from_later(before + first, before + stop)
        _, inverses = erase_triangles(w, k, beta, L, scale, code, first, stop)
        correct_backward_kernel[n * H, triton.cdiv(V, correct.BV)](
            w, k, beta, B, G, L, inverses, scale, T, before, first, stop,
            H, K, V, correct.C, padded(K), correct.BV, code,
            **correct.options,
        )  # fmt: skip
    if before:
        collect_from_later(0, before)
    return G, B


def score_gradients(
    w: Tensor, k: Tensor, u: Tensor, B: Tensor, L: Tensor, delta: Tensor, scale: float, code: int
) -> tuple[Tensor, Tensor]:
    """Gradients of w and k through the scores, all rows of tiles at once."""
    (n, T, H, K), (S, V) = w.shape, u.shape[1::2]
    dw, dk = torch.empty_like(w), torch.empty_like(k)
    for kernel, gradient, rows in (
        (erase_key_gradient_kernel, dw, T),
        (key_gradient_kernel, dk, S),
    ):
        cfg = configuration(kernel, w, V)
        kernel[n * H, triton.cdiv(rows, cfg.C)](
            w, k, u, B, L, delta, gradient, scale, T, S - T,
            H, K, V, cfg.C, padded(K), cfg.BV, code,
            **cfg.options,
        )  # fmt: skip
    return dw, dk
