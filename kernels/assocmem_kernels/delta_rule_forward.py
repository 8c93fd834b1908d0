"""The delta rule's walk through the chunks, which leaves outputs and states behind."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels import launch
from assocmem_kernels.chunks import own_sequence
from assocmem_kernels.decay import over_chunk
from assocmem_kernels.pieces import Pieces
from assocmem_kernels.state import read, write
from assocmem_kernels.tiles import beyond, dot, from_here_on, load, padded, store, times
from assocmem_kernels.triangles import Prepared


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
    i_nh, n, h, start, stop = own_sequence(borders, H)
    r, col, col_v = tl.arange(0, C), tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV)
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
        lost = from_here_on(lost, X.dtype)
        O = dot(load(q, row, ok, col, K), S)
        if GATE == 1:
            O *= tl.load(since + row, mask=ok, other=0.0)[:, None]
        O += dot(load(A, row, ok, r, C).to(X.dtype), U) + lost
        store(o, row, ok, col_v, V, O * scale)
        S = write(S * γ_C, k, until, γ_C, row, ok, col, K, U + lost, GATE)
    store(ST, row_S, col < K, col_v, V, S)


def scan(
    x: Prepared, k: Tensor, v: Tensor, beta: Tensor, S0: Tensor, borders: Tensor, scale: float,
    gate: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """O, and the states after the sequences."""
    (H, K), V = k.shape[2:], v.shape[-1]
    cfg = launch.config("delta_forward_kernel", launch.architecture(k), k.dtype, gate)
    cfg = launch.narrowed(cfg, k, V, len(S0) * H)
    o, ST = torch.empty_like(v), torch.empty_like(S0)
    delta_forward_kernel[(len(S0) * H, triton.cdiv(V, cfg.BV))](
        x.q, k, v, beta, x.since, x.until, x.kept, x.A, x.inverse, o, S0, ST, borders, scale,
        H, K, V, cfg.C, padded(K), cfg.BV, gate,
        **cfg.options,
    )  # fmt: skip
    return o, ST


def states_between(
    x: Prepared, k: Tensor, v: Tensor, beta: Tensor, S0: Tensor, pieces: Pieces, gate: int
) -> tuple[Tensor, Tensor]:
    """The states before the pieces, which take S to P S + R, and P, float64 `[B, n, H, K, K]`."""
    H, K, V = S0.shape[1:]
    zero = S0.new_zeros(pieces.number, H, K, V)
    one = torch.eye(K, dtype=S0.dtype, device=S0.device).expand(len(zero), H, K, K).contiguous()
    _, R = scan(x, k, v, beta, zero, pieces.borders, 1.0, gate)
    _, P = scan(x, k, torch.zeros_like(k), beta, one, pieces.borders, 1.0, gate)
    P = pieces.by_sequence(P).double()
    return pieces.states(S0, lambda i, S: P[:, i] @ S, R), P
