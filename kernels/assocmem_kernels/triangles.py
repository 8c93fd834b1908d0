"""What is computed of all chunks of the delta rule at once: scores, inverses and decays.

    A = tril(Q Kᵀ ⊙ Γ),    M = K Kᵀ ⊙ Γ,    T = (I + strict_lower(β ⊙ M))⁻¹

A walk gets γ, ρ and γ_C as `since`, `until` and `kept`: see `Prepared`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels import launch
from assocmem_kernels.channel_decay import channel_decay
from assocmem_kernels.chunks import own_chunk
from assocmem_kernels.decay import gate_kind, head_decay
from assocmem_kernels.inverse import unit_lower_inverse
from assocmem_kernels.tiles import dot, load, padded, poison, store


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
            k_s = tl.load(k + row_s * K + col, mask=col < ok_s * K, other=0.0)
            a = tl.sum(Q * k_s.to(tl.float64)[None, :], 1)
            scores = tl.where((r == s)[None, :], a[:, None], scores)
    return scores


@triton.jit
def triangles_kernel(
    q, k, beta, g, A, M, inverse, since, until, kept, chunks,
    H: tl.constexpr, K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, GATE: tl.constexpr,
):  # fmt: skip
    """A = tril(Q Kᵀ ⊙ Γ), M = K Kᵀ ⊙ Γ and T = (I + strict_lower(β ⊙ M))⁻¹ of one chunk.

    With a decay per head also γ, ρ and γ_C, once for all tiles of V. With a decay per channel A and
    M are there already.
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


class Prepared(NamedTuple):
    """What is computed of all chunks at once, before anything walks them.

    With one decay per head `since` and `until` are γ and ρ `[B, T, H]`. With one per channel they
    are γ ⊙ K and ρ ⊙ K, of float32 keys without `near_one` ⊙ K, and q is γ ⊙ Q.
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
    # Much of what the gradient of g is made of cancels: in float32 it comes from float64, too.
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
        **cfg.options,
    )  # fmt: skip
    return Prepared(q_in, since, until, kept, A, M, inverse)
