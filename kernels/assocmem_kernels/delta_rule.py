"""The delta rule as fused scans over chunks, forward and backward (chapter 6, eq-delta-chunk).

    U = T (β ⊙ (V − (γ ⊙ K) S)),    T = (I + strict_lower(β ⊙ K Kᵀ ⊙ Γ))⁻¹
    O = scale · (A U + (γ ⊙ Q) S),    A = tril(Q Kᵀ ⊙ Γ),    S ← γ_C S + (ρ ⊙ K)ᵀ U

The decays Γ, γ, ρ and γ_C are those of `decay.py`. GATE: 0 no decay, 1 one per head, g
`[B, T, H]`, 2 one per channel, g `[B, T, H, K]`, with which Q Kᵀ ⊙ Γ and K Kᵀ ⊙ Γ come from
`channel_decay.py`.

Forward: one kernel prepares A, T and the decays of every chunk, all at once (`triangles.py`); then
one program per head and tile of V walks the chunks with S in registers (`delta_rule_forward.py`).
Backward: the same walk stores S before each chunk, a walk from the end stores dS after each chunk,
and then all chunks are independent (`delta_rule_backward.py`).
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from assocmem_kernels import launch
from assocmem_kernels.chunks import chunk_table
from assocmem_kernels.decay import gate_kind
from assocmem_kernels.delta_rule_backward import delta_rule_backward
from assocmem_kernels.delta_rule_forward import scan, states_between
from assocmem_kernels.pieces import cut
from assocmem_kernels.step import step
from assocmem_kernels.triangles import prepared


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
    return v.new_empty(v.shape), S0.new_empty(S0.shape)


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
