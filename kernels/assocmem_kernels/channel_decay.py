"""A decay per channel: a chunk's scores, what decays in it, and the gradients through the scores.

A_ts = Σ_c q_tc k_sc Γ_tsc for s ≤ t, and M, the same of k and k, are no products of matrices, as
Γ_tsc = exp(Σ_{s<r≤t} g_rc) has an entry for each of three indices. The definition takes the sums
one s at a time. Γ_tsc = exp(G_tc) exp(−G_sc), with sums G from the chunk's middle, makes a product
of it, where neither factor leaves the range of float32 and the digits that G_t and G_s share do not
matter: in half precision, unless decays are strong. A chunk has 16 tokens here.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from assocmem_kernels import launch
from assocmem_kernels.chunks import own_chunk
from assocmem_kernels.decay import near_one, since_start, until_end
from assocmem_kernels.tiles import dot, exact_product, load, padded, store

# Up to this |G| the two factors are used. float32 ends at exp(±88): half of that, in logarithms, is
# left to large keys and to small gradients.
STRONG = tl.constexpr(40.0)


@triton.jit
def all_below(G, limit):
    """Whether |G| is below a limit everywhere; a NaN is not."""
    return tl.max(tl.max(tl.where(tl.abs(G) < limit, 0, 1), 1), 0) == 0


@triton.jit
def from_middle(g, row, ok, col, K: tl.constexpr):
    """G, and half of all that decays in the chunk `[BK]`, which is subtracted there."""
    x = load(g, row, ok, col, K).to(tl.float32)
    middle = 0.5 * tl.sum(x, 0)
    return tl.cumsum(x, 0) - middle[None, :], middle


@triton.jit
def product(A, B, dtype: tl.constexpr):
    """A B of float32, for inputs in dtype; on tensor cores where dtype has float32's range."""
    if dtype == tl.bfloat16:
        Y = exact_product(A, B, dtype)
    else:
        Y = dot(A, B)
    return Y


@triton.jit
def scores_one_by_one(
    q, k, g, start, stop, h, row, ok, col,
    H: tl.constexpr, K: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """The scores, summed in `wide`, from D_tsc = Σ_{s<r≤t} g_rc, which grows as s goes back."""
    C: tl.constexpr = row.shape[0]
    # No mask is of a number and a tile: the interpreter of Triton 3.9 refuses it.
    r, Q = tl.arange(0, C), load(q, row, ok, col, K).to(wide)
    D, scores = tl.zeros(Q.shape, tl.float32), tl.zeros((C, C), wide)
    for j in range(0, C):
        s = C - 1 - j
        p = ((start + s) * H + h) * K + col
        k_s = tl.load(k + p, mask=col < tl.where(start + s < stop, K, 0), other=0.0).to(wide)
        inside = col < tl.where((start + s + 1 < stop) & (s < C - 1), K, 0)
        g_next = tl.load(g + p + H * K, mask=inside, other=0.0).to(tl.float32)
        D = tl.where((r > s)[:, None], D + g_next[None, :], 0.0)
        a = tl.sum(Q * tl.exp(D.to(wide)) * k_s[None, :], 1)
        scores = tl.where((r[None, :] == s) & (r >= s)[:, None], a[:, None], scores)
    return scores


@triton.jit
def gradients_one_by_one(
    q, k, g, dA, start, stop, h, row, ok, col, H: tl.constexpr, K: tl.constexpr
):
    """What dq, dk and dg get from dA."""
    C: tl.constexpr = row.shape[0]
    r, Q = tl.arange(0, C), load(q, row, ok, col, K).to(tl.float32)
    dQ, dK, dG = tl.zeros_like(Q), tl.zeros_like(Q), tl.zeros_like(Q)
    D = tl.zeros_like(Q)
    for j in range(0, C):
        s = C - 1 - j
        p = ((start + s) * H + h) * K + col
        k_s = tl.load(k + p, mask=col < tl.where(start + s < stop, K, 0), other=0.0).to(tl.float32)
        inside = col < tl.where((start + s + 1 < stop) & (s < C - 1), K, 0)
        g_next = tl.load(g + p + H * K, mask=inside, other=0.0).to(tl.float32)
        D = tl.where((r > s)[:, None], D + g_next[None, :], 0.0)
        da = tl.load(dA + row * C + s, mask=ok & (r >= s), other=0.0).to(tl.float32)
        W = da[:, None] * tl.exp(D)
        dQ += W * k_s[None, :]
        dK += tl.where((r == s)[:, None], tl.sum(W * Q, 0)[None, :], 0.0)
        later = (r > s)[:, None]
        dG += tl.where(later, tl.cumsum(tl.where(later, W * Q * k_s, 0.0), 0, reverse=True), 0.0)
    return dQ, dK, dG


@triton.jit
def one_by_one(q, k, g, A, M, start, stop, h, row, ok, col, H: tl.constexpr, K: tl.constexpr):
    """A, M (A where there is none), γ, ρ and γ_C for any decays, each an exponential of its sum."""
    C: tl.constexpr = row.shape[0]
    wide: tl.constexpr = tl.float64 if k.dtype.element_ty == tl.float32 else tl.float32
    scores = scores_one_by_one(q, k, g, start, stop, h, row, ok, col, H, K, A.dtype.element_ty)
    own = scores
    if M is not None:
        own = scores_one_by_one(k, k, g, start, stop, h, row, ok, col, H, K, M.dtype.element_ty)
    r = tl.arange(0, C)
    γ, γ_C = since_start(g, row, ok, col, K, wide)
    ρ = until_end(g, row, (start + r + 1 < stop) & (r < C - 1), col, H, K, wide)
    return scores, own, γ, ρ, γ_C


@triton.jit
def by_factors(Q, Kc, G, middle, M, dtype: tl.constexpr):
    """The same in half precision, where decays are not strong."""
    r = tl.arange(0, Q.shape[0])
    lower, from_start = r[:, None] >= r[None, :], tl.exp(middle)[None, :]
    rise, fall = tl.exp(G), tl.exp(-G)
    K_fall = tl.trans(Kc * fall)
    scores = tl.where(lower, product(Q * rise, K_fall, dtype), 0.0)
    own = scores
    if M is not None:
        own = tl.where(lower, product(Kc * rise, K_fall, dtype), 0.0)
    return scores, own, rise * from_start, fall * from_start, tl.exp(2.0 * middle)


@triton.jit
def channel_decay_kernel(
    q, k, g, A, M, q_in, k_in, k_out, kept, chunks,
    H: tl.constexpr, K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A, γ ⊙ Q, ρ ⊙ K and γ_C of one chunk, once for all tiles of V; with M also M and γ ⊙ K.

    A and M are summed in their own dtypes, BK channels at a time. Where there is M, γ ⊙ K and ρ ⊙ K
    of float32 keys are without `near_one` ⊙ K.
    """
    i, h, start, stop = own_chunk(chunks, H)
    r = tl.arange(0, C)
    if start >= stop:  # a number without a chunk
        return
    row, ok = (start + r) * H + h, start + r < stop
    scores = tl.zeros((C, C), A.dtype.element_ty)
    own = scores if M is None else tl.zeros((C, C), M.dtype.element_ty)
    for c in range(0, K, BK):
        col = c + tl.arange(0, BK)
        Q, Kc = load(q, row, ok, col, K), load(k, row, ok, col, K)
        if q.dtype.element_ty == tl.float32:
            a, m, γ, ρ, γ_C = one_by_one(q, k, g, A, M, start, stop, h, row, ok, col, H, K)
        else:
            G, middle = from_middle(g, row, ok, col, K)
            if all_below(G, STRONG):
                a, m, γ, ρ, γ_C = by_factors(Q, Kc, G, middle, M, q.dtype.element_ty)
            else:
                a, m, γ, ρ, γ_C = one_by_one(q, k, g, A, M, start, stop, h, row, ok, col, H, K)
        scores, own = scores + a, own + m
        if M is not None:
            near = near_one(γ_C)[None, :] if k.dtype.element_ty == tl.float32 else 0.0
            store(k_in, row, ok, col, K, Kc * (γ - near))
            ρ -= near
        store(q_in, row, ok, col, K, Q * γ)
        store(k_out, row, ok, col, K, Kc * ρ)
        tl.store(kept + (i * H + h) * K + col, γ_C, mask=col < K)
    store(A, row, ok, r, C, scores)
    if M is not None:
        store(M, row, ok, r, C, own)


@triton.jit
def all_gradients_one_by_one(
    q, k, g, dA, dM, dq_in, dk_in, dk_out, S_dS, start, stop, h, row, ok, col,
    H: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """dQ, dK and dG for any decays. A log decay g_r acts on the pairs s < r ≤ t."""
    C: tl.constexpr = row.shape[0]
    wide: tl.constexpr = tl.float64 if k.dtype.element_ty == tl.float32 else tl.float32
    r = tl.arange(0, C)
    dQ, dK, dG = gradients_one_by_one(q, k, g, dA, start, stop, h, row, ok, col, H, K)
    if dM is not None:
        dK_t, dK_s, dG_M = gradients_one_by_one(k, k, g, dM, start, stop, h, row, ok, col, H, K)
        dK, dG = dK + dK_t + dK_s, dG + dG_M
    γ, γ_C = since_start(g, row, ok, col, K, wide)
    from_start = load(dq_in, row, ok, col, K) * γ
    dQ, to_t = dQ + from_start, load(q, row, ok, col, K) * from_start
    Kc = load(k, row, ok, col, K)
    if dM is not None:
        from_start = load(dk_in, row, ok, col, K) * γ
        dK, to_t = dK + from_start, to_t + Kc * from_start
    ρ = until_end(g, row, (start + r + 1 < stop) & (r < C - 1), col, H, K, wide)
    from_later = load(dk_out, row, ok, col, K) * ρ
    # A sum over s < r as a product: a running sum less its last term would cancel.
    dG += dot(tl.where(r[:, None] > r[None, :], 1.0, 0.0), Kc * from_later)
    dG += tl.cumsum(to_t, 0, reverse=True) + (S_dS * γ_C)[None, :]
    return dQ, dK + from_later, dG


@triton.jit
def all_gradients_by_factors(
    q, k, dA, dM, dq_in, dk_in, dk_out, S_dS, G, middle, row, ok, col, K: tl.constexpr
):
    """The same in half precision, where decays are not strong: of t ≥ r, less what has s ≥ r."""
    C: tl.constexpr = row.shape[0]
    dtype: tl.constexpr = q.dtype.element_ty
    r = tl.arange(0, C)
    lower = r[:, None] >= r[None, :]
    rise, fall, from_start = tl.exp(G), tl.exp(-G), tl.exp(middle)[None, :]
    Q, Kc = load(q, row, ok, col, K) * rise, load(k, row, ok, col, K)
    W = tl.where(lower, load(dA, row, ok, r, C).to(tl.float32), 0.0)
    dQ = product(W, Kc * fall, dtype) + load(dq_in, row, ok, col, K) * from_start
    dG = Q * dQ
    from_later = load(dk_out, row, ok, col, K) * from_start
    dK_s, dK = product(tl.trans(W), Q, dtype) + from_later, tl.zeros_like(Q)
    if dM is not None:
        W = tl.where(lower, load(dM, row, ok, r, C).to(tl.float32), 0.0)
        dK_s += product(tl.trans(W), Kc * rise, dtype)
        dK = product(W, Kc * fall, dtype) + load(dk_in, row, ok, col, K) * from_start
        dG += Kc * rise * dK
        dK *= rise
    dG = tl.cumsum(dG - Kc * fall * dK_s, 0, reverse=True)
    dG += (tl.sum(Kc * fall * from_later, 0) + S_dS * tl.exp(2.0 * middle))[None, :]
    return dQ * rise, dK + dK_s * fall, dG


@triton.jit
def channel_decay_backward_kernel(
    q, k, g, dA, dM, dq_in, dk_in, dk_out, dkept, dq, dk, dg, chunks,
    H: tl.constexpr, K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Gradients of one chunk's q, k and g, from those of all that `channel_decay_kernel` gave."""
    i, h, start, stop = own_chunk(chunks, H)
    r = tl.arange(0, C)
    if start >= stop:  # a number without a chunk
        return
    row, ok = (start + r) * H + h, start + r < stop
    for c in range(0, K, BK):
        col = c + tl.arange(0, BK)
        S_dS = tl.load(dkept + (i * H + h) * K + col, mask=col < K, other=0.0)
        if q.dtype.element_ty == tl.float32:
            dQ, dK, dG = all_gradients_one_by_one(
                q, k, g, dA, dM, dq_in, dk_in, dk_out, S_dS, start, stop, h, row, ok, col, H, K
            )
        else:
            G, middle = from_middle(g, row, ok, col, K)
            if all_below(G, STRONG):
                dQ, dK, dG = all_gradients_by_factors(
                    q, k, dA, dM, dq_in, dk_in, dk_out, S_dS, G, middle, row, ok, col, K
                )
            else:
                dQ, dK, dG = all_gradients_one_by_one(
                    q, k, g, dA, dM, dq_in, dk_in, dk_out, S_dS, start, stop, h, row, ok, col, H, K
                )
        store(dq, row, ok, col, K, dQ)
        store(dk, row, ok, col, K, dK)
        store(dg, row, ok, col, K, dG)


def channel_decay(
    q: Tensor, k: Tensor, g: Tensor, chunks: Tensor, M: torch.dtype | None = None
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor, Tensor]:
    """A `[B, T, H, C]` and M, γ ⊙ Q, γ ⊙ K, ρ ⊙ K and γ_C `[chunks, H, K]` of a decay per channel.

    Args:
        q: queries `[B, T, H, K]`.
        k: keys like q.
        g: natural log of the decay, like q.
        chunks: as `chunk_table` hands it back.
        M: dtype of M; without it there is no M and no γ ⊙ K. With it γ ⊙ K and ρ ⊙ K of float32
            keys are without `near_one` ⊙ K.
    """
    B, T, H, K = q.shape
    cfg = launch.config("channel_decay_kernel", launch.architecture(q), q.dtype, 2)
    A = torch.empty(B, T, H, cfg.C, dtype=torch.float32, device=q.device)
    own, k_in = (None, None) if M is None else (torch.empty_like(A, dtype=M), torch.empty_like(k))
    q_in, k_out = torch.empty_like(q), torch.empty_like(k)
    kept = torch.empty(len(chunks), H, K, dtype=torch.float32, device=q.device)
    channel_decay_kernel[(len(chunks) * H,)](
        q, k, g, A, own, q_in, k_in, k_out, kept, chunks,
        H, K, cfg.C, min(cfg.BV, padded(K)),
        **cfg.options,
    )  # fmt: skip
    return A, own, q_in, k_in, k_out, kept


def channel_decay_backward(
    q: Tensor, k: Tensor, g: Tensor, dA: Tensor, dM: Tensor | None,
    dq_in: Tensor, dk_in: Tensor | None, dk_out: Tensor, dkept: Tensor, chunks: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k and g, which is in float32, from those of all that `channel_decay` gave."""
    H, K = q.shape[2:]
    cfg = launch.config("channel_decay_backward_kernel", launch.architecture(q), q.dtype, 2)
    dq, dk, dg = torch.empty_like(q), torch.empty_like(k), torch.empty_like(dq_in)
    channel_decay_backward_kernel[(len(chunks) * H,)](
        q, k, g, dA, dM, dq_in, dk_in, dk_out, dkept, dq, dk, dg, chunks,
        H, K, cfg.C, min(cfg.BV, padded(K)),
        **cfg.options,
    )  # fmt: skip
    return dq, dk, dg
