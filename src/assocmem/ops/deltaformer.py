"""DeltaFormer: softmax attention whose writes first erase what earlier writes already answer.

    u_t = v_t − β_t Σ_{s<t} κ₁(w_t, k_s) u_s,    o_t = Σ_{s≤t} p_ts u_s

with p_ts the softmax over s ≤ t of scale · q_tᵀ k_s (Zhong et al., arXiv:2505.19488; Xu et al.,
DeltaFormer, NeurIPS 2025). So it is softmax attention of the corrections u_t in place of the values
v_t, as the delta rule is linear attention of them; with β = 0 nothing is corrected. κ₁ is one of
`erase.py`. All corrections together solve a triangular system, (I + Diag(β) P) U = V with
P_ts = κ₁(w_t, k_s) for s < t, else 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem.ops import inputs
from assocmem.ops.backend import check_derivatives, choose
from assocmem.ops.chunks import CHUNK, heads_first, known_to_be_finite, wide, without_poison
from assocmem.ops.delta_rule import solve
from assocmem.ops.erase import check_erase, kernel, score_gradient, strip
from assocmem.ops.packed import over_sequences
from assocmem.ops.softmax_attention import attend


def recurrent(w: Tensor, k: Tensor, v: Tensor, beta: Tensor, past: Tensor, erase: str) -> Tensor:
    """The definition of u, token by token, for tokens that follow those with corrections `past`."""
    w, k, v, beta = (x.to(past) for x in (w, k, v, beta))
    u = past
    for t in range(v.shape[1]):
        scores = torch.einsum("bhk,bshk->bhs", w[:, t], k[:, : u.shape[1]])
        recalled = torch.einsum("bhs,bshv->bhv", kernel(scores, erase), u)
        u_t = v[:, t] - beta[:, t, :, None] * recalled
        u = torch.cat((u, u_t[:, None]), 1)
    return u[:, past.shape[1] :]


def chunk(w: Tensor, k: Tensor, v: Tensor, beta: Tensor, past: Tensor, erase: str) -> Tensor:
    """The same in matrix products: a loop over strips of C tokens, none over tokens.

    A strip of P, C rows, has a part left of the diagonal, which weighs what earlier strips have
    solved, and a triangle on it:

        (I + Diag(β_c) P_cc) U_c = V_c − β_c ⊙ P_{c,<c} U_{<c}

    One strip at a time is all that is held of P, also backward: memory grows like T, not T².
    """
    B, H = v.shape[0], v.shape[2]
    u, _recalled = solve_strips(*(heads_first(x, past) for x in (w, k, v, beta, past)), erase)
    return u.unflatten(0, (B, H)).transpose(1, 2)


def strips(T: int, before: int) -> list[tuple[slice, slice]]:
    """The strips of T tokens that follow others: their rows among the T, and among all."""
    return [
        (slice(start, start + CHUNK), slice(before + start, before + start + CHUNK))
        for start in range(0, T, CHUNK)
    ]


@torch.library.custom_op("assocmem::deltaformer_chunk", mutates_args=())
def solve_strips(
    w: Tensor, k: Tensor, v: Tensor, beta: Tensor, past: Tensor, erase: str
) -> tuple[Tensor, Tensor]:
    """U and what each token recalls, Y = P U, from tensors with all heads in the first dimension.

    One operator to PyTorch: a compiled graph holds one node instead of a loop, and the backward
    pass computes each strip of P again instead of keeping all of them.

    Args:
        w: erase keys of the last T of S tokens, `[N, T, K]`.
        k: keys `[N, S, K]`.
        v: values `[N, T, V]`.
        beta: step sizes `[N, T]`.
        past: u of the first S − T tokens, `[N, S - T, V]`.
        erase: κ₁.
    """
    before, clean = past.shape[1], known_to_be_finite(w, k, v, beta, past)
    u, y = torch.cat((past, v), 1), torch.empty_like(v)
    for rows, own in strips(v.shape[1], before):
        P, β = strip(w[:, rows], k[:, : own.stop], erase), beta[:, rows, None]
        left, triangle = P[..., : own.start], P[..., own.start :]
        recalled = left @ u[:, : own.start]
        L, D = β * triangle, torch.addcmul(v[:, rows], β, recalled, value=-1)
        if clean:
            u[:, own] = solve(wide(L), D)
        else:  # a NaN or infinity is taken out, and put back into every row from its own on
            L, lost_of_L = without_poison(L)
            D, lost = without_poison(D)
            u[:, own] = solve(wide(L), D) + lost + lost_of_L.sum(-1, keepdim=True)
        y[:, rows] = torch.baddbmm(recalled, triangle, u[:, own])
    return u[:, before:].clone(), y


@solve_strips.register_fake
def _(w, k, v, beta, past, erase):
    return v.new_empty(v.shape), v.new_empty(v.shape)


def solve_transposed(L: Tensor, D: Tensor) -> Tensor:
    """(I + strict_lower(L))⁻ᵀ D in D's dtype, by substitution."""
    return torch.linalg.solve_triangular(L.mT, D.to(L), upper=True, unitriangular=True).to(D)


@torch.library.custom_op("assocmem::deltaformer_chunk_backward", mutates_args=())
def solve_strips_backward(
    w: Tensor,
    k: Tensor,
    beta: Tensor,
    past: Tensor,
    u: Tensor,
    y: Tensor,
    du: Tensor,
    erase: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of w, k, v, beta and past from that of U, strip by strip from the last.

    G_c = (I + Diag(β_c) P_cc)⁻ᵀ (dU_c − Σ_{c'>c} P_{c'c}ᵀ (β ⊙ G)_{c'}) is the gradient of V_c, and
    that of P is −(β ⊙ G) Uᵀ. Two sums over the earlier tokens are known without P: dβ = −⟨G, y⟩,
    and for the softmax the inner product of a row of P with its gradient, −⟨β ⊙ G, y⟩.
    """
    before = past.shape[1]
    u, G = torch.cat((past, u), 1), torch.cat((torch.zeros_like(past), du), 1)
    dw, dk = torch.empty_like(w), torch.zeros_like(k)
    for rows, own in reversed(strips(w.shape[1], before)):
        W, seen = w[:, rows], slice(0, own.stop)
        P, β = strip(W, k[:, seen], erase), beta[:, rows, None]
        left, triangle = P[..., : own.start], P[..., own.start :]
        G[:, own] = solve_transposed(wide(β * triangle), G[:, own])
        B = β * G[:, own]
        G[:, : own.start].baddbmm_(left.mT, B, alpha=-1)
        dP = torch.bmm(B, u[:, seen].mT).neg_()
        dS = score_gradient(P, dP, -(B * y[:, rows]).sum(-1), erase)
        dw[:, rows] = dS @ k[:, seen]
        dk[:, seen].baddbmm_(dS.mT, W)
    dpast, dv = G.split([before, w.shape[1]], 1)
    return dw, dk, dv.clone(), -(dv * y).sum(-1), dpast.clone()


@solve_strips_backward.register_fake
def _(w, k, beta, past, u, y, du, erase):
    return tuple(x.new_empty(x.shape) for x in (w, k, u, beta, past))


def _setup_context(ctx, inputs, output):
    w, k, _v, beta, past, ctx.erase = inputs
    ctx.save_for_backward(w, k, beta, past, *output)


def _backward(ctx, du, _dy):
    with inputs.without_autocast(du):
        gradients = solve_strips_backward(*ctx.saved_tensors, du, ctx.erase)
    return *gradients, None


solve_strips.register_autograd(_backward, setup_context=_setup_context)


def _over_a_batch(operator):
    """The operator's rule for `vmap`: a batch dimension more is more heads."""

    def rule(info, in_dims, *arguments):
        n = info.batch_size
        folded = []
        for x, dim in zip(arguments, in_dims, strict=True):
            if isinstance(x, Tensor):
                x = x.expand(n, *x.shape) if dim is None else x.movedim(dim, 0)
                x = x.flatten(0, 1).contiguous()
            folded.append(x)
        outputs = operator(*folded)
        return tuple(x.unflatten(0, (n, -1)) for x in outputs), (0,) * len(outputs)

    return rule


solve_strips.register_vmap(_over_a_batch(solve_strips))
solve_strips_backward.register_vmap(_over_a_batch(solve_strips_backward))


def one_token(
    q: Tensor, w: Tensor, k: Tensor, v: Tensor, beta: Tensor, past: Tensor,
    erase: str, scale: float, hidden: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """O and u of one token that follows others, in one pass over what they left.

    Keys and corrections of the past are read once, for w and for q; then the token's own pair takes
    its part in the average that q reads.
    """
    q, w, k, v, beta = (x.to(past) for x in (q, w, k, v, beta))
    scores = torch.einsum("brhk,bshk->bhrs", torch.cat((w, scale * q), 1), k)
    if hidden is not None:  # finite, so that where all are hidden the average of their zeros is 0
        scores = scores.masked_fill(hidden[:, None, None], torch.finfo(scores.dtype).min)
    p = scores[:, :, 1:].softmax(-1)
    weights = torch.cat((kernel(scores[:, :, :1, :-1], erase), p[..., :-1]), 2)
    recalled, read = torch.einsum("bhrs,bshv->brhv", weights, past).split(1, 1)
    u = v - beta[..., None] * recalled
    return read + p[..., -1].mT[..., None] * u, u


def write_and_read(
    q: Tensor, w: Tensor, k: Tensor, v: Tensor, beta: Tensor, past: Tensor | None,
    erase: str, scale: float, backend: str, hidden: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """O of the last T of S tokens and u of all, without checks of shapes.

    What `deltaformer` does with T = S, and a layer that keeps its keys and corrections with T < S:
    q, w, v and beta are of T tokens, the keys `[B, S, H, K]`, and past is u of the first S − T,
    `[B, S - T, H, V]`, None when there are none. u is float64 for float64 inputs, else float32. One
    token after others takes no kernel with "triton" either: there is no system to solve. Before it
    keys and corrections may have zeros in place of tokens, which are hidden `[B, S]`.
    """
    form = choose(backend, q)
    with inputs.without_autocast(q):
        past = (v[:, :0] if past is None else past).to(inputs.state_dtype(v))
        if v.shape[1] == 1 < k.shape[1] and form != "recurrent":
            w = scaled(w, past, erase, scale)
            o, u = one_token(q, w, k, v, beta, past, erase, scale, hidden)
            return o.to(v.dtype), torch.cat((past, u), 1)
        u = corrections(form, w, k, v, beta, past, erase, scale)
        u = torch.cat((past, u.to(past)), 1)
        return read(form, q, k, u.to(v.dtype), scale), u


def read(form: str, q: Tensor, k: Tensor, u: Tensor, scale: float) -> Tensor:
    """O of the last T of S tokens from the corrections of all, in the dtype of u."""
    return attend(q, k, u, None, scale, "recurrent" if form == "recurrent" else "chunk")


def corrections(
    form: str, w: Tensor, k: Tensor, v: Tensor, beta: Tensor, past: Tensor,
    erase: str, scale: float,
) -> Tensor:  # fmt: skip
    """u of the tokens that follow those with corrections past, by one form."""
    if form == "recurrent":
        return recurrent(scaled(w, past, erase, scale), k, v, beta, past, erase)
    check_derivatives(form, "recurrent", w, k, v, beta, past)
    if form == "chunk":
        return chunk(scaled(w, past, erase, scale), k, v, beta, past, erase)
    from assocmem_kernels.deltaformer import deltaformer as fused

    return fused(w, k, v, beta, past.to(v.dtype), scale, erase)[0]


def scaled(w: Tensor, past: Tensor, erase: str, scale: float) -> Tensor:
    """The erase keys in the dtype of the corrections, with the scale of a softmax in them."""
    return scale * w.to(past) if erase == "softmax" else w.to(past)


def deltaformer(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor | None = None,
    *,
    w: Tensor | None = None,
    erase: str = "softmax",
    scale: float | None = None,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Read, at every token, the softmax average of the corrections that the tokens so far wrote.

    u_t = v_t − β_t Σ_{s<t} κ₁(w_t, k_s) u_s,  o_t = Σ_{s≤t} p_ts u_s,
    p_t = softmax_{s≤t}(scale · q_tᵀ k_s)  (arXiv:2505.19488).

    How large u grows is up to β. With "softmax" and |β| ≤ b < 1, |u| ≤ max |v| / (1 − b); with
    b = 1 it may grow like T. With "linear" and w = k, β_t ‖k_t‖² must lie in [0, 2], as in
    `delta_rule`.

    Args:
        q: queries `[B, T, H, K]`.
        k: keys `[B, T, H, K]`.
        v: values `[B, T, H, V]`.
        beta: step sizes β `[B, T, H]`: 0 writes the value as it is; 1 everywhere when None.
        w: erase keys `[B, T, H, K]`, the keys k when None.
        erase: κ₁: "softmax" (over s < t of scale · w_tᵀ k_s; the first token erases nothing),
            "linear" (w_tᵀ k_s) or "relu" (max(0, w_tᵀ k_s)).
        scale: factor on the scores of both softmaxes, K ** -0.5 when None.
        cu_seqlens: borders of N sequences packed into one batch element, int32 or int64 `[N + 1]`
            from 0 to T; sequences do not see each other. A graph that `torch.compile` traces breaks
            where their lengths are read.
        backend: "auto", "recurrent" (the definition, differentiable twice), "chunk" (matrix
            products) or "triton" (the corrections by kernels). The last two read by PyTorch's
            attention, and are differentiable once.

    Returns:
        o `[B, T, H, V]` in v's dtype, or in that of `torch.autocast`, where it is on.

    Raises:
        TypeError: an argument is no tensor, or has the wrong dtype.
        ValueError: an argument has the wrong shape, device or content, or the backend or κ₁ is
            unknown.
        RuntimeError: the backend that was asked for cannot run here, or it is not "recurrent"
            under forward-mode or `torch.func` derivatives.

    Example:
        >>> import torch
        >>> from assocmem import ops
        >>> k = torch.ones(1, 2, 1, 1)  # the second token erases what the first wrote, 3
        >>> v = torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)
        >>> ops.deltaformer(k, k, v).flatten()  # the averages of 3, and of 3 and 5 - 3
        tensor([3.0000, 2.5000])
    """
    q, k, v = inputs.cast(q, k, v)
    inputs.check_qkv(q, k, v)
    w = k if w is None else inputs.cast(w)[0]
    inputs.check_like_q("w", w, q)
    if beta is None:
        beta = q.new_ones(q.shape[:3], dtype=inputs.state_dtype(q))
    inputs.check_beta(beta, q)
    check_erase(erase)
    inputs.check_scale(scale)
    inputs.check_cu_seqlens(cu_seqlens, q)

    factor = q.shape[-1] ** -0.5 if scale is None else float(scale)
    form = choose(backend, q)

    def of_sequence(q: Tensor, w: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
        with inputs.without_autocast(q):
            past = v[:, :0].to(inputs.state_dtype(v))
            u = corrections(form, w, k, v, beta, past, erase, factor)
            return read(form, q, k, u.to(v.dtype), factor)

    return over_sequences(of_sequence, (q, w, k, v, beta), cu_seqlens)
