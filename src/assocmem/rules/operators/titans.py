"""Titans with a linear memory: steps along the gradient, with momentum."""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem.ops import inputs
from assocmem.ops.autocast import cast, without_autocast
from assocmem.ops.decay import decayed
from assocmem.ops.loops import each_token
from assocmem.rules.operators.recurrent import joined, states


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
