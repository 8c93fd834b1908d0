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

from assocmem.ops import graph, inputs
from assocmem.ops.autocast import cast, without_autocast
from assocmem.ops.backend import choose
from assocmem.ops.chunks import heads_first
from assocmem.ops.erase import check_erase, weights
from assocmem.ops.loops import each_part, each_token
from assocmem.ops.packed import lengths_of, nothing_of
from assocmem.ops.softmax_attention import attend
from assocmem.ops.strips import solve_strips
from assocmem.ops.transforms import check_derivatives


def recurrent(w: Tensor, k: Tensor, v: Tensor, beta: Tensor, past: Tensor, erase: str) -> Tensor:
    """The definition of u, token by token, for tokens that follow those with corrections `past`."""
    w, k, v, beta = (x.to(past) for x in (w, k, v, beta))
    u = past if v.shape[1] else past + nothing_of(w, k, v, beta)
    for w_t, v_t, β in each_token(w, v, beta):
        scores = torch.einsum("bhk,bshk->bhs", w_t, k[:, : u.shape[1]])
        recalled = torch.einsum("bhs,bshv->bhv", weights(scores, erase), u)
        u_t = v_t - β[..., None] * recalled
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
    P = torch.cat((weights(scores[:, :, :1, :-1], erase), p[..., :-1]), 2)
    recalled, read = torch.einsum("bhrs,bshv->brhv", P, past).split(1, 1)
    u = v - beta[..., None] * recalled
    return read + p[..., -1].mT[..., None] * u, u


def write_and_read(
    q: Tensor, w: Tensor, k: Tensor, v: Tensor, beta: Tensor, past: Tensor,
    erase: str, scale: float, backend: str, hidden: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """O of the last T of S tokens and u of all, without checks of shapes.

    What `deltaformer` does with T = S, and a layer that keeps its keys and corrections with T < S:
    q, w, v and beta are of T tokens, the keys `[B, S, H, K]`, and past is u of the first S − T,
    `[B, S - T, H, V]`. u is float64 for float64 inputs, else float32. One token after others takes
    no kernel, even with "triton": there is no system to solve. The keys and corrections before it
    may have zeros in place of tokens, which are hidden `[B, S]`.
    """
    form = choose(backend, q)
    with without_autocast(q):
        past = past.to(inputs.state_dtype(v))
        if v.shape[1] == 1 < k.shape[1] and form != "recurrent":
            w = scaled(w, past, erase, scale)
            o, u = one_token(q, w, k, v, beta, past, erase, scale, hidden)
            return o.to(v.dtype), torch.cat((past, u), 1)
        u = corrections(form, w, k, v, beta, past, erase, scale).to(past)
        u = torch.cat((past, u), 1) if past.shape[1] else u
        return read(form, q, k, u.to(v.dtype), scale), u


def write_and_read_each(
    q: Tensor, w: Tensor, k: Tensor, v: Tensor, beta: Tensor, past: Tensor,
    erase: str, scale: float, backend: str, old: Tensor, new: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`write_and_read` for every sequence of a row, of new tokens after old ones."""
    before = lengths_of(old, past.shape[1], "state.cu_seqlens")
    own = lengths_of(new, q.shape[1])
    seen = [a + b for a, b in zip(before, own, strict=True)]
    parts = each_part(own, q, w, v, beta), each_part(seen, k), each_part(before, past)
    outputs, corrections = [], []
    for (q_n, w_n, v_n, β), (k_n,), (past_n,) in zip(*parts, strict=True):
        o, u = write_and_read(q_n, w_n, k_n, v_n, β, past_n, erase, scale, backend)
        outputs.append(o)
        corrections.append(u)
    return torch.cat(outputs, 1), torch.cat(corrections, 1)


def _like_write_and_read_each(q, w, k, v, beta, past, erase, scale, backend, old, new):
    return v.new_empty(v.shape), past.new_empty(*k.shape[:3], v.shape[-1])


packed_operator = graph.operator(
    "deltaformer_packed",
    "Tensor q, Tensor w, Tensor k, Tensor v, Tensor beta, Tensor past, str erase, float scale, "
    "str backend, Tensor old, Tensor new",
    2, write_and_read_each, _like_write_and_read_each,
)  # fmt: skip


def write_and_read_packed(
    q: Tensor, w: Tensor, k: Tensor, v: Tensor, beta: Tensor, past: Tensor,
    erase: str, scale: float, backend: str, old: Tensor, new: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`write_and_read_each`, in a graph that is traced as one operator."""
    arguments = (q, w, k, v, beta, past, erase, scale, backend, old, new)
    if graph.in_place_of(q, new):
        return packed_operator(*arguments)
    return write_and_read_each(*arguments)


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

    How large u grows depends on β. With "softmax" and |β| ≤ b < 1, |u| ≤ max |v| / (1 − b); with
    b = 1 it may grow like T. With "linear" and w = k, β_t ‖k_t‖² must lie in [0, 2], as in
    `delta_rule`.

    Args:
        q: queries `[B, T, H, K]`.
        k: keys `[B, T, H, K]`.
        v: values `[B, T, H, V]`.
        beta: step sizes β `[B, T, H]`: 0 writes the value as it is; 1 everywhere when None. That of
            a first token, which erases nothing, has to be finite as well.
        w: erase keys `[B, T, H, K]`, the keys k when None.
        erase: κ₁: "softmax" (over s < t of scale · w_tᵀ k_s; the first token erases nothing),
            "linear" (w_tᵀ k_s) or "relu" (max(0, w_tᵀ k_s)).
        scale: factor on the scores of both softmaxes, K ** -0.5 when None.
        cu_seqlens: borders of N sequences packed into one batch element, int32 or int64 `[N + 1]`
            from 0 to T; sequences do not see each other. They are read one after the other, in a
            graph that `torch.compile` traces as one operator.
        backend: "auto", "recurrent" (the definition, differentiable twice), "chunk" (matrix
            products) or "triton" (the corrections by kernels). The last two read with PyTorch's
            attention, whose gradients on a GPU add up in no fixed order, and are differentiable
            once.

    Returns:
        o `[B, T, H, V]` in v's dtype, or in that of `torch.autocast`, where it is on.

    Raises:
        TypeError: an argument is not a tensor, or has the wrong dtype.
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
    q, k, v = cast(q, k, v)
    inputs.check_qkv(q, k, v)
    w = k if w is None else cast(w)[0]
    inputs.check_like_q("w", w, q)
    if beta is None:
        beta = q.new_ones(q.shape[:3], dtype=inputs.state_dtype(q))
    inputs.check_beta(beta, q)
    check_erase(erase)
    inputs.check_scale(scale)
    inputs.check_cu_seqlens(cu_seqlens, q)

    factor = inputs.factor(scale, q)
    form = choose(backend, q)
    past = v[:, :0].to(inputs.state_dtype(v))
    if cu_seqlens is not None:
        empty = torch.zeros_like(cu_seqlens)
        rest = (past, erase, factor, backend, empty, cu_seqlens)
        return write_and_read_packed(q, w, k, v, beta, *rest)[0]
    with without_autocast(q):  # `write_and_read` would also give u in float32
        u = corrections(form, w, k, v, beta, past, erase, factor)
        return read(form, q, k, u.to(v.dtype), factor)
