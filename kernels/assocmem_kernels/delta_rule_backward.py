"""Gradients of the delta rule: states before each chunk, those from the end, then all chunks."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels import launch
from assocmem_kernels.channel_decay import channel_decay_backward
from assocmem_kernels.chunks import chunk_table, own_chunk, own_sequence
from assocmem_kernels.decay import (
    gate_kind,
    gate_like,
    head_decay,
    head_decay_gradient,
    over_chunk,
)
from assocmem_kernels.delta_rule_forward import states_between
from assocmem_kernels.pieces import cut
from assocmem_kernels.state import plus_product, read, write
from assocmem_kernels.tiles import dot, load, padded, store, times, times_sum
from assocmem_kernels.triangles import prepared


@triton.jit
def delta_states_kernel(
    k, v, beta, since, until, kept, inverse, S, S0, borders,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """Store S before each chunk: the walk of `delta_forward_kernel` without its output."""
    i_nh, n, h, start, stop = own_sequence(borders, H)
    r, col, col_v = tl.arange(0, C), tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
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
    i_nh, n, h, start, stop = own_sequence(borders, H)
    r, col, col_v = tl.arange(0, C), tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
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
        dV = -dV  # all that follows takes it so: to subtract a product would take a sum of its own
        dβ += tl.sum(Y * E, 1)
        if GATE == 1:
            dA = plus_product(dA, tl.trans(dO), tl.trans(U))
            dM = plus_product(dM, tl.trans(dV), tl.trans(U))
        else:
            dA += dot(dO, tl.trans(U))
            dM += dot(dV, tl.trans(U))
        dK_out += dot(U, tl.trans(dSc))
        dQ += dot(dO, tl.trans(Sc))
        if GATE:
            dK_in += dot(dV, tl.trans(Sc))
        else:  # one sum takes fewer registers
            dK_out += dot(dV, tl.trans(Sc))
    tl.store(dbeta + row, dβ, mask=ok)
    dQ, dA, dM = dQ * scale, tl.where(lower, dA, 0.0) * scale, tl.where(before, dM, 0.0)
    # Loaded and computed again: kept through the loop, they would not fit the registers.
    Q, Kc = load(q, row, ok, col, K), load(k, row, ok, col, K)
    if GATE == 1:
        γ = tl.load(since + row, mask=ok, other=0.0)[:, None]
        dQ, dK_in = dQ * γ, dK_in * γ
        dK_out *= tl.load(until + row, mask=ok, other=0.0)[:, None]
        to_t = tl.sum(Q.to(wide) * dQ + Kc.to(wide) * dK_in, 1)
        from_s = tl.sum(Kc.to(wide) * dK_out, 1)
        pairs = (tl.where(before, dA * load(A, row, ok, r, C), 0.0) + dM * own).to(tl.float64)
        dG = head_decay_gradient(pairs, to_t, from_s, S_dS, γ_C, before)
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


def gradients_like(q, k, v, beta, g, S0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Room for the gradients of all."""
    of_q, of_k, of_v, of_beta, of_S0 = (x.new_empty(x.shape) for x in (q, k, v, beta, S0))
    return of_q, of_k, of_v, of_beta, gate_like(g, q), of_S0


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
    if not len(S0) * H:
        return gradients_like(q, k, v, beta, g, S0)
    back = launch.config("delta_states_backward_kernel", arch, q.dtype, gate)
    pieces = cut(q, cu_seqlens, walks=len(S0) * H * triton.cdiv(V, back.BV), scans=3)
    back = launch.narrowed(back, q, V, pieces.number * H)
    chunks = chunk_table(pieces.borders, B * T, back.C)
    x = prepared(q, k, beta, g, chunks, backward=True)
    dv = torch.empty_like(v)
    S, dS = (torch.empty(len(chunks), H, K, V, dtype=q.dtype, device=q.device) for _ in range(2))

    def scan_backward(dST: Tensor) -> Tensor:
        dS0 = torch.empty_like(dST)
        delta_states_backward_kernel[(len(dST) * H, triton.cdiv(V, back.BV))](
            x.q, k, beta, x.since, x.until, x.kept, x.A, x.inverse,
            do, dS, dv, dST, dS0, pieces.borders, scale,
            H, K, V, back.C, padded(K), back.BV, gate,
            **back.options,
        )  # fmt: skip
        return dS0

    if pieces.n > 1:
        S0, P = states_between(x, k, v, beta, S0, pieces, gate)
        dR = scan_backward(torch.zeros_like(S0))
        dST = pieces.gradients(dST, lambda i, dS: P[:, i].mT @ dS, dR)
    dS0 = pieces.by_sequence(scan_backward(dST))[:, 0].contiguous()
    cfg = launch.config("delta_states_kernel", arch, q.dtype, gate)
    cfg = launch.narrowed(cfg, q, V, pieces.number * H)
    delta_states_kernel[(len(S0) * H, triton.cdiv(V, cfg.BV))](
        k, v, beta, x.since, x.until, x.kept, x.inverse, S, S0, pieces.borders,
        H, K, V, cfg.C, padded(K), cfg.BV, gate,
        **cfg.options,
    )  # fmt: skip

    # With a decay per channel they are of what `channel_decay` gave, and not rounded yet.
    dtype = torch.float32 if gate == 2 else q.dtype
    dq, dk = (torch.empty(q.shape, dtype=dtype, device=q.device) for _ in range(2))
    dk_in = torch.empty_like(dk) if gate == 2 else None
    shape = ((0,), (B, T, H), (len(chunks), H, K))[gate]
    dbeta = torch.empty(beta.shape, dtype=torch.float32, device=q.device)
    dg = torch.empty(shape, dtype=torch.float32, device=q.device)
    cfg = launch.config("delta_backward_kernel", arch, q.dtype, gate)
    delta_backward_kernel[(len(chunks) * H,)](
        q, k, v, beta, g, x.since, x.until, x.kept, x.A, x.M, x.inverse,
        do, S, dS, dq, dk, dk_in, dv, dbeta, dg, chunks, scale,
        H, K, V, cfg.C, padded(K), cfg.BV, gate,
        **cfg.options,
    )  # fmt: skip
    if g is not None and gate == 2:
        dq, dk, dg = channel_decay_backward(q, k, g, x.A, x.M, dq, dk_in, dk, dg, chunks)
    return dq, dk, dv, dbeta.to(beta.dtype), dg if g is None else dg.to(g.dtype), dS0


@delta_rule_backward.register_fake
def _(q, k, v, beta, g, scale, S0, cu_seqlens, do, dST):
    return gradients_like(q, k, v, beta, g, S0)


delta_rule_backward.register_autograd(launch.refuse)
