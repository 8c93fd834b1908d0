"""The delta rule as fused scans over chunks, forward and backward (chapter 6, eq-delta-chunk).

    U = T (β ⊙ (V − (γ ⊙ K) S)),    T = (I + strict_lower(β ⊙ K Kᵀ ⊙ Γ))⁻¹
    O = scale · (A U + (γ ⊙ Q) S),    A = tril(Q Kᵀ ⊙ Γ),    S ← γ_C S + (ρ ⊙ K)ᵀ U

The decays Γ, γ, ρ and γ_C are those of `decay.py`. GATE: 0 no decay, 1 one a head (g `[B, T, H]`),
2 one a channel (g `[B, T, H, K]`), with which Q Kᵀ ⊙ Γ and K Kᵀ ⊙ Γ come from `channel_decay.py`.

Forward: one kernel prepares A, T and the decays of every chunk, all at once; then one program per
head and tile of V walks the chunks with S in registers. Backward: the same walk stores S before
each chunk, a walk from the end stores dS after each chunk, and then all chunks are independent.

The walks get γ, ρ and γ_C as `since`, `until` and `kept`: see `Prepared`.
"""

# A launch passes numbers for constexpr, and options that are no parameters of the kernel.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels import launch
from assocmem_kernels.channel_decay import channel_decay, channel_decay_backward
from assocmem_kernels.chunks import chunk_table, own_chunk
from assocmem_kernels.decay import (
    gate_kind,
    head_decay,
    near_one,
    over_chunk,
)
from assocmem_kernels.inverse import unit_lower_inverse
from assocmem_kernels.pieces import Pieces, cut
from assocmem_kernels.step import step
from assocmem_kernels.tiles import beyond, dot, load, padded, poison, store, times, times_sum


@triton.jit
def plain_scores(q, k, row, ok, col, K: tl.constexpr, C: tl.constexpr):
    """Q Kᵀ of a chunk; of float32 in float64, one column at a time."""
    if q.dtype.element_ty != tl.float32:
        scores = dot(load(q, row, ok, col, K), tl.trans(load(k, row, ok, col, K)))
    else:
        r, scores = tl.arange(0, C), tl.zeros((C, C), tl.float64)
        Q = load(q, row, ok, col, K).to(tl.float64)
        for s in range(0, C):
            row_s, ok_s = tl.sum(tl.where(r == s, row, 0)), tl.sum(tl.where((r == s) & ok, 1, 0))
            k_s = tl.load(k + row_s * K + col, mask=(ok_s > 0) & (col < K), other=0.0)
            a = tl.sum(Q * k_s.to(tl.float64)[None, :], 1)
            scores = tl.where((r == s)[None, :], a[:, None], scores)
    return scores


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
    So a decay a head comes after the product, and with a decay a channel what γ near 1 takes from
    float32 keys has a product of its own.
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
    """S + (ρ ⊙ K)ᵀ Y, with a decay a head on Y, which leaves K as it is in memory."""
    if GATE < 2:
        if GATE == 1:
            Y *= tl.load(until + row, mask=ok, other=0.0)[:, None]
        X = load(k, row, ok, col, K)
    else:
        X = load(until, row, ok, col, K)
        if k.dtype.element_ty == tl.float32:
            X += load(k, row, ok, col, K) * tl.trans(near_one(γ_C))
    return plus_product(S, X, Y)


@triton.jit
def triangles_kernel(
    q, k, beta, g, A, M, inverse, since, until, kept, chunks,
    H: tl.constexpr, K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """A = tril(Q Kᵀ ⊙ Γ), M = K Kᵀ ⊙ Γ and T = (I + strict_lower(β ⊙ M))⁻¹ of one chunk.

    With a decay a head also γ, ρ and γ_C, once for all tiles of V. With a decay a channel A and M
    are there already.
    """
    i, h, start, stop = own_chunk(chunks, H)
    r, col = tl.arange(0, C), tl.arange(0, BK)
    if start >= stop:  # a number without a chunk
        return
    row, ok = (start + r) * H + h, start + r < stop
    lower, before = r[:, None] >= r[None, :], r[:, None] > r[None, :]
    if GATE == 2:
        L = load(M, row, ok, r, C)
    else:
        scores = plain_scores(q, k, row, ok, col, K, C)
        L = plain_scores(k, k, row, ok, col, K, C)
        if GATE == 1:
            Γ, γ, ρ, γ_C = head_decay(g, row, ok, lower, L.dtype)
            scores, L = scores * Γ, L * Γ
            tl.store(since + row, γ, mask=ok)
            tl.store(until + row, ρ, mask=ok)
            tl.store(kept + i * H + h, γ_C)
        store(A, row, ok, r, C, tl.where(lower, scores, 0.0))
        if M is not None:
            store(M, row, ok, r, C, L)
    L *= tl.load(beta + row, mask=ok, other=0.0).to(tl.float32)[:, None]
    # A NaN or infinity is left out here: it comes back with the right-hand side.
    L = tl.where(before & (poison(L) == 0.0), L, 0.0)
    store(inverse, row, ok, r, C, unit_lower_inverse(L, C, q.dtype.element_ty))


@triton.jit
def delta_forward_kernel(
    q, k, v, beta, since, until, kept, A, inverse, o, S0, ST, borders, scale,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """Walk the chunks of one sequence and head with S `[K, BV]` in registers (eq-delta-chunk).

    A = tril(Q Kᵀ ⊙ Γ) and the inverse are those of each chunk, and kept has its γ_C. With GATE = 1
    since and until are γ and ρ; with GATE = 2 they are γ ⊙ K and ρ ⊙ K, and q is γ ⊙ Q.
    """
    i_nh, i_v = tl.program_id(0).to(tl.int64), tl.program_id(1)
    n, h = i_nh // H, i_nh % H
    r, col, col_v = tl.arange(0, C), tl.arange(0, BK), i_v * BV + tl.arange(0, BV)
    start, stop = tl.load(borders + n), tl.load(borders + n + 1)
    row_S = i_nh * K + col
    S = load(S0, row_S, col < K, col_v, V)
    for j in range(0, tl.cdiv(stop - start, C)):
        t, number = start + j * C, (start // C + n + j) * H + h
        row, ok = (t + r) * H + h, t + r < stop
        γ_C = over_chunk(kept, number, col, K, GATE)
        X = load(v, row, ok, col_v, V)
        β = tl.load(beta + row, mask=ok, other=0.0).to(tl.float32)[:, None]
        D = (X - read(k, since, γ_C, row, ok, col, K, S, GATE)) * β
        # A NaN or infinity in row s times a masked 0 would reach the rows before s: it is taken out
        # of both products, and put back into every row from s on.
        lost = beyond(D, X.dtype)
        U = times(load(inverse, row, ok, r, C), tl.where(lost == 0.0, D, 0.0).to(X.dtype))
        if X.dtype != tl.bfloat16:
            lost += beyond(U, X.dtype)
            U = tl.where(lost == 0.0, U, 0.0)
        lost = tl.cumsum(lost, 0)
        O = dot(load(q, row, ok, col, K), S)
        if GATE == 1:
            O *= tl.load(since + row, mask=ok, other=0.0)[:, None]
        O += dot(load(A, row, ok, r, C).to(X.dtype), U) + lost
        store(o, row, ok, col_v, V, O * scale)
        S = write(S * γ_C, k, until, γ_C, row, ok, col, K, U + lost, GATE)
    store(ST, row_S, col < K, col_v, V, S)


@triton.jit
def delta_states_kernel(
    k, v, beta, since, until, kept, inverse, S, S0, borders,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """Store S before each chunk: the walk of `delta_forward_kernel` without its output."""
    i_nh, i_v = tl.program_id(0).to(tl.int64), tl.program_id(1)
    n, h = i_nh // H, i_nh % H
    r, col, col_v = tl.arange(0, C), tl.arange(0, BK), i_v * BV + tl.arange(0, BV)
    start, stop = tl.load(borders + n), tl.load(borders + n + 1)
    X_S = load(S0, i_nh * K + col, col < K, col_v, V)
    for j in range(0, tl.cdiv(stop - start, C)):
        t, number = start + j * C, (start // C + n + j) * H + h
        store(S, number * K + col, col < K, col_v, V, X_S)
        row, ok = (t + r) * H + h, t + r < stop
        γ_C = over_chunk(kept, number, col, K, GATE)
        X = load(v, row, ok, col_v, V)
        β = tl.load(beta + row, mask=ok, other=0.0).to(tl.float32)[:, None]
        D = (X - read(k, since, γ_C, row, ok, col, K, X_S, GATE)) * β
        U = times(load(inverse, row, ok, r, C), D.to(X.dtype))
        X_S = write(X_S * γ_C, k, until, γ_C, row, ok, col, K, U, GATE)


@triton.jit
def delta_states_backward_kernel(
    q, k, beta, since, until, kept, A, inverse, do, dS, dv, dST, dS0, borders, scale,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """From the end, store dS after each chunk, and Y in the place of dV.

    dU = scale · Aᵀ dO + (ρ ⊙ K) dS,    Y = Tᵀ dU,    dV = β ⊙ Y
    dS ← γ_C dS + scale · (γ ⊙ Q)ᵀ dO − (γ ⊙ K)ᵀ dV

    Where later tokens overwrite, dU adds up what all of them send back, and Y is a small difference
    of its rows: in half precision dU is rounded to two numbers, not to one.
    """
    i_nh, i_v = tl.program_id(0).to(tl.int64), tl.program_id(1)
    n, h = i_nh // H, i_nh % H
    r, col, col_v = tl.arange(0, C), tl.arange(0, BK), i_v * BV + tl.arange(0, BV)
    start, stop = tl.load(borders + n), tl.load(borders + n + 1)
    row_S = i_nh * K + col
    X_dS = load(dST, row_S, col < K, col_v, V)
    chunks = tl.cdiv(stop - start, C)
    for i in range(0, chunks):
        j = chunks - 1 - i
        t, number = start + j * C, (start // C + n + j) * H + h
        store(dS, number * K + col, col < K, col_v, V, X_dS)
        row, ok = (t + r) * H + h, t + r < stop
        γ_C = over_chunk(kept, number, col, K, GATE)
        dO = load(do, row, ok, col_v, V)
        dU = read(k, until, γ_C, row, ok, col, K, X_dS, GATE)
        dU += dot(tl.trans(load(A, row, ok, r, C).to(dO.dtype)), dO) * scale
        Y = times_sum(tl.trans(load(inverse, row, ok, r, C)), dU, dO.dtype)
        store(dv, row, ok, col_v, V, Y)
        dV = Y * tl.load(beta + row, mask=ok, other=0.0).to(tl.float32)[:, None]
        dO = dO * scale
        if GATE == 1:
            dO *= tl.load(since + row, mask=ok, other=0.0)[:, None]
        X_dS = plus_product(X_dS * γ_C, load(q, row, ok, col, K), dO)
        X_dS = write(X_dS, k, since, γ_C, row, ok, col, K, -dV, GATE)
    store(dS0, row_S, col < K, col_v, V, X_dS)


@triton.jit
def delta_backward_kernel(
    q, k, v, beta, g, since, until, kept, A, M, inverse,
    do, S, dS, dq, dk, dk_in, dv, dbeta, dg, chunks, scale,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """Gradients of one chunk, from S before it, dS after it, and Y = Tᵀ dU in the place of dV.

    E = V − (γ ⊙ K) S − M U, with M = strict_lower(K Kᵀ ⊙ Γ), is what each write corrects, and
    U = β ⊙ E. So dβ = Y · E, dV = β ⊙ Y, and the scores get dA = scale · dO Uᵀ and
    dM = −dV Uᵀ. A log decay g_r acts on every pair that it lies between. With GATE = 2, dq,
    dk_in, dk and dg are the gradients of γ ⊙ Q, γ ⊙ K, ρ ⊙ K and γ_C, and dA and dM take the places
    of A and M.
    """
    i, h, start, stop = own_chunk(chunks, H)
    r, col = tl.arange(0, C), tl.arange(0, BK)
    if start >= stop:  # a number without a chunk
        return
    row, ok = (start + r) * H + h, start + r < stop
    row_S = (i * H + h) * K + col
    lower, before = r[:, None] >= r[None, :], r[:, None] > r[None, :]
    wide: tl.constexpr = tl.float64 if k.dtype.element_ty == tl.float32 else tl.float32
    γ_C = over_chunk(kept, i * H + h, col, K, GATE)
    own = tl.where(before, load(M, row, ok, r, C), 0.0)
    T, β = load(inverse, row, ok, r, C), tl.load(beta + row, mask=ok, other=0.0).to(tl.float32)
    if T.dtype == tl.float32:  # here nothing adds up over chunks
        T = T.to(v.dtype.element_ty)
    dβ, S_dS = tl.zeros((C,), tl.float32), tl.zeros((BK,), tl.float32)
    dA, dM = tl.zeros((C, C), tl.float32), tl.zeros((C, C), tl.float32)
    dQ, dK_in = tl.zeros((C, BK), tl.float32), tl.zeros((C, BK), tl.float32)
    dK_out = tl.zeros((C, BK), tl.float32)
    # Times 1, which is exact, a Y of half precision lies as the other products do. To convert it
    # would make the loop a quarter longer.
    one = tl.where(r[:, None] == r[None, :], 1.0, 0.0).to(dv.dtype.element_ty)
    for c in range(0, V, BV):
        col_v = c + tl.arange(0, BV)
        X, Y = load(v, row, ok, col_v, V), load(dv, row, ok, col_v, V)
        if Y.dtype != tl.float32:
            Y = dot(one, Y)
        dO, Sc = load(do, row, ok, col_v, V), load(S, row_S, col < K, col_v, V)
        dSc = load(dS, row_S, col < K, col_v, V)
        S_dS += tl.sum(Sc.to(tl.float32) * dSc.to(tl.float32), 1)
        E = X - read(k, since, γ_C, row, ok, col, K, Sc, GATE)
        U = times(T, (E * β[:, None]).to(X.dtype)).to(X.dtype)
        E -= dot(own.to(U.dtype), U)
        dV = (Y * β[:, None]).to(X.dtype)
        store(dv, row, ok, col_v, V, dV)
        dβ += tl.sum(Y * E, 1)
        if GATE == 1:
            dA = plus_product(dA, tl.trans(dO), tl.trans(U))
            dM = plus_product(dM, tl.trans(dV), tl.trans(U))
        else:
            dA += dot(dO, tl.trans(U))
            dM += dot(dV, tl.trans(U))
        dQ += dot(dO, tl.trans(Sc))
        dK_out += dot(U, tl.trans(dSc))
        if GATE:
            dK_in -= dot(dV, tl.trans(Sc))
        else:  # one sum takes fewer registers
            dK_out -= dot(dV, tl.trans(Sc))
    tl.store(dbeta + row, dβ, mask=ok)
    dQ, dA, dM = dQ * scale, tl.where(lower, dA, 0.0) * scale, tl.where(before, -dM, 0.0)
    # Loaded and computed again: kept through the loop, they would not fit the registers.
    Q, Kc = load(q, row, ok, col, K), load(k, row, ok, col, K)
    if GATE == 1:
        γ = tl.load(since + row, mask=ok, other=0.0)[:, None]
        dQ, dK_in = dQ * γ, dK_in * γ
        dK_out *= tl.load(until + row, mask=ok, other=0.0)[:, None]
        to_t = tl.sum(Q.to(wide) * dQ + Kc.to(wide) * dK_in, 1)
        from_s = tl.sum(Kc.to(wide) * dK_out, 1)
        # Pairs after r cancel between rows and columns, down to the last bits of float64.
        pairs = (tl.where(before, dA * load(A, row, ok, r, C), 0.0) + dM * own).to(tl.float64)
        dG = tl.cumsum(tl.sum(pairs, 1) - tl.sum(pairs, 0), 0, reverse=True)
        dG += tl.cumsum(to_t, 0, reverse=True) + tl.sum(S_dS, 0) * γ_C
        dG += tl.sum(tl.where(before, from_s[None, :], 0.0), 1)
        tl.store(dg + row, dG, mask=ok)
        Γ = head_decay(g, row, ok, lower)[0]
        dA, dM = dA * Γ, dM * Γ
    if GATE == 2:
        store(dk_in, row, ok, col, K, dK_in)
        tl.store(dg + (i * H + h) * K + col, S_dS, mask=col < K)
        store(A, row, ok, r, C, dA)
        store(M, row, ok, r, C, dM)
        store(dk, row, ok, col, K, dK_out)
    else:
        dQ += dot(dA.to(Kc.dtype), Kc)
        dK_in += dot(tl.trans(dA).to(Q.dtype), Q) + dot((dM + tl.trans(dM)).to(Kc.dtype), Kc)
        store(dk, row, ok, col, K, dK_in + dK_out)
    store(dq, row, ok, col, K, dQ)


class Prepared(NamedTuple):
    """What is computed of all chunks at once, before anything walks them.

    With one decay a head `since` and `until` are γ and ρ `[B, T, H]`. With one a channel they are
    γ ⊙ K and ρ ⊙ K, of float32 keys without `near_one` ⊙ K, and q is γ ⊙ Q.
    """

    q: Tensor
    since: Tensor | None
    until: Tensor | None
    kept: Tensor | None  # γ_C, [chunks, H] or [chunks, H, K]
    A: Tensor  # [B, T, H, C]
    M: Tensor | None  # [B, T, H, C], where it is needed
    inverse: Tensor  # T, [B, T, H, C]


def prepared(
    q: Tensor, k: Tensor, beta: Tensor, g: Tensor | None, chunks: Tensor, *, backward: bool
) -> Prepared:
    """The triangles and decays of every chunk, and M for a backward pass."""
    B, T, H, K = q.shape
    gate = gate_kind(g)
    cfg = launch.config("triangles_kernel", launch.architecture(q), q.dtype, gate)
    # Equal keys have equal scores, and with β near 2 nothing fades: the same rounding error δ in
    # every score would add up over the sequence, to T β |δ| (chapter 6, eq-repeated-rounding).
    exact = q.dtype == torch.float32
    # Much of what the gradient of g is made of cancels: in float32 it comes of float64, too.
    own = torch.float64 if exact else torch.float32
    inverse = q.new_empty(B, T, H, cfg.C, dtype=own)
    since, until, kept = None, None, None
    if g is not None and gate == 2:
        A, M, q_in, since, until, kept = channel_decay(q, k, g, chunks, own)
    else:
        q_in, A = q, torch.empty_like(inverse, dtype=q.dtype)
        M = torch.empty_like(inverse, dtype=own) if backward else None
    if gate == 1:
        since, until = (q.new_empty(B, T, H, dtype=torch.float32) for _ in range(2))
        kept = q.new_empty(len(chunks), H, dtype=torch.float32)
    triangles_kernel[(len(chunks) * H,)](
        q, k, beta, g, A, M, inverse, since, until, kept, chunks, H, K, cfg.C, padded(K), gate,
        num_warps=cfg.num_warps, num_stages=cfg.num_stages,
    )  # fmt: skip
    return Prepared(q_in, since, until, kept, A, M, inverse)


def scan(
    x: Prepared, k: Tensor, v: Tensor, beta: Tensor, S0: Tensor, borders: Tensor, scale: float,
    gate: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """O, and the states after the sequences."""
    (H, K), V = k.shape[2:], v.shape[-1]
    cfg = launch.config("delta_forward_kernel", launch.architecture(k), k.dtype, gate)
    o, ST = torch.empty_like(v), torch.empty_like(S0)
    delta_forward_kernel[(len(S0) * H, triton.cdiv(V, cfg.BV))](
        x.q, k, v, beta, x.since, x.until, x.kept, x.A, x.inverse, o, S0, ST, borders, scale,
        H, K, V, cfg.C, padded(K), cfg.BV, gate,
        num_warps=cfg.num_warps, num_stages=cfg.num_stages,
    )  # fmt: skip
    return o, ST


def states_between(
    x: Prepared, k: Tensor, v: Tensor, beta: Tensor, S0: Tensor, pieces: Pieces, gate: int
) -> tuple[Tensor, Tensor]:
    """The states before the pieces, which take S to P S + R, and P, float64 `[B, n, H, K, K]`."""
    H, K, V = S0.shape[1:]
    zero = S0.new_zeros(len(pieces.borders) - 1, H, K, V)
    one = torch.eye(K, dtype=S0.dtype, device=S0.device).expand(len(zero), H, K, K).contiguous()
    _, R = scan(x, k, v, beta, zero, pieces.borders, 1.0, gate)
    _, P = scan(x, k, torch.zeros_like(k), beta, one, pieces.borders, 1.0, gate)
    P = pieces.by_sequence(P).double()
    return pieces.states(S0, lambda i, S: P[:, i] @ S, R), P


@torch.library.custom_op("assocmem::delta_rule", mutates_args=())
@launch.on_its_device
def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    scale: float,
    S0: Tensor,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """O and the final state, from checked arguments (`assocmem.ops.delta_rule`).

    Args:
        q: queries `[B, T, H, K]`, K <= 128.
        k: keys like q.
        v: values `[B, T, H, V]`.
        beta: step sizes `[B, T, H]`.
        g: natural log of the decay, None, `[B, T, H]` or `[B, T, H, K]`.
        scale: factor on O.
        S0: state before the first token, float32 `[N, H, K, V]`.
        cu_seqlens: borders of packed sequences, or None.
    """
    q, k, v, beta, S0 = (x.contiguous() for x in (q, k, v, beta, S0))
    g = None if g is None else g.contiguous()
    if q.shape[1] == 1 and cu_seqlens is None:
        return step(q, k, v, beta, g, scale, S0, v.dtype)
    (B, T, H), V, gate = q.shape[:3], v.shape[-1], gate_kind(g)
    cfg = launch.config("delta_forward_kernel", launch.architecture(q), q.dtype, gate)
    if not len(S0) * H:
        return torch.empty_like(v), torch.empty_like(S0)
    pieces = cut(q, cu_seqlens, walks=len(S0) * H * triton.cdiv(V, cfg.BV), scans=3)
    x = prepared(q, k, beta, g, chunk_table(pieces.borders, B * T, cfg.C), backward=False)
    if pieces.n > 1:
        S0, _P = states_between(x, k, v, beta, S0, pieces, gate)
    o, ST = scan(x, k, v, beta, S0, pieces.borders, scale, gate)
    return o, pieces.by_sequence(ST)[:, -1].contiguous()


@delta_rule.register_fake
def _(q, k, v, beta, g, scale, S0, cu_seqlens):
    return torch.empty_like(v, memory_format=torch.contiguous_format), S0.new_empty(S0.shape)


@torch.library.custom_op("assocmem::delta_rule_backward", mutates_args=())
@launch.on_its_device
def delta_rule_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    scale: float,
    S0: Tensor,
    cu_seqlens: Tensor | None,
    do: Tensor,
    dST: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, beta, g (empty when g is None) and S0, from those of O and ST."""
    q, k, v, beta, S0 = (x.contiguous() for x in (q, k, v, beta, S0))
    g = None if g is None else g.contiguous()
    do, dST = do.to(v.dtype).contiguous(), dST.contiguous()
    (B, T, H, K), V = q.shape, v.shape[-1]
    gate, arch = gate_kind(g), launch.architecture(q)
    dv, dS0 = torch.empty_like(v), torch.empty_like(S0)
    dbeta = torch.empty(beta.shape, dtype=torch.float32, device=q.device)
    if not len(S0) * H:
        none = q.new_empty(0, dtype=torch.float32) if g is None else torch.empty_like(g)
        return torch.empty_like(q), torch.empty_like(k), dv, dbeta.to(beta.dtype), none, dS0
    back = launch.config("delta_states_backward_kernel", arch, q.dtype, gate)
    tiles = triton.cdiv(V, back.BV)
    pieces = cut(q, cu_seqlens, walks=len(S0) * H * tiles, scans=3)
    chunks = chunk_table(pieces.borders, B * T, back.C)
    x = prepared(q, k, beta, g, chunks, backward=True)
    S, dS = (torch.empty(len(chunks), H, K, V, dtype=q.dtype, device=q.device) for _ in range(2))

    def scan_backward(dST: Tensor) -> Tensor:
        dS0 = torch.empty_like(dST)
        delta_states_backward_kernel[(len(dST) * H, tiles)](
            x.q, k, beta, x.since, x.until, x.kept, x.A, x.inverse,
            do, dS, dv, dST, dS0, pieces.borders, scale,
            H, K, V, back.C, padded(K), back.BV, gate,
            num_warps=back.num_warps, num_stages=back.num_stages,
        )  # fmt: skip
        return dS0

    if pieces.n > 1:
        S0, P = states_between(x, k, v, beta, S0, pieces, gate)
        dR = scan_backward(torch.zeros_like(S0))
        dST = pieces.gradients(dST, lambda i, dS: P[:, i].mT @ dS, dR)
    dS0 = pieces.by_sequence(scan_backward(dST))[:, 0].contiguous()
    cfg = launch.config("delta_states_kernel", arch, q.dtype, gate)
    delta_states_kernel[(len(S0) * H, triton.cdiv(V, cfg.BV))](
        k, v, beta, x.since, x.until, x.kept, x.inverse, S, S0, pieces.borders,
        H, K, V, cfg.C, padded(K), cfg.BV, gate,
        num_warps=cfg.num_warps, num_stages=cfg.num_stages,
    )  # fmt: skip

    # With a decay a channel they are of what `channel_decay` gave, and not rounded yet.
    dtype = torch.float32 if gate == 2 else q.dtype
    dq, dk = (torch.empty(q.shape, dtype=dtype, device=q.device) for _ in range(2))
    dk_in = torch.empty_like(dk) if gate == 2 else None
    shape = ((0,), (B, T, H), (len(chunks), H, K))[gate]
    dg = torch.empty(shape, dtype=torch.float32, device=q.device)
    cfg = launch.config("delta_backward_kernel", arch, q.dtype, gate)
    delta_backward_kernel[(len(chunks) * H,)](
        q, k, v, beta, g, x.since, x.until, x.kept, x.A, x.M, x.inverse,
        do, S, dS, dq, dk, dk_in, dv, dbeta, dg, chunks, scale,
        H, K, V, cfg.C, padded(K), cfg.BV, gate,
        num_warps=cfg.num_warps, num_stages=cfg.num_stages,
    )  # fmt: skip
    if g is not None and gate == 2:
        dq, dk, dg = channel_decay_backward(q, k, g, x.A, x.M, dq, dk_in, dk, dg, chunks)
    return dq, dk, dv, dbeta.to(beta.dtype), dg if g is None else dg.to(g.dtype), dS0


@delta_rule_backward.register_fake
def _(q, k, v, beta, g, scale, S0, cu_seqlens, do, dST):
    return (
        *(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v, beta)),
        q.new_empty(0, dtype=torch.float32)
        if g is None
        else torch.empty_like(g, memory_format=torch.contiguous_format),
        S0.new_empty(S0.shape),
    )


def _setup_context(ctx, inputs, output):
    q, k, v, beta, g, scale, S0, cu_seqlens = inputs
    ctx.save_for_backward(q, k, v, beta, g, S0, cu_seqlens)
    ctx.scale = scale


def _backward(ctx, do, dST):
    q, k, v, beta, g, S0, cu_seqlens = ctx.saved_tensors
    dq, dk, dv, dbeta, dg, dS0 = delta_rule_backward(
        q, k, v, beta, g, ctx.scale, S0, cu_seqlens, do, dST
    )
    return dq, dk, dv, dbeta, None if g is None else dg, None, dS0, None


delta_rule.register_autograd(_backward, setup_context=_setup_context)
