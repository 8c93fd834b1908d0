"""Linear attention: a memory that adds up outer products of keys and values.

    S_t = Diag(exp g_t) S_{t-1} + k_t v_tᵀ,    o_t = scale · S_tᵀ q_t

With g absent this is linear attention (Katharopoulos et al., arXiv:2006.16236), with one decay a
head RetNet and Mamba-2 (arXiv:2307.08621, 2405.21060), with one a channel gated linear attention
(Yang et al., arXiv:2312.06635). The book writes S as d_v × d_k (arXiv:2505.19488, Eq. 1); the
code stores its transpose, [K, V].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from assocmem.ops import inputs
from assocmem.ops.backend import choose
from assocmem.ops.packed import each_sequence

CHUNK = 64  # on CPU 32 to 128 are equally fast, and larger tiles leave the cache


def recurrent(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, scale: float, S: Tensor
) -> tuple[Tensor, Tensor]:
    """The definition, token by token."""
    q, k, v = q.to(S), k.to(S), v.to(S)
    outputs = []
    for t in range(q.shape[1]):
        if g is not None:
            decay = g[:, t].to(S).exp()  # [B, H] or [B, H, K]
            S = (decay[..., None] if g.ndim == 4 else decay[..., None, None]) * S
        S = S + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q[:, t], S))
    return torch.stack(outputs, 1) if outputs else v, S


def chunk(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, scale: float, S: Tensor
) -> tuple[Tensor, Tensor]:
    """The same in matrix products: a loop over chunks of C tokens, none over tokens.

    Within a chunk, with Γ_ts the decay from token s to token t, γ_t from the chunk's start to t,
    and ρ_s from s to the chunk's end (book, chapter 1, eq-chunk):

        O = scale · ((Q Kᵀ ⊙ Γ) V + (γ ⊙ Q) S),    S ← γ_C S + (ρ ⊙ K)ᵀ V
    """
    B, T, H = v.shape[:3]
    S = S.flatten(0, 1)
    outputs, clean = [], known_to_be_finite(v)
    for start in range(0, T, CHUNK):
        tokens = slice(start, start + CHUNK)
        Q, K, X = (heads_first(x[:, tokens], S) for x in (q, k, v))
        G = None if g is None else heads_first(g[:, tokens], S)
        A, Q_in, K_out, kept = chunk_scores(Q, K, G)
        O = A @ X if clean else product_without_poison(A, X)
        O = torch.baddbmm(O, Q_in, S).mul_(scale)
        S = torch.baddbmm(S if kept is None else kept * S, K_out.mT, X)
        outputs.append(O.unflatten(0, (B, H)).transpose(1, 2))
    return torch.cat([v[:, :0].to(S), *outputs], 1), S.unflatten(0, (B, H))


def known_to_be_finite(v: Tensor) -> bool:
    """Whether no value is NaN or infinite; False where values must not be looked at."""
    if torch.compiler.is_compiling() or v.is_meta:
        return False
    try:
        return bool(v.detach().sum().isfinite())
    except RuntimeError:  # under vmap nothing may branch on a value
        return False


def product_without_poison(A: Tensor, X: Tensor) -> Tensor:
    """A X for a masked A, in which a NaN or infinity in X_s reaches the rows from s on only.

    Times a masked score of 0 it would reach the rows before s. It is taken out of the product, and
    put back into every row that may see it. This costs as much as half of the product.
    """
    finite = X.nan_to_num(0.0, 0.0, 0.0)
    return torch.baddbmm((X - finite).detach().cumsum(1), A, finite)


def heads_first(x: Tensor, S: Tensor) -> Tensor:
    """From `[B, C, H, ...]` to `[B H, C, ...]` in the state's dtype."""
    return x.to(S).transpose(1, 2).flatten(0, 1)


def chunk_scores(
    q: Tensor, k: Tensor, g: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Of one chunk: Q Kᵀ ⊙ Γ, γ ⊙ Q, ρ ⊙ K and γ_C (None for 1), for each kind of gate."""
    if g is None:
        return (q @ k.mT).tril_(), q, k, None
    γ = g.cumsum(1).exp()
    if g.ndim == 2:
        Γ = decay_matrix(g)
        return (q @ k.mT * Γ).tril_(), γ[..., None] * q, Γ[:, -1, :, None] * k, γ[:, -1, None, None]
    return channel_scores(q, k, g), γ * q, sum_after(g).exp() * k, γ[:, -1, :, None]


def decay_matrix(g: Tensor) -> Tensor:
    """Γ_ts = exp(Σ_{s<r≤t} g_r) for s ≤ t, from one log decay a token `[..., C]`.

    Each sum is taken over its own terms. As a difference of two running sums it would lose the
    digits that the two share, and turn a decay of zero (g = -inf) into inf − inf.
    """
    C = g.shape[-1]
    terms = g[..., :, None].expand(*g.shape, C)
    later = torch.ones(C, C, dtype=torch.bool, device=g.device).tril(-1)  # r > s
    return terms.where(later, 0).cumsum(-2).exp()


def channel_scores(q: Tensor, k: Tensor, g: Tensor) -> Tensor:
    """A_ts = Σ_c q_tc k_sc exp(Σ_{s<r≤t} g_rc) for s ≤ t, else 0, from `[..., C, K]`.

    Neighbouring blocks are merged, of 1, 2, 4, … tokens. The decay from s in the earlier block to
    t in the later one splits at their border into a factor for the key and one for the query, both
    at most 1, so a merge is a matrix product and nothing overflows.
    """
    C = q.shape[-2]
    # Rows of zeros fill the last blocks, and are cut off at the end.
    padding = (0, 0, 0, (1 << (C - 1).bit_length()) - C)
    q, k, g = (F.pad(x, padding).unsqueeze(-2) for x in (q, k, g))  # [..., blocks, b = 1, K]
    A = (q * k).sum(-1, keepdim=True)  # [..., blocks, b, b]
    while A.shape[-3] > 1:
        to_query = g[..., 1::2, :, :].cumsum(-2).exp()
        from_key = sum_after(g[..., 0::2, :, :]).exp()
        cross = (q[..., 1::2, :, :] * to_query) @ (k[..., 0::2, :, :] * from_key).mT
        earlier, later = A[..., 0::2, :, :], A[..., 1::2, :, :]
        A = torch.cat(
            (
                torch.cat((earlier, torch.zeros_like(cross)), -1),
                torch.cat((cross, later), -1),
            ),
            -2,
        )
        q, k, g = (x.unflatten(-3, (-1, 2)).flatten(-3, -2) for x in (q, k, g))
    return A[..., 0, :C, :C]


def sum_after(g: Tensor) -> Tensor:
    """Σ_{r>s} g_r along the second to last dimension, without the term at s itself."""
    return F.pad(g[..., 1:, :], (0, 0, 0, 1)).flip(-2).cumsum(-2).flip(-2)


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    normalize: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Read, at every token, a memory that adds up the outer products of keys and values so far.

    S_t = Diag(exp g_t) S_{t-1} + k_t v_tᵀ,  o_t = scale · S_tᵀ q_t  (arXiv:2505.19488, Eq. 1).

    Args:
        q: queries `[B, T, H, K]`.
        k: keys `[B, T, H, K]`.
        v: values `[B, T, H, V]`.
        g: natural log of the decay, `[B, T, H]` (one a head), `[B, T, H, K]` (one a channel) or
            None (no decay); at most 0 in practice; -inf clears the memory.
        scale: factor on the output, K ** -0.5 when None.
        initial_state: S before the first token, `[N, H, K, V]` (with normalize `[N, H, K, V + 1]`),
            float32, or float64 for float64 inputs; zero when None.
        output_final_state: hand back S after the last token.
        cu_seqlens: borders of N sequences packed into one batch element, int32 or int64 `[N + 1]`
            from 0 to T; sequences do not see each other.
        normalize: divide o_t by scale · q_tᵀ z_t, with z_t the decayed sum of the keys so far. It
            is what the memory would return had every value been 1, and is kept as the last column
            of S. Meant for positive features: with others the divisor can be 0.
        backend: "auto", "recurrent" (the definition), "chunk" (matrix products) or "triton".

    Returns:
        o `[B, T, H, V]` in v's dtype, and the final state or None.

    Raises:
        TypeError: an argument is no tensor, or has the wrong dtype.
        ValueError: an argument has the wrong shape, device or content, or the backend is unknown.
        RuntimeError: the backend that was asked for cannot run here.
    """
    q, k, v = inputs.cast(q, k, v)
    inputs.check_qkv(q, k, v)
    inputs.check_gate(g, q)
    inputs.check_scale(scale)
    inputs.check_cu_seqlens(cu_seqlens, q)
    columns = v.shape[-1] + normalize
    inputs.check_initial_state(initial_state, q, columns, cu_seqlens)
    backend = choose(backend, q)

    factor = q.shape[-1] ** -0.5 if scale is None else float(scale)
    n = q.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    S = initial_state
    if S is None:
        S = q.new_zeros(n, q.shape[2], q.shape[3], columns, dtype=inputs.state_dtype(q))
    x = torch.cat((v, torch.ones_like(v[..., :1])), -1) if normalize else v
    with inputs.without_autocast(q):  # the state stays in float32
        if backend == "triton":
            from assocmem_kernels.linear_attention import linear_attention as fused

            # The divisor must not be rounded before it divides.
            o, S = fused(q, k, x, g, factor, S, cu_seqlens, S.dtype if normalize else v.dtype)
        else:
            form = recurrent if backend == "recurrent" else chunk
            o, S = each_sequence(form, (q, k, x), g, factor, S, cu_seqlens)
        if normalize:
            o = o[..., :-1] / o[..., -1:]
    return o.to(v.dtype), S if output_final_state else None
