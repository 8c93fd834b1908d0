"""One token of a memory, for decoding: no chunk and no matrix product, S read and written once.

S ← Diag(exp g) S,    u = v, or with the delta rule β (v − Sᵀ k),    S ← S + k uᵀ,
o = scale · Sᵀ q
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels import launch
from assocmem_kernels.decay import gate_kind
from assocmem_kernels.tiles import load, padded, store


@triton.jit
def step_kernel(
    q, k, v, beta, g, o, S0, ST, scale,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    GATE: tl.constexpr, DELTA: tl.constexpr,
):  # fmt: skip
    """One batch element, head and tile of V."""
    i, col = tl.program_id(0).to(tl.int64), tl.arange(0, BK)
    col_v = tl.program_id(1) * BV + tl.arange(0, BV)
    row_S, ok, ok_v = i * K + col, col < K, col_v < V
    S = load(S0, row_S, ok, col_v, V)
    q_t = tl.load(q + row_S, mask=ok, other=0.0).to(tl.float32)
    k_t = tl.load(k + row_S, mask=ok, other=0.0).to(tl.float32)
    u = tl.load(v + i * V + col_v, mask=ok_v, other=0.0).to(tl.float32)
    if GATE == 1:
        S *= tl.exp(tl.load(g + i).to(tl.float32))
    if GATE == 2:
        S *= tl.exp(tl.load(g + row_S, mask=ok, other=0.0).to(tl.float32))[:, None]
    if DELTA:
        u = (u - tl.sum(k_t[:, None] * S, 0)) * tl.load(beta + i).to(tl.float32)
    S += k_t[:, None] * u[None, :]
    o_t = tl.sum(q_t[:, None] * S, 0) * scale
    tl.store(o + i * V + col_v, o_t.to(o.dtype.element_ty), mask=ok_v)
    store(ST, row_S, ok, col_v, V, S)


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None,
    g: Tensor | None,
    scale: float,
    S0: Tensor,
    out_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """O and the state after one token, from contiguous tensors; without beta linear attention."""
    (B, _, H, K), V = q.shape, v.shape[-1]
    o = torch.empty(v.shape, dtype=out_dtype, device=q.device)
    ST = torch.empty_like(S0)
    cfg = launch.config("step_kernel", launch.architecture(q), q.dtype, gate_kind(g))
    if B * H:
        step_kernel[(B * H, triton.cdiv(V, cfg.BV))](
            q, k, v, beta, g, o, S0, ST, scale,
            K, V, padded(K), cfg.BV, gate_kind(g), beta is not None,
            **cfg.options,
        )  # fmt: skip
    return o, ST
