"""Mesa: at every token the least-squares fit of all pairs so far."""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem.ops import inputs
from assocmem.ops.autocast import cast, without_autocast
from assocmem.ops.decay import decayed
from assocmem.ops.loops import each_token
from assocmem.ops.readable import known
from assocmem.rules.operators.recurrent import joined, states


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
