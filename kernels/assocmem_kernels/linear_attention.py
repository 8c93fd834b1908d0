"""Linear attention as fused scans over chunks, forward and backward (book, chapter 1, eq-chunk).

    O = scale · ((Q Kᵀ ⊙ Γ) V + (γ ⊙ Q) S),    S ← γ_C S + (ρ ⊙ K)ᵀ V

Γ_ts is the decay from token s to token t, γ_t from the chunk's start to t, ρ_s from s to the
chunk's end. GATE: 0 no decay, 1 one per head (g `[B, T, H]`), 2 one per channel (g `[B, T, H, K]`).

Forward: one program per head and tile of V walks the chunks with S in registers. Backward
(`linear_attention_backward.py`): the same walk stores S before each chunk, a walk from the end
stores dS after each chunk, and then all chunks are independent. With a decay per channel, γ ⊙ Q,
ρ ⊙ K, γ_C and the scores A = Q Kᵀ ⊙ Γ come from a kernel of their own (`channel_decay.py`), once
for all tiles of V. Few long sequences are cut into pieces first (`pieces.py`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels import launch
from assocmem_kernels.channel_decay import channel_decay
from assocmem_kernels.chunks import chunk_table, own_sequence
from assocmem_kernels.decay import gate_kind, head_decay, over_chunk
from assocmem_kernels.linear_attention_backward import linear_attention_backward
from assocmem_kernels.pieces import cut
from assocmem_kernels.step import step
from assocmem_kernels.tiles import dot, from_here_on, load, padded, poison, store


@triton.jit
def forward_kernel(
    q, k, v, g, kept, A, o, S0, ST, borders, scale,
    H: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """Walk the chunks of one sequence and head with S `[K, BV]` in registers (eq-chunk).

    With GATE = 2 q and k are γ ⊙ Q and ρ ⊙ K, A is the chunks' scores, masked, and kept their γ_C,
    which is found by the number of a chunk and head.
    """
    i_nh, n, h, start, stop = own_sequence(borders, H)
    r, col, col_v = tl.arange(0, C), tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
    lower = r[:, None] >= r[None, :]
    row_S = i_nh * K + col
    S = load(S0, row_S, col < K, col_v, V)
    for j in range(0, tl.cdiv(stop - start, C)):
        t, number = start + j * C, (start // C + n + j) * H + h
        row, ok = (t + r) * H + h, t + r < stop
        Q, Kc, X = load(q, row, ok, col, K), load(k, row, ok, col, K), load(v, row, ok, col_v, V)
        O = dot(Q, S)
        if GATE == 2:
            scores, S = load(A, row, ok, r, C), S * over_chunk(kept, number, col, K, GATE)
        else:
            scores = tl.where(lower, dot(Q, tl.trans(Kc)), 0.0)
            if GATE == 1:
                Γ, γ, ρ, γ_C = head_decay(g, row, ok, lower)
                O, scores, S = O * γ[:, None], scores * Γ, S * γ_C
        # A NaN or infinity in v_s times a masked score of 0 would reach the outputs before s: it is
        # taken out of the product, and put back into every output from s on.
        lost = from_here_on(poison(X), X.dtype)
        O += dot(scores.to(X.dtype), tl.where(lost == 0.0, X, 0.0))
        store(o, row, ok, col_v, V, tl.where(lost == 0.0, O, lost) * scale)
        # Computed, though it is X: Triton before 3.7.1 fences what registers store (`launch.py`).
        X += poison(X)
        if GATE == 1:
            X = (X * ρ[:, None]).to(X.dtype)
        S += dot(tl.trans(Kc), X)
    store(ST, row_S, col < K, col_v, V, S)


@torch.library.custom_op("assocmem::linear_attention", mutates_args=())
@launch.on_its_device
def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    scale: float,
    S0: Tensor,
    cu_seqlens: Tensor | None,
    out_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """O and the final state, from checked arguments (`assocmem.ops.linear_attention`).

    Args:
        q: queries `[B, T, H, K]`, K <= 128.
        k: keys like q.
        v: values `[B, T, H, V]`.
        g: natural log of the decay, None, `[B, T, H]` or `[B, T, H, K]`.
        scale: factor on O.
        S0: state before the first token, float32 `[N, H, K, V]`.
        cu_seqlens: borders of packed sequences, or None.
        out_dtype: of O.
    """
    q, k, v, S0 = q.contiguous(), k.contiguous(), v.contiguous(), S0.contiguous()
    g = None if g is None else g.contiguous()
    if q.shape[1] == 1 and cu_seqlens is None:
        return step(q, k, v, None, g, scale, S0, out_dtype)
    (B, T, H, K), V = q.shape, v.shape[-1]
    gate = gate_kind(g)
    cfg = launch.config("forward_kernel", launch.architecture(q), q.dtype, gate)
    o = torch.empty(B, T, H, V, dtype=out_dtype, device=q.device)
    if not len(S0) * H:
        return o, torch.empty_like(S0)
    pieces = cut(q, cu_seqlens, walks=len(S0) * H * triton.cdiv(V, cfg.BV), scans=2)
    cfg = launch.narrowed(cfg, q, V, pieces.number * H)
    A, kept = None, None
    if g is not None and gate == 2:
        chunks = chunk_table(pieces.borders, B * T, cfg.C)
        A, _, q, _, k, kept = channel_decay(q, k, g, chunks)

    def scan(S0: Tensor) -> Tensor:
        ST = torch.empty_like(S0)
        forward_kernel[(len(S0) * H, triton.cdiv(V, cfg.BV))](
            q, k, v, g, kept, A, o, S0, ST, pieces.borders, scale,
            H, K, V, cfg.C, padded(K), cfg.BV, gate,
            **cfg.options,
        )  # fmt: skip
        return ST

    if pieces.n > 1:
        S0 = pieces.states(S0, pieces.decay(g), scan(S0.new_zeros(B * pieces.n, H, K, V)))
    return o, pieces.by_sequence(scan(S0))[:, -1].contiguous()


@linear_attention.register_fake
def _(q, k, v, g, scale, S0, cu_seqlens, out_dtype):
    return v.new_empty(v.shape, dtype=out_dtype), S0.new_empty(S0.shape)


def _setup_context(ctx, inputs, output):
    q, k, v, g, scale, S0, cu_seqlens, _out_dtype = inputs
    ctx.save_for_backward(q, k, v, g, S0, cu_seqlens)
    ctx.scale = scale


def _backward(ctx, do, dST):
    q, k, v, g, S0, cu_seqlens = ctx.saved_tensors
    dq, dk, dv, dg, dS0 = linear_attention_backward(q, k, v, g, ctx.scale, S0, cu_seqlens, do, dST)
    return dq, dk, dv, None if g is None else dg, None, dS0, None, None


linear_attention.register_autograd(_backward, setup_context=_setup_context)
