"""DeltaFormer's corrections in blocks of chunks, forward and backward (chapter 7, eq-deltaformer).

    u_t = v_t − β_t y_t,    y_t = Σ_{s<t} P_ts u_s,    (I + Diag(β) P) U = V

with the weights P of `erase.py`. What reads u is softmax attention, which is PyTorch's.

Forward, one block of tokens after the other, so that of P only tiles exist: one kernel recalls for
all tokens of the block what the finished blocks answer (and completes the softmax's normaliser); a
second inverts the triangle of every chunk; then one program per head and tile of V walks the chunks
of the block. Backward (`deltaformer_backward.py`) goes the same way from the end.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels import launch
from assocmem_kernels.deltaformer_backward import score_gradients, write_gradient
from assocmem_kernels.erase import (
    CODES,
    blocks,
    configuration,
    erase_triangles,
    in_bits,
    weighed,
    weighed_across,
    weights,
)
from assocmem_kernels.tiles import beyond, dot, from_here_on, load, padded, store, times


@triton.jit(do_not_specialize=["scale", "T", "past", "first"])
def recall_kernel(
    w, k, u, y, L, scale, T, past, first,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, ERASE: tl.constexpr,
):  # fmt: skip
    """Σ_s P_ts u_s over all tokens s before `first`, for C tokens t of the block after it; and L_t.

    The sum and its normaliser are rescaled whenever a larger score appears (online softmax). The
    normaliser counts the tokens of the block as well, whose u are not known yet. Tiles lie with s
    down and t across: every product then has a loaded tile, not a computed one, on its left.
    """
    i, r, col = tl.program_id(0).to(tl.int64), tl.arange(0, C), tl.arange(0, BK)
    b, h, start = i // H, i % H, first + tl.program_id(1) * C
    t, col_v = start + r, tl.program_id(2) * BV + tl.arange(0, BV)
    row, ok = (b * T + t) * H + h, t < T
    W = load(w, row, ok, col, K)
    largest, total = tl.full((C,), -3.4e38, tl.float32), tl.zeros((C,), tl.float32)
    Y = tl.zeros((BV, C), tl.float32)
    for j in range(0, past + (start + C if ERASE == 0 else first), C):
        s = j + r
        row_s, before = (b * (past + T) + s) * H + h, s[:, None] < past + t[None, :]
        scores = dot(load(k, row_s, s < past + T, col, K), tl.trans(W))
        if ERASE == 0:
            x = tl.where(before, in_bits(scores, scale), float("-inf"))
            larger = tl.maximum(largest, tl.max(x, 0))
            P, fade = tl.exp2(x - larger[None, :]), tl.exp2(largest - larger)
            Y, total, largest = Y * fade[None, :], total * fade + tl.sum(P, 0), larger
        else:
            P = tl.where(before, weights(scores, 0.0, scale, ERASE), 0.0)
        Y += weighed_across(tl.trans(load(u, row_s, s < past + first, col_v, V)), P, ERASE)
    if ERASE == 0:
        none = total == 0.0
        total = tl.where(none, 1.0, total)
        Y = Y / total[None, :]
        tl.store(L + row, tl.where(none, 0.0, largest + tl.log2(total)), mask=ok)
    store(y, row, ok, col_v, V, tl.trans(Y))


@triton.jit(do_not_specialize=["scale", "T", "past", "first", "stop"])
def correct_kernel(
    w, k, v, beta, u, y, L, triangles, inverses, scale, T, past, first, stop,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, ERASE: tl.constexpr,
):  # fmt: skip
    """Walk the chunks of a block, tokens `first` to `stop`: U_c = T_c (V_c − β ⊙ Y_c).

    T_c = (I + Diag(β) P_cc)⁻¹, and Y_c = Σ_{b<c} P_cb U_b, in which earlier blocks are in y.
    """
    i, r, col = tl.program_id(0).to(tl.int64), tl.arange(0, C), tl.arange(0, BK)
    b, h, col_v = i // H, i % H, tl.program_id(1) * BV + tl.arange(0, BV)
    chunks = tl.cdiv(stop - first, C)
    to_k = (b + 1) * past * H  # from a token's row of w to its row of k
    for c in range(0, chunks):
        t = first + c * C + r
        row, ok = (b * T + t) * H + h, t < stop
        W, L_t = load(w, row, ok, col, K), tl.load(L + row, mask=ok, other=0.0)[:, None]
        Y = load(y, row, ok, col_v, V)
        for j in range(0, c):
            row_s = (b * T + first + j * C + r) * H + h + to_k
            P = weights(dot(W, tl.trans(load(k, row_s, r < C, col, K))), L_t, scale, ERASE)
            Y += weighed(P, load(u, row_s, r < C, col_v, V), ERASE)
        X, β = load(v, row, ok, col_v, V), tl.load(beta + row, mask=ok, other=0.0).to(tl.float32)
        row_c = (i * chunks + c) * C + r
        P = load(triangles, row_c, r < C, r, C)
        # A NaN or infinity in row s times a masked 0 would reach the rows before s: it is taken out
        # of both products, and put back into every row from s on.
        D = X - β[:, None] * Y + tl.sum(beyond(P, X.dtype), 1)[:, None]
        lost = beyond(D, X.dtype)
        U = times(load(inverses, row_c, r < C, r, C), tl.where(lost == 0.0, D, 0.0).to(X.dtype))
        if X.dtype != tl.bfloat16:
            lost += beyond(U, X.dtype)
            U = tl.where(lost == 0.0, U, 0.0)
        Y, lost = Y + weighed(P, U.to(X.dtype), ERASE), from_here_on(lost, X.dtype)
        store(u, row + to_k, ok, col_v, V, U + lost)
        store(y, row, ok, col_v, V, Y + lost)
        tl.debug_barrier()  # the next chunk loads the u that other threads have stored


@torch.library.custom_op("assocmem::deltaformer", mutates_args=())
@launch.on_its_device
def deltaformer(
    w: Tensor, k: Tensor, v: Tensor, beta: Tensor, past: Tensor, scale: float, erase: str
) -> tuple[Tensor, Tensor, Tensor]:
    """U of T tokens that follow others, what they recall, Y = P U, and L, from checked arguments.

    Args:
        w: erase keys of the last T of S tokens, `[B, T, H, K]`, K <= 128.
        k: keys `[B, S, H, K]`.
        v: values `[B, T, H, V]`.
        beta: step sizes `[B, T, H]`.
        past: u of the first S − T tokens, `[B, S - T, H, V]`, in v's dtype.
        scale: factor on the softmax's scores.
        erase: κ₁: "softmax", "linear" or "relu".
    """
    w, k, v, beta = (x.contiguous() for x in (w, k, v, beta))
    (B, T, H, K), V, before = w.shape, v.shape[-1], past.shape[1]
    code = CODES[erase]
    u = v.new_empty(B, before + T, H, V)
    u[:, :before] = past
    y = torch.empty(v.shape, dtype=torch.float32, device=v.device)
    L = torch.zeros(beta.shape, dtype=torch.float32, device=v.device)
    recall, correct = (configuration(x, w, V) for x in (recall_kernel, correct_kernel))
    for first, stop in blocks(T if B * H else 0, correct.C):
        recall_kernel[B * H, triton.cdiv(stop - first, recall.C), triton.cdiv(V, recall.BV)](
            w, k, u, y, L, scale, T, before, first,
            H, K, V, recall.C, padded(K), recall.BV, code,
            **recall.options,
        )  # fmt: skip
        triangles, inverses = erase_triangles(w, k, beta, L, scale, code, first, stop)
        correct_kernel[B * H, triton.cdiv(V, correct.BV)](
            w, k, v, beta, u, y, L, triangles, inverses, scale, T, before, first, stop,
            H, K, V, correct.C, padded(K), correct.BV, code,
            **correct.options,
        )  # fmt: skip
    return u[:, before:].clone() if before else u, y, L


@deltaformer.register_fake
def _(w, k, v, beta, past, scale, erase):
    y = v.new_empty(v.shape, dtype=torch.float32)
    return v.new_empty(v.shape), y, v.new_empty(beta.shape, dtype=torch.float32)


@torch.library.custom_op("assocmem::deltaformer_backward", mutates_args=())
@launch.on_its_device
def deltaformer_backward(
    w: Tensor, k: Tensor, beta: Tensor, past: Tensor, u: Tensor, y: Tensor, L: Tensor, du: Tensor,
    scale: float, erase: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of w, k, v, beta and past, from that of U."""
    w, k, beta, u, y, L = (x.contiguous() for x in (w, k, beta, u, y, L))
    code, before = CODES[erase], past.shape[1]
    G, B = write_gradient(w, k, beta, past, L, du, scale, code)
    dpast, dv = G[:, :before], G[:, before:]
    dbeta = -(dv * y).sum(-1)
    # Of the rounded B, as −⟨B, u⟩ is: in a saturated row of the softmax the two cancel.
    delta = (B * y).sum(-1)
    u_of_all = torch.cat((past, u), 1) if before else u
    dw, dk = score_gradients(w, k, u_of_all, B, L, delta, scale, code)
    dv, dpast = (x.to(u.dtype, copy=True) for x in (dv, dpast))
    return dw, dk, dv, dbeta.to(beta.dtype), dpast


@deltaformer_backward.register_fake
def _(w, k, beta, past, u, y, L, du, scale, erase):
    return tuple(x.new_empty(x.shape) for x in (w, k, u, beta, past))


def _setup_context(ctx, inputs, output):
    w, k, _v, beta, past, ctx.scale, ctx.erase = inputs
    ctx.save_for_backward(w, k, beta, past, *output)


def _backward(ctx, du, _dy, _dL):
    gradients = deltaformer_backward(*ctx.saved_tensors, du, ctx.scale, ctx.erase)
    return *gradients, None, None


deltaformer.register_autograd(_backward, setup_context=_setup_context)
deltaformer_backward.register_autograd(launch.refuse)
