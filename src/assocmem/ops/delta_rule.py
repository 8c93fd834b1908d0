"""The delta rule: a memory that corrects what it recalls for a key towards that key's value.

    S_t = (I − β_t k_t k_tᵀ) Diag(exp g_t) S_{t-1} + β_t k_t v_tᵀ,    o_t = scale · S_tᵀ q_t

With g absent this is DeltaNet (Schlag et al., arXiv:2102.11174; Yang et al., arXiv:2406.06484),
with one decay per head Gated DeltaNet (Yang et al., arXiv:2412.06464), with one per channel Kimi
Delta Attention (Kimi Team, arXiv:2510.26692). The same in two steps, on the decayed memory S:

    u_t = β_t (v_t − Sᵀ k_t),    S_t = S + k_t u_tᵀ

So it is linear attention of the corrections u_t in place of the values v_t.
"""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem.arguments import check_bool
from assocmem.ops import graph, inputs
from assocmem.ops.autocast import cast, without_autocast
from assocmem.ops.backend import choose
from assocmem.ops.chunks import groups, in_sequence, plus_recalled
from assocmem.ops.decay import decay_of, decayed
from assocmem.ops.loops import each_token
from assocmem.ops.packed import scan_sequences
from assocmem.ops.poison import known_to_be_finite, masked_product
from assocmem.ops.readable import known
from assocmem.ops.transforms import check_derivatives
from assocmem.ops.triangular import solve, solve_around_poison, wide

CHUNK = 32  # the time for its system and the errors of gradients grow with it
ABOUT_ONE = 1.01  # a length of 1 is at most 1.004 after rounding to bfloat16


def recurrent(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor | None, scale: float, S: Tensor
) -> tuple[Tensor, Tensor]:
    """The definition, token by token."""
    outputs = []
    for q_t, k_t, v_t, β, g_t in each_token(q.to(S), k.to(S), v.to(S), beta.to(S), g):
        S = S if g is None else decayed(S, g_t)
        recalled = torch.einsum("bhk,bhkv->bhv", k_t, S)
        u = β[..., None] * (v_t - recalled)
        S = S + k_t[..., :, None] * u[..., None, :]
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q_t, S))
    return torch.stack(outputs, 1), S


def chunk(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor | None, scale: float, S: Tensor
) -> tuple[Tensor, Tensor]:
    """The same in matrix products: a loop over chunks of C tokens, none over tokens.

    Within a chunk the corrections solve a triangular system. With Γ_ts the decay from token s to
    token t, γ_t from the chunk's start to t, and ρ_s from s to the chunk's end (book, chapter 6,
    eq-delta-chunk):

        (I + strict_lower(β ⊙ K Kᵀ ⊙ Γ)) U = β ⊙ (V − (γ ⊙ K) S)
        O = scale · ((Q Kᵀ ⊙ Γ) U + (γ ⊙ Q) S),    S ← γ_C S + (ρ ⊙ K)ᵀ U
    """
    B, T, H = v.shape[:3]
    if T == 1:  # decoding: a chunk costs three to four times as much
        return recurrent(q, k, v, beta, g, scale, S)
    S = S.flatten(0, 1)
    clean = known_to_be_finite(k, v, beta.to(S), *(() if g is None else (g.to(S).exp(),)))
    fading = errors_fade(k, beta, g, S.dtype, clean)
    # Where errors need not fade, the system is built and solved in float64. Equal keys have equal
    # scores, and with β near 2 the same rounding error in every score would add up over the
    # sequence. What it gives is also read in float64, as it amplifies errors of its gradient.
    precision = S.dtype if fading else wide(S[:0]).dtype
    solved, product = (solve, torch.matmul) if clean else (solve_around_poison, masked_product)
    outputs = []
    for Q, K, X, β, G in groups(S, CHUNK, q, k, v, beta[..., None], g):
        decay = decay_of(None if G is None else G.to(precision))
        keys, β = K.to(precision), β.to(precision)
        L = β * decay.scores(keys, keys)
        # U = M (V − (γ ⊙ K) S)
        M = solved(L, β.squeeze(-1).diag_embed())
        chunks = zip(*(x.unbind() for x in (K, decay.since_start(K), X, M)), strict=True)
        states, corrections = [], []
        for i, (K_i, K_in, X_i, M_i) in enumerate(chunks):
            states.append(S)
            D = torch.baddbmm(X_i, K_in, S, alpha=-1)
            U = product(M_i, D.to(precision))
            corrections.append(U)
            S = decay.written(i, S, K_i, U.to(S))
        O = product(decay.scores(Q, K).to(precision), torch.stack(corrections)).to(S)
        outputs.append(plus_recalled(O, decay.since_start(Q), states).mul_(scale))
    return in_sequence(outputs, v), S.unflatten(0, (B, H))


def errors_fade(k: Tensor, beta: Tensor, g: Tensor | None, dtype: torch.dtype, clean: bool) -> bool:
    """Whether 0 ≤ β_t ≤ 1, ‖k_t‖ ≤ 1 and g_t ≤ 0 at every token, so that errors hardly add up.

    Let a write find the memory S + E, and be off by δ in what its key recalls. It leaves
    E − β k (Eᵀ k + δ)ᵀ, whose square is at most ‖E‖² + β ‖δ‖² / (2 − a) for a = β ‖k‖². Up to
    a = 1 a write adds no more than β ‖δ‖², and what lies along its key is multiplied by 1 − a.
    Both factors of a are bounded, as the gradient of β has β² in it, which would overflow where
    tiny keys have huge step sizes.

    In float32 the chunk form is then about as exact as the recurrence, for keys of any kind from
    K = 16 on. It is not for values of very different sizes: of one that is 10⁴ times as large as
    those after it, under the same key, 10⁻⁸ remains, 20 times as much as in the recurrence.

    `clean` says that no token holds a NaN or infinity. Where one may, it counts as 0 here: it must
    not change a digit of what it does not reach.
    """
    tokens = [x for x in (k, beta, g) if x is not None]

    def answer() -> bool:
        rounded = (x.detach().to(dtype) for x in tokens)
        keys, β, *logs = rounded if clean else (x.nan_to_num(0.0, 0.0, 0.0) for x in rounded)
        lengths = torch.linalg.vector_norm(keys, dim=-1)
        fade = (lengths <= ABOUT_ONE, β >= 0, β <= 1, *(x <= 0 for x in logs))
        return bool(torch.stack([x.all() for x in fade]).all())

    return known(answer, *tokens)


FORMS = {"recurrent": recurrent, "chunk": chunk}
OPERATORS = {name: graph.scan_operator(f"delta_rule_{name}", form) for name, form in FORMS.items()}


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None = None,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Read, at every token, a memory in which each write corrects what its key recalls.

    S_t = (I − β_t k_t k_tᵀ) Diag(exp g_t) S_{t-1} + β_t k_t v_tᵀ,  o_t = scale · S_tᵀ q_t
    (arXiv:2406.06484; with g arXiv:2412.06464 and arXiv:2510.26692).

    Args:
        q: queries `[B, T, H, K]`.
        k: keys `[B, T, H, K]`, as they are: for a stable memory β_t ‖k_t‖² must lie in [0, 2], so
            normalise them to length 1.
        v: values `[B, T, H, V]`.
        beta: step sizes β `[B, T, H]`: 0 writes nothing, 1 replaces what a key of length 1 recalls,
            2 mirrors it.
        g: natural log of the decay, `[B, T, H]` (one per head), `[B, T, H, K]` (one per channel) or
            None (no decay); at most 0 in practice; -inf clears the memory, of all but a NaN.
        scale: factor on the output, K ** -0.5 when None.
        initial_state: S before the first token, `[N, H, K, V]`, float32, or float64 for float64
            inputs; zero when None.
        output_final_state: hand back S after the last token.
        cu_seqlens: borders of N sequences packed into one batch element, int32 or int64 `[N + 1]`
            from 0 to T; sequences do not see each other. In a graph that `torch.compile` traces,
            "triton" does not check the borders.
        backend: "auto", "recurrent" (the definition), "chunk" (matrix products, in part in float64
            if any β_t or ‖k_t‖ exceeds 1 or a memory grows) or "triton", which in float16 overflows
            where a state or a product of q and k passes 65,504. Each of the three forms is one
            operator in a graph that `torch.compile` or `torch.export` traces.

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
        >>> k = torch.ones(1, 2, 1, 1)  # one key, written twice
        >>> v = torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)
        >>> beta = torch.ones(1, 2, 1)
        >>> o, _ = ops.delta_rule(k, k, v, beta, scale=1.0)
        >>> o.flatten()  # the second value replaces the first; linear attention reads 8
        tensor([3., 5.])
    """
    q, k, v = cast(q, k, v)
    inputs.check_qkv(q, k, v)
    inputs.check_beta(beta, q)
    inputs.check_gate(g, q)
    inputs.check_scale(scale)
    inputs.check_cu_seqlens(cu_seqlens, q)
    check_bool("output_final_state", output_final_state)
    inputs.check_initial_state(initial_state, q, v.shape[-1], cu_seqlens)
    backend = choose(backend, q)

    factor = inputs.factor(scale, q)
    S = inputs.empty_state(q, v.shape[-1], cu_seqlens) if initial_state is None else initial_state
    with without_autocast(q):  # the state stays in float32
        if backend == "triton":
            check_derivatives("triton", "chunk", q, k, v, beta, g, initial_state)
            from assocmem_kernels.delta_rule import delta_rule as fused

            o, S = fused(q, k, v, beta, g, factor, S, cu_seqlens)
        elif graph.in_place_of(q, cu_seqlens):
            o, S = OPERATORS[backend](q, k, v, beta, g, factor, S, cu_seqlens)
        else:
            o, S = scan_sequences(FORMS[backend], (q, k, v, beta, g), factor, S, cu_seqlens)
    return o.to(v.dtype), S if output_final_state else None
