"""Linear attention: a memory that adds up outer products of keys and values.

    S_t = Diag(exp g_t) S_{t-1} + k_t v_tᵀ,    o_t = scale · S_tᵀ q_t

With g absent this is linear attention (Katharopoulos et al., arXiv:2006.16236), with one decay per
head RetNet and Mamba-2 (arXiv:2307.08621, 2405.21060), with one per channel gated linear attention
(Yang et al., arXiv:2312.06635). The book writes S as d_v × d_k (arXiv:2505.19488, Eq. 1); the
code stores its transpose, [K, V].
"""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem.arguments import check_bool
from assocmem.ops import graph, inputs
from assocmem.ops.autocast import cast, without_autocast
from assocmem.ops.backend import choose
from assocmem.ops.chunks import CHUNK, groups, in_sequence, plus_recalled
from assocmem.ops.decay import decay_of, decayed
from assocmem.ops.loops import each_token
from assocmem.ops.packed import scan_sequences
from assocmem.ops.poison import known_to_be_finite, masked_product
from assocmem.ops.transforms import check_derivatives


def recurrent(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, scale: float, S: Tensor
) -> tuple[Tensor, Tensor]:
    """The definition, token by token."""
    outputs = []
    for q_t, k_t, v_t, g_t in each_token(q.to(S), k.to(S), v.to(S), g):
        S = S if g is None else decayed(S, g_t)
        S = S + k_t[..., :, None] * v_t[..., None, :]
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q_t, S))
    return torch.stack(outputs, 1), S


def chunk(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, scale: float, S: Tensor
) -> tuple[Tensor, Tensor]:
    """The same in matrix products: a loop over chunks of C tokens, none over tokens.

    Within a chunk, with Γ_ts the decay from token s to token t, γ_t from the chunk's start to t,
    and ρ_s from s to the chunk's end (book, chapter 1, eq-chunk):

        O = scale · ((Q Kᵀ ⊙ Γ) V + (γ ⊙ Q) S),    S ← γ_C S + (ρ ⊙ K)ᵀ V
    """
    B, T, H = v.shape[:3]
    if T == 1:  # decoding: a chunk costs two to three times as much
        return recurrent(q, k, v, g, scale, S)
    S = S.flatten(0, 1)
    outputs, clean = [], known_to_be_finite(v)
    for Q, K, X, G in groups(S, CHUNK, q, k, v, g):
        decay, states = decay_of(G), []
        written = decay.until_end(K).mT @ X
        for i, W in enumerate(written.unbind()):
            states.append(S)
            S = decay.over_chunk(i, S) + W
        A = decay.scores(Q, K)
        O = A @ X if clean else masked_product(A, X)
        outputs.append(plus_recalled(O, decay.since_start(Q), states).mul_(scale))
    return in_sequence(outputs, v), S.unflatten(0, (B, H))


FORMS = {"recurrent": recurrent, "chunk": chunk}
OPERATORS = {
    form: graph.scan_operator(f"linear_attention_{form}", run) for form, run in FORMS.items()
}


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
        g: natural log of the decay, `[B, T, H]` (one per head), `[B, T, H, K]` (one per channel) or
            None (no decay); at most 0 in practice; -inf clears the memory, of all but a NaN.
        scale: factor on the output, K ** -0.5 when None.
        initial_state: S before the first token, `[N, H, K, V]` (with normalize `[N, H, K, V + 1]`),
            float32, or float64 for float64 inputs; zero when None.
        output_final_state: hand back S after the last token.
        cu_seqlens: borders of N sequences packed into one batch element, int32 or int64 `[N + 1]`
            from 0 to T; sequences do not see each other. In a graph that `torch.compile` traces,
            "triton" does not check the borders.
        normalize: divide o_t by scale · q_tᵀ z_t, with z_t the decayed sum of the keys so far. It
            is what the memory would return had every value been 1, and is kept as the last column
            of S. Meant for positive features: with others the divisor can be 0.
        backend: "auto", "recurrent" (the definition), "chunk" (matrix products) or "triton", which
            in float16 overflows where a state or a product of q and k passes 65,504. Each of the
            three forms is one operator in a graph that `torch.compile` or `torch.export` traces.

    Returns:
        o `[B, T, H, V]` in v's dtype, or in that of `torch.autocast`, where it is on, and the
        final state or None.

    Raises:
        TypeError: an argument is not a tensor, or has the wrong dtype.
        ValueError: an argument has the wrong shape, device or content, or the backend is unknown.
        RuntimeError: the backend that was asked for cannot run here, or it is "triton" under
            forward-mode or `torch.func` derivatives, or its gradients are differentiated again.

    Example:
        >>> import torch
        >>> from assocmem import ops
        >>> k = torch.eye(2).view(1, 2, 1, 2)  # two tokens, one head, two orthogonal keys
        >>> v = torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)
        >>> q = k[:, [0, 0]]  # both tokens ask for the first key
        >>> o, S = ops.linear_attention(q, k, v, scale=1.0, output_final_state=True)
        >>> o.flatten(), S.shape
        (tensor([3., 3.]), torch.Size([1, 1, 2, 1]))
    """
    q, k, v = cast(q, k, v)
    inputs.check_qkv(q, k, v)
    inputs.check_gate(g, q)
    inputs.check_scale(scale)
    inputs.check_cu_seqlens(cu_seqlens, q)
    check_bool("output_final_state", output_final_state)
    check_bool("normalize", normalize)
    columns = v.shape[-1] + int(normalize)
    inputs.check_initial_state(initial_state, q, columns, cu_seqlens, "V + 1" if normalize else "V")
    backend = choose(backend, q)

    factor = inputs.factor(scale, q)
    S = inputs.empty_state(q, columns, cu_seqlens) if initial_state is None else initial_state
    x = torch.cat((v, torch.ones_like(v[..., :1])), -1) if normalize else v
    with without_autocast(q):  # the state stays in float32
        if backend == "triton":
            check_derivatives("triton", "chunk", q, k, v, g, initial_state)
            from assocmem_kernels.linear_attention import linear_attention as fused

            # The divisor must not be rounded before it divides.
            o, S = fused(q, k, x, g, factor, S, cu_seqlens, S.dtype if normalize else v.dtype)
        elif graph.in_place_of(q, cu_seqlens):
            o, S = OPERATORS[backend](q, k, x, None, g, factor, S, cu_seqlens)
        else:
            o, S = scan_sequences(FORMS[backend], (q, k, x, g), factor, S, cu_seqlens)
        if normalize:
            o = o[..., :-1] / o[..., -1:]
    return o.to(v.dtype), S if output_final_state else None
