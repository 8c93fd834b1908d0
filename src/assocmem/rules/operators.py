"""Rules as sequence operators: DeltaProduct, Longhorn and, in recurrent form, Titans and Mesa.

They take q, k, v as the operators of `assocmem.ops` do, and give back the output and the state. The
first two are the delta rule with other keys or step sizes, and run as `ops.delta_rule` does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem import ops
from assocmem.ops import inputs
from assocmem.ops.autocast import cast, without_autocast
from assocmem.ops.decay import decayed
from assocmem.ops.loops import each_token
from assocmem.ops.packed import nothing_of
from assocmem.ops.readable import known
from assocmem.rules.solving import proximal_rate


def delta_product(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None = None,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Read, at every token, a memory that n corrections have changed since the last.

    S ← (I − β_tj k_tj k_tjᵀ) S + β_tj k_tj v_tjᵀ for j = 1 … n,  o_t = scale · S_tᵀ q_t
    (DeltaProduct, arXiv:2502.10297). It is `ops.delta_rule` on a sequence n times as long.

    Args:
        q: queries `[B, T, H, K]`.
        k: keys `[B, T, n, H, K]`.
        v: values `[B, T, n, H, V]`.
        beta: step sizes `[B, T, n, H]`.
        g: natural log of the decay before a token's first correction, `[B, T, H]` or
            `[B, T, H, K]`, or None.
        scale: factor on the output, K ** -0.5 when None.
        initial_state: S before the first token, `[N, H, K, V]`; zero when None.
        cu_seqlens: borders of N packed sequences, in tokens, as in `ops.delta_rule`.
        backend: as in `ops.delta_rule`.

    Returns:
        o `[B, T, H, V]`, and the final state `[N, H, K, V]` (N = B without cu_seqlens).

    Raises:
        TypeError: an argument is not a tensor, or has the wrong dtype.
        ValueError: an argument has the wrong shape, device or content, or n = 0.
        RuntimeError: as in `ops.delta_rule`.

    Example:
        >>> import torch
        >>> from assocmem import rules
        >>> q, v = torch.ones(1, 1, 1, 1), torch.tensor([3.0, 5.0]).view(1, 1, 2, 1, 1)
        >>> k, beta = torch.ones(1, 1, 2, 1, 1), torch.ones(1, 1, 2, 1)  # two corrections
        >>> o, _ = rules.delta_product(q, k, v, beta, scale=1.0)
        >>> o.item()
        5.0
    """
    inputs.check_like_q("q", q, q)
    for name, x in (("k", k), ("v", v), ("beta", beta)):
        inputs.check_tensor(name, x)
    B, T, H, K = q.shape
    if k.ndim != 5 or k.shape[2] == 0 or k[:, :, 0].shape != q.shape:
        raise ValueError(
            f"k must have shape [B, T, n, H, K] = [{B}, {T}, n, {H}, {K}] like q, with n >= 1, "
            f"got {list(k.shape)}"
        )
    n = k.shape[2]
    inputs.check_cu_seqlens(cu_seqlens, q)
    if v.ndim != 5 or v.shape[:4] != k.shape[:4]:
        raise ValueError(
            f"v must have shape [B, T, n, H, V] = [{B}, {T}, {n}, {H}, V] like k, "
            f"got {list(v.shape)}"
        )
    if beta.shape != k.shape[:4]:
        raise ValueError(
            f"beta must have shape [B, T, n, H] = {list(k.shape[:4])} like k, "
            f"got {list(beta.shape)}"
        )
    if g is not None:
        inputs.check_gate(g, q)
        later = g.new_zeros(*g.shape[:2], n - 1, *g.shape[2:])
        g = torch.cat((g[:, :, None], later), 2).flatten(1, 2)
    o, S = ops.delta_rule(
        q.repeat_interleave(n, 1),
        k.flatten(1, 2),
        v.flatten(1, 2),
        beta.flatten(1, 2),
        g,
        scale=scale,
        initial_state=initial_state,
        output_final_state=True,
        cu_seqlens=None if cu_seqlens is None else n * cu_seqlens,
        backend=backend,
    )
    assert S is not None  # asked for above
    return o[:, n - 1 :: n], S


def longhorn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Read, at every token, a memory that each write changes by an implicit step.

    S_t = argmin_X ‖X − S_{t-1}‖² + β_t ‖Xᵀk_t − v_t‖²,  o_t = scale · S_tᵀ q_t
    (arXiv:2407.14207, with k kᵀ in full, where the released model keeps its diagonal). It is
    `ops.delta_rule` with the step sizes δ_t = β_t/(1 + β_t ‖k_t‖²).

    Args:
        q: queries `[B, T, H, K]`.
        k: keys `[B, T, H, K]`, of any length.
        v: values `[B, T, H, V]`.
        beta: step sizes `[B, T, H]`, at least 0.
        scale: factor on the output, K ** -0.5 when None.
        initial_state: S before the first token, `[N, H, K, V]`; zero when None.
        cu_seqlens: borders of N packed sequences, in tokens, as in `ops.delta_rule`.
        backend: as in `ops.delta_rule`.

    Returns:
        o `[B, T, H, V]`, and the final state `[N, H, K, V]` (N = B without cu_seqlens).

    Raises:
        TypeError: an argument is not a tensor, or has the wrong dtype.
        ValueError: an argument has the wrong shape, device or content.
        RuntimeError: as in `ops.delta_rule`.

    Example:
        >>> import torch
        >>> from assocmem import rules
        >>> k = torch.ones(1, 1, 1, 1)
        >>> o, _ = rules.longhorn(k, k, 3 * k, torch.ones(1, 1, 1), scale=1.0)
        >>> o.item()  # an implicit step of size 1 goes half of the way
        1.5
    """
    q, k, v = cast(q, k, v)
    inputs.check_qkv(q, k, v)
    inputs.check_beta(beta, q)
    if known(lambda: bool((beta < 0).any()), beta):
        raise ValueError(f"beta must be at least 0, got a minimum of {beta.min().item()}")
    o, S = ops.delta_rule(
        q,
        k,
        v,
        proximal_rate(beta, k),
        scale=scale,
        initial_state=initial_state,
        output_final_state=True,
        cu_seqlens=cu_seqlens,
        backend=backend,
    )
    assert S is not None  # asked for above
    return o, S


def titans(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    momentum: Tensor,
    g: Tensor | None = None,
    *,
    scale: float | None = None,
    initial_state: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Read, at every token, a memory that follows its error's gradient with momentum.

    M_t = μ_t M_{t-1} + 2 β_t k_t (v_t − S_{t-1}ᵀ k_t)ᵀ,  S_t = exp(g_t) S_{t-1} + M_t,
    o_t = scale · S_tᵀ q_t  (Titans with a linear memory, arXiv:2501.00663).

    Args:
        q: queries `[B, T, H, K]`.
        k: keys `[B, T, H, K]`.
        v: values `[B, T, H, V]`.
        beta: step sizes `[B, T, H]`.
        momentum: factor μ on the last step, `[B, T, H]`.
        g: natural log of the decay `[B, T, H]`, or None (no decay).
        scale: factor on the output, K ** -0.5 when None.
        initial_state: (S, M) before the first token, each `[B, H, K, V]`; zeros when None.

    Returns:
        o `[B, T, H, V]` in v's dtype, and the final (S, M).

    Raises:
        TypeError: an argument is not a tensor, or has the wrong dtype.
        ValueError: an argument has the wrong shape or device.

    Example:
        >>> import torch
        >>> from assocmem import rules
        >>> k, half = torch.ones(1, 2, 1, 1), torch.full((1, 2, 1), 0.5)
        >>> o, _ = rules.titans(k, k, 3 * k, half, half, scale=1.0)
        >>> o.flatten()  # the momentum of the first step carries the second beyond 3
        tensor([3.0000, 4.5000])
    """
    q, k, v = cast(q, k, v)
    inputs.check_qkv(q, k, v)
    inputs.check_beta(beta, q)
    inputs.check_per_head("momentum", momentum, q)
    inputs.check_head_gate(g, q)
    inputs.check_scale(scale)
    S, M = states(initial_state, q, v.shape[-1], v.shape[-1])
    sequences = (x.to(S) for x in (q, k, v, beta, momentum))
    outputs = []
    with without_autocast(q):  # the states stay in float32
        for q_t, k_t, v_t, b, mu, g_t in each_token(*sequences, g):
            error = v_t - torch.einsum("bhk,bhkv->bhv", k_t, S)
            M = mu[..., None, None] * M
            M = M + 2 * b[..., None, None] * k_t[..., :, None] * error[..., None, :]
            S = (S if g is None else decayed(S, g_t)) + M
            outputs.append(torch.einsum("bhk,bhkv->bhv", q_t, S))
    return joined(outputs, scale, v, q, k, beta, momentum, g), (S, M)


def mesa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ridge: Tensor,
    g: Tensor | None = None,
    *,
    scale: float | None = None,
    initial_state: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Read, at every token, the memory that best fits all pairs so far.

    G_t = exp(g_t) G_{t-1} + k_t v_tᵀ,  H_t = exp(g_t) H_{t-1} + k_t k_tᵀ,
    o_t = scale · G_tᵀ (H_t + Λ)⁻¹ q_t  (MesaNet, arXiv:2506.05233).

    The model weighs a pair by a gate β_t ≥ 0: multiply its key and its value by √β_t.

    Args:
        q: queries `[B, T, H, K]`.
        k: keys `[B, T, H, K]`.
        v: values `[B, T, H, V]`.
        ridge: Λ, one positive number per channel, `[H, K]`. Below 1e-7 of the largest eigenvalue of
            H, it is lost in the state's float32 (1e-16 in float64), and H + Λ may have no inverse.
        g: natural log of the decay `[B, T, H]`, or None (no decay).
        scale: factor on the output, 1 when None: the reading is a fit, not a sum.
        initial_state: (G, H) before the first token, `[B, H, K, V]` and `[B, H, K, K]`; zeros when
            None.

    Returns:
        o `[B, T, H, V]` in v's dtype, and the final (G, H).

    Raises:
        TypeError: an argument is not a tensor, or has the wrong dtype.
        ValueError: an argument has the wrong shape, device or content.

    Example:
        >>> import torch
        >>> from assocmem import rules
        >>> k, v = torch.ones(1, 2, 1, 1), torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)
        >>> o, _ = rules.mesa(k, k, v, ridge=torch.tensor([[1e-6]]))
        >>> o.flatten()  # least squares: the mean of both
        tensor([3.0000, 4.0000])
    """
    q, k, v = cast(q, k, v)
    inputs.check_qkv(q, k, v)
    inputs.check_head_gate(g, q)
    inputs.check_scale(scale)
    inputs.check_floating("ridge", ridge, q)
    if ridge.shape != q.shape[2:]:
        raise ValueError(
            f"ridge must have shape [H, K] = {list(q.shape[2:])} like q, got {list(ridge.shape)}"
        )
    dtype = inputs.state_dtype(q)
    if known(lambda: not (ridge.to(dtype) > 0).all(), ridge):
        raise ValueError(
            f"ridge must be positive in {dtype}, got a minimum of {ridge.min().item()}"
        )
    G, H = states(initial_state, q, v.shape[-1], q.shape[-1])
    Lambda = torch.diag_embed(ridge.to(G))
    outputs = []
    with without_autocast(q):  # the states stay in float32
        for q_t, k_t, v_t, g_t in each_token(q.to(G), k.to(G), v.to(G), g):
            if g is not None:
                G, H = decayed(G, g_t), decayed(H, g_t)
            G = G + k_t[..., :, None] * v_t[..., None, :]
            H = H + k_t[..., :, None] * k_t[..., None, :]
            x = torch.linalg.solve(H + Lambda, q_t[..., None])  # H + Λ is symmetric
            outputs.append((G.mT @ x)[..., 0])
    return joined(outputs, 1.0 if scale is None else scale, v, q, k, ridge, g), (G, H)


def states(
    initial_state: tuple[Tensor, Tensor] | None, q: Tensor, *columns: int
) -> tuple[Tensor, ...]:
    """The two states `[B, H, K, columns]` that an operator begins with, checked."""
    if initial_state is None:
        return tuple(inputs.empty_state(q, n, None) for n in columns)
    if not isinstance(initial_state, (tuple, list)) or len(initial_state) != len(columns):
        kind = type(initial_state).__name__
        raise TypeError(f"initial_state must be a pair of states or None, got {kind}")
    for S, n in zip(initial_state, columns, strict=True):
        inputs.check_tensor("initial_state", S)
        inputs.check_initial_state(S, q, n, None, str(n))
    return tuple(initial_state)


def joined(
    outputs: list[Tensor], scale: float | None, v: Tensor, q: Tensor, *others: Tensor | None
) -> Tensor:
    """The outputs of all tokens, scaled, `[B, T, H, V]` in v's dtype."""
    if not outputs:
        return v + nothing_of(q, *others)
    return (inputs.factor(scale, q) * torch.stack(outputs, 1)).to(v.dtype)
