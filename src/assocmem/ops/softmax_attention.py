"""Softmax attention: a memory that keeps every key and value, and reads a weighted average.

    o_t = Σ_{s≤t} p_ts v_s,    p_ts = softmax over s ≤ t of (scale · q_tᵀ k_s + D_ts)

With g absent D is 0, and this is the Transformer's attention (Vaswani et al., arXiv:1706.03762);
with one decay per head and token, D_ts = Σ_{s<r≤t} g_r, the Forgetting Transformer's (Lin et al.,
arXiv:2503.02130).
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from assocmem.ops import graph, inputs
from assocmem.ops.autocast import cast, without_autocast
from assocmem.ops.backend import check_known
from assocmem.ops.decay import log_decay_matrix, sum_after
from assocmem.ops.loops import each_part
from assocmem.ops.packed import lengths_of, nothing_of
from assocmem.ops.poison import known_to_be_finite, without_poison
from assocmem.ops.transforms import in_forward_mode, transformed


def recurrent(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, scale: float,
    hidden: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The definition, token by token, for queries that are the last of the tokens."""
    q, k, v = (x.to(inputs.state_dtype(x)) for x in (q, k, v))
    k, v = (shared(x, q.shape[2], 2) for x in (k, v))
    past = k.shape[1] - q.shape[1]
    outputs = []
    for t, q_t in enumerate(q.unbind(1)):
        seen = slice(0, past + t + 1)
        scores = scale * torch.einsum("bhk,bshk->bsh", q_t, k[:, seen])
        if g is not None:
            scores = scores + sum_after(g[:, seen].to(q))
        if hidden is not None:
            scores = scores.masked_fill(hidden[:, seen, None], -torch.inf)
        outputs.append(torch.einsum("bsh,bshv->bhv", scores.softmax(1), v[:, seen]))
    return torch.stack(outputs, 1)


def shared(x: Tensor, H: int, dim: int) -> Tensor:
    """What fewer heads have, for each of H heads of queries."""
    return x if x.shape[dim] == H else x.repeat_interleave(H // x.shape[dim], dim)


def chunk(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, scale: float,
    hidden: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The same for all queries at once, by PyTorch's own attention."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if known_to_be_finite(q, k, v):
        return attention(q, k, v, g, scale, hidden).transpose(1, 2)
    # On a CPU PyTorch's kernel takes a row of NaN for one that is masked, and reads 0, where there
    # are fewer keys than a vector register has numbers.
    lost_q = (q - q).detach().sum(-1, keepdim=True)
    # Masking adds -inf to a score and multiplies a value by 0: neither removes a NaN.
    k, lost_k = without_poison(k)
    v, lost_v = without_poison(v)
    lost = (lost_k.sum(-1, keepdim=True) + lost_v)[:, :, k.shape[2] - q.shape[2] :]
    lost = shared(lost, q.shape[1], 1) + lost_q
    return (attention(q, k, v, g, scale, hidden) + lost).transpose(1, 2)


def attention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, scale: float,
    hidden: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """PyTorch's attention of heads first q, k, v `[B, H, ·, ·]`; g is `[B, S, H]`."""
    T, past = q.shape[2], k.shape[2] - q.shape[2]
    # As an argument the comparison would be no bool where a graph's number of heads is symbolic.
    grouped = {"enable_gqa": True} if k.shape[1] != q.shape[1] else {}
    read = partial(F.scaled_dot_product_attention, scale=scale, **grouped)
    # PyTorch's kernels have no forward mode, and under `vmap` no bias that is learned.
    by_hand = in_forward_mode() or (g is not None and transformed())
    if g is not None or by_hand:
        # A kernel takes the bias in the dtype of q, and in half precision D has 3 digits or less.
        q, k, v = (x.to(inputs.state_dtype(x)) for x in (q, k, v))
        D = log_decays(q.new_zeros(1, 1, past + T) if g is None else g.transpose(1, 2).to(q), T)
        if hidden is not None:
            D = D.masked_fill(hidden[:, None, None], -torch.inf)
        return written_out(q, k, v, D, scale) if by_hand else read(q, k, v, D)
    # PyTorch scales what is_causal has set to -inf, but not a mask.
    if past == 0 and hidden is None and scale > 0:
        return read(q, k, v, is_causal=True)
    token = torch.arange(past + T, device=q.device)
    seen = token <= token[past:, None]  # `tril` fixes the length in what torch 2.6 compiles
    if hidden is not None:
        seen = seen & ~hidden[:, None, None]
    return read(q, k, v, seen)


def written_out(q: Tensor, k: Tensor, v: Tensor, D: Tensor, scale: float) -> Tensor:
    """The same in products, with the scores in memory."""
    k, v = (shared(x, q.shape[1], 1) for x in (k, v))
    return (scale * q @ k.mT + D).softmax(-1) @ v


def log_decays(g: Tensor, T: int) -> Tensor:
    """D_ts of the last T of S tokens t, `[..., T, S]` from g `[..., S]`; -inf for s > t."""
    past, new = g.split([g.shape[-1] - T, T], -1)
    future = torch.ones(T, T, dtype=torch.bool, device=g.device).triu(1)  # s > t
    D = log_decay_matrix(new).masked_fill(future, -torch.inf)
    if past.shape[-1] == 0:
        return D
    return torch.cat((sum_after(past[..., None]).mT + new.cumsum(-1)[..., None], D), -1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, scale: float | None, backend: str,
    hidden: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Softmax attention of T queries that are the last of S tokens, without checks of shapes.

    Queries `[B, T, H, K]`, keys `[B, S, H, K]`, values `[B, S, H, V]` and log decays `[B, S, H]`:
    what `softmax_attention` does with T = S, and a layer that keeps its keys with T < S. Keys and
    values may have fewer heads, each of them for equally many consecutive heads of queries.
    Tokens that are hidden `[B, S]` from all are padding: zeros in place of earlier tokens.
    """
    check_known(backend)
    if backend == "triton":
        raise RuntimeError(
            "backend='triton' cannot run here: softmax attention is PyTorch's own kernel "
            "(backend='chunk')"
        )
    if q.numel() == 0:  # where PyTorch's attention would have no gradient of g
        return v.new_zeros(*q.shape[:3], v.shape[-1]) + nothing_of(q, k, v, g)
    form = recurrent if backend == "recurrent" else chunk
    factor = inputs.factor(scale, q)
    with without_autocast(q):
        return form(q, k, v, g, factor, hidden).to(v.dtype)


def attend_each(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, scale: float, backend: str,
    new: Tensor, seen: Tensor,
) -> tuple[Tensor]:  # fmt: skip
    """`attend` for every sequence of a row: queries have the borders new, and keys seen."""
    queries = each_part(lengths_of(new, q.shape[1]), q)
    pairs = each_part(lengths_of(seen, k.shape[1], "state.cu_seqlens"), k, v, g)
    outputs = [
        attend(q_n, k_n, v_n, g_n, scale, backend)
        for (q_n,), (k_n, v_n, g_n) in zip(queries, pairs, strict=True)
    ]
    return (torch.cat(outputs, 1),)


def _like_attend_each(q, k, v, g, scale, backend, new, seen):
    return (v.new_empty(*q.shape[:3], v.shape[-1]),)


packed_operator = graph.operator(
    "softmax_attention_packed",
    "Tensor q, Tensor k, Tensor v, Tensor? g, float scale, str backend, Tensor new, Tensor seen",
    1, attend_each, _like_attend_each,
)  # fmt: skip


def attend_packed(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, scale: float | None, backend: str,
    new: Tensor, seen: Tensor,
) -> Tensor:  # fmt: skip
    """`attend_each`, in a graph that is traced as one operator."""
    arguments = (q, k, v, g, inputs.factor(scale, q), backend, new, seen)
    if graph.in_place_of(q, new):
        return packed_operator(*arguments)
    return attend_each(*arguments)[0]


def softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    *,
    scale: float | None = None,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Read, at every token, the average of the values so far, weighted by a softmax of the scores.

    o_t = Σ_{s≤t} p_ts v_s,  p_t = softmax_{s≤t}(scale · q_tᵀ k_s + D_ts),  D_ts = Σ_{s<r≤t} g_r
    (arXiv:1706.03762, Eq. 1, with a causal mask; with g arXiv:2503.02130).

    Args:
        q: queries `[B, T, H, K]`.
        k: keys `[B, T, H, K]`.
        v: values `[B, T, H, V]`.
        g: natural log of the decay, `[B, T, H]`, or None (no decay); at most 0 in practice; -inf
            clears the memory. With g, or in forward mode, matrices take B·H·T² numbers of memory.
        scale: factor on the scores, K ** -0.5 when None.
        cu_seqlens: borders of N sequences packed into one batch element, int32 or int64 `[N + 1]`
            from 0 to T; sequences do not see each other. They are read one after the other, in a
            graph that `torch.compile` traces as one operator.
        backend: "auto" or "chunk" (PyTorch's `scaled_dot_product_attention`), or "recurrent" (the
            definition, differentiable twice).

    Returns:
        o `[B, T, H, V]` in v's dtype, or in that of `torch.autocast`, where it is on.

    Raises:
        TypeError: an argument is not a tensor, or has the wrong dtype.
        ValueError: an argument has the wrong shape, device or content, or the backend is unknown.
        RuntimeError: the backend is "triton".

    Example:
        >>> import torch
        >>> from assocmem import ops
        >>> k = torch.ones(1, 2, 1, 1)  # equal keys have equal weights
        >>> v = torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)
        >>> ops.softmax_attention(k, k, v).flatten()
        tensor([3., 4.])
    """
    q, k, v = cast(q, k, v)
    inputs.check_qkv(q, k, v)
    inputs.check_head_gate(g, q)
    inputs.check_scale(scale)
    inputs.check_cu_seqlens(cu_seqlens, q)
    if cu_seqlens is None:
        return attend(q, k, v, g, scale, backend)
    return attend_packed(q, k, v, g, scale, backend, cu_seqlens, cu_seqlens)
