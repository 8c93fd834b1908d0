"""Gradients of linear attention: states before each chunk, those from the end, then all chunks."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels import launch
from assocmem_kernels.channel_decay import channel_decay, channel_decay_backward
from assocmem_kernels.chunks import chunk_table, own_chunk, own_sequence
from assocmem_kernels.decay import (
    gate_kind,
    gate_like,
    head_decay,
    head_decay_gradient,
    over_chunk,
)
from assocmem_kernels.pieces import cut
from assocmem_kernels.tiles import dot, load, padded, store


@triton.jit
def states_kernel(
    k, v, g, kept, S, S0, ST, borders, scale,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Store S before each chunk; from the end, with q and dO for k and v, store dS after each.

    S ← γ_C S + (ρ ⊙ K)ᵀ V, and from the end dS ← γ_C dS + scale · (γ ⊙ Q)ᵀ dO; with GATE = 2 k is
    ρ ⊙ K or γ ⊙ Q.
    """
    i_nh, n, h, start, stop = own_sequence(borders, H)
    r, col, col_v = tl.arange(0, C), tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
    lower = r[:, None] >= r[None, :]
    row_S = i_nh * K + col
    X_S = load(S0, row_S, col < K, col_v, V)
    chunks = tl.cdiv(stop - start, C)
    for i in range(0, chunks):
        j = chunks - 1 - i if REVERSE else i
        t = start + j * C
        number = (start // C + n + j) * H + h
        store(S, number * K + col, col < K, col_v, V, X_S)
        row, ok = (t + r) * H + h, t + r < stop
        Kc, X = load(k, row, ok, col, K), load(v, row, ok, col_v, V)
        if GATE == 1:
            _Γ, γ, ρ, γ_C = head_decay(g, row, ok, lower)
            X_S = X_S * γ_C
            X = (X * (γ if REVERSE else ρ)[:, None]).to(X.dtype)
        elif GATE == 2:
            X_S *= over_chunk(kept, number, col, K, GATE)
        X_S += dot(tl.trans(Kc), X) * scale
    store(ST, row_S, col < K, col_v, V, X_S)


@triton.jit
def backward_kernel(
    q, k, v, g, k_out, A, do, S, dS, dq, dk, dv, dg, chunks, scale,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """Gradients of one chunk, from S before it and dS after it.

    With dA = scale · (dO Vᵀ) ⊙ mask: dQ = scale · γ ⊙ (dO Sᵀ) + (dA ⊙ Γ) K,
    dK = ρ ⊙ (V dSᵀ) + (dA ⊙ Γ)ᵀ Q and dV = (ρ ⊙ K) dS + scale · Aᵀ dO. A log decay g_r acts on
    every pair that it lies between: dg_r = Σ_{s<r≤t} of what s contributes to t. With GATE = 2,
    dq, dk and dg are the gradients of γ ⊙ Q, ρ ⊙ K and γ_C, and dA takes the place of A.
    """
    i, h, start, stop = own_chunk(chunks, H)
    r, col = tl.arange(0, C), tl.arange(0, BK)
    if start >= stop:  # a number without a chunk
        return
    row, ok = (start + r) * H + h, start + r < stop
    row_S = (i * H + h) * K + col
    lower, before = r[:, None] >= r[None, :], r[:, None] > r[None, :]
    Q, Kc = load(q, row, ok, col, K), load(k, row, ok, col, K)
    if GATE == 2:
        scores, K_out = load(A, row, ok, r, C), load(k_out, row, ok, col, K)
    else:
        scores = tl.where(lower, dot(Q, tl.trans(Kc)), 0.0)
        K_out = Kc
        if GATE == 1:
            Γ, _γ, ρ, _kept = head_decay(g, row, ok, lower)
            scores *= Γ
            K_out = (Kc * ρ[:, None]).to(Kc.dtype)
    weights = scores.to(Q.dtype)
    dQ, dK = tl.zeros((C, BK), tl.float32), tl.zeros((C, BK), tl.float32)
    dA, S_dS = tl.zeros((C, C), tl.float32), tl.zeros((BK,), tl.float32)
    for c in range(0, V, BV):
        col_v = c + tl.arange(0, BV)
        X, dO = load(v, row, ok, col_v, V), load(do, row, ok, col_v, V)
        Sc, dSc = load(S, row_S, col < K, col_v, V), load(dS, row_S, col < K, col_v, V)
        dA += dot(dO, tl.trans(X))
        dQ += dot(dO, tl.trans(Sc))
        dK += dot(X, tl.trans(dSc))
        dV = dot(K_out, dSc) + dot(tl.trans(weights), dO) * scale
        store(dv, row, ok, col_v, V, dV)
        S_dS += tl.sum(Sc.to(tl.float32) * dSc.to(tl.float32), 1)
    dQ, dA = dQ * scale, tl.where(lower, dA, 0.0) * scale
    # Loaded and computed again: kept through the loop, they would not fit the registers.
    Q, Kc = load(q, row, ok, col, K), load(k, row, ok, col, K)
    if GATE == 1:
        Γ, γ, ρ, kept = head_decay(g, row, ok, lower)
        dQ, dK = dQ * γ[:, None], dK * ρ[:, None]
        to_t, from_s = tl.sum(Q * dQ, 1), tl.sum(Kc * dK, 1)
        pairs = tl.where(before, dA * weights, 0.0).to(tl.float64)
        dG = head_decay_gradient(pairs, to_t, from_s, S_dS, kept, before)
        tl.store(dg + row, dG, mask=ok)
        dA *= Γ
    if GATE == 2:
        tl.store(dg + (i * H + h) * K + col, S_dS, mask=col < K)
        store(A, row, ok, r, C, dA)
    else:
        dQ += dot(dA.to(Kc.dtype), Kc)
        dK += dot(tl.trans(dA.to(Q.dtype)), Q)
    store(dq, row, ok, col, K, dQ)
    store(dk, row, ok, col, K, dK)


def excess(x: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The power of two by which to divide x in float32 for float16 to hold it.

    Such are the gradients of outputs that a normaliser divides.
    """
    if dtype != torch.float16 or x.dtype == dtype or not x.numel():
        return None
    largest = x.abs().amax() / 2.0**15
    return torch.where(largest.isfinite(), largest, 1.0).clamp(min=1.0).log2().ceil().exp2()


def gradients_like(q, k, v, g, S0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Room for the gradients of all."""
    of_q, of_k, of_v, of_S0 = (x.new_empty(x.shape) for x in (q, k, v, S0))
    return of_q, of_k, of_v, gate_like(g, q), of_S0


@torch.library.custom_op("assocmem::linear_attention_backward", mutates_args=())
@launch.on_its_device
def linear_attention_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    scale: float,
    S0: Tensor,
    cu_seqlens: Tensor | None,
    do: Tensor,
    dST: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, g (empty when g is None) and S0, from those of O and ST."""
    q, k, v, S0 = q.contiguous(), k.contiguous(), v.contiguous(), S0.contiguous()
    g = None if g is None else g.contiguous()
    if (power := excess(do, v.dtype)) is not None:
        do, dST = do / power, dST / power
    do, dST = do.to(v.dtype).contiguous(), dST.contiguous()
    (B, T, H, K), V = q.shape, v.shape[-1]
    gate, arch = gate_kind(g), launch.architecture(q)
    if not len(S0) * H:
        return gradients_like(q, k, v, g, S0)
    cfg = launch.config("states_kernel", arch, q.dtype, gate)
    pieces = cut(q, cu_seqlens, walks=len(S0) * H * triton.cdiv(V, cfg.BV), scans=2)
    cfg = launch.narrowed(cfg, q, V, pieces.number * H)
    chunks = chunk_table(pieces.borders, B * T, cfg.C)
    S, dS = (torch.empty(len(chunks), H, K, V, dtype=q.dtype, device=q.device) for _ in range(2))
    q_in, k_out, kept, A = q, k, None, None
    if g is not None and gate == 2:
        A, _, q_in, _, k_out, kept = channel_decay(q, k, g, chunks)

    def scan(k: Tensor, v: Tensor, S: Tensor, S0: Tensor, scale: float, reverse: bool) -> Tensor:
        ST = torch.empty_like(S0)
        states_kernel[(len(S0) * H, triton.cdiv(V, cfg.BV))](
            k, v, g, kept, S, S0, ST, pieces.borders, scale,
            H, K, V, cfg.C, padded(K), cfg.BV, gate, reverse,
            **cfg.options,
        )  # fmt: skip
        return ST

    if pieces.n > 1:
        zero, decay = S0.new_zeros(B * pieces.n, H, K, V), pieces.decay(g)
        S0 = pieces.states(S0, decay, scan(k_out, v, S, zero, 1.0, False))
        dST = pieces.gradients(dST, decay, scan(q_in, do, dS, zero, scale, True))
    scan(k_out, v, S, S0, 1.0, False)
    dS0 = pieces.by_sequence(scan(q_in, do, dS, dST, scale, True))[:, 0].contiguous()

    # With a decay per channel they are of what `channel_decay` gave, and not rounded yet.
    dtype = torch.float32 if gate == 2 else q.dtype
    dq, dk = (torch.empty(q.shape, dtype=dtype, device=q.device) for _ in range(2))
    dv = torch.empty_like(v)
    shape = ((0,), (B, T, H), (len(chunks), H, K))[gate]
    dg = torch.empty(shape, dtype=torch.float32, device=q.device)
    cfg = launch.config("backward_kernel", arch, q.dtype, gate)
    backward_kernel[(len(chunks) * H,)](
        q, k, v, g, k_out, A, do, S, dS, dq, dk, dv, dg, chunks, scale,
        H, K, V, cfg.C, padded(K), cfg.BV, gate, **cfg.options,
    )  # fmt: skip
    if g is not None and gate == 2:
        dq, dk, dg = channel_decay_backward(q, k, g, A, None, dq, None, dk, dg, chunks)
    if power is not None:
        dq, dk, dv, dg, dS0 = (power * x for x in (dq, dk, dv, dg, dS0))
    return dq, dk, dv, dg if g is None else dg.to(g.dtype), dS0


@linear_attention_backward.register_fake
def _(q, k, v, g, scale, S0, cu_seqlens, do, dST):
    return gradients_like(q, k, v, g, S0)


linear_attention_backward.register_autograd(launch.refuse)
