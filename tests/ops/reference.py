"""The recurrences in float64, written down again from their definitions.

Independent of the library: tests compare every backend with these loops.
"""

from __future__ import annotations

import torch
from torch import Tensor


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = Diag(exp g_t) S_{t-1} + k_t v_tᵀ, o_t = scale · S_tᵀ q_t, for `[B, T, H, …]`."""
    B, T, H, K = q.shape
    V = v.shape[-1]
    S = torch.zeros(B, H, K, V, dtype=q.dtype) if initial_state is None else initial_state
    o = []
    for t in range(T):
        decay = torch.ones(B, H, K, dtype=q.dtype)
        if g is not None:
            decay = torch.exp(g[:, t] if g.ndim == 4 else g[:, t, :, None]) * decay
        S = torch.einsum("bhk,bhkv->bhkv", decay, S) + torch.einsum(
            "bhk,bhv->bhkv", k[:, t], v[:, t]
        )
        o.append((K**-0.5 if scale is None else scale) * torch.einsum("bhkv,bhk->bhv", S, q[:, t]))
    return torch.stack(o, 1) if o else v, S


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None = None,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = (I − β_t k_t k_tᵀ) Diag(exp g_t) S_{t-1} + β_t k_t v_tᵀ, o_t = scale · S_tᵀ q_t."""
    B, T, H, K = q.shape
    V = v.shape[-1]
    S = torch.zeros(B, H, K, V, dtype=q.dtype) if initial_state is None else initial_state
    o = []
    for t in range(T):
        if g is not None:
            S = torch.exp(g[:, t] if g.ndim == 4 else g[:, t, :, None])[..., None] * S
        k_t, beta_t = k[:, t, :, :, None], beta[:, t, :, None, None]
        transition = torch.eye(K, dtype=q.dtype) - beta_t * k_t * k_t.mT
        S = transition @ S + beta_t * k_t * v[:, t, :, None, :]
        read = (S.mT @ q[:, t, :, :, None])[..., 0]
        o.append((K**-0.5 if scale is None else scale) * read)
    return torch.stack(o, 1) if o else v, S


def relative_error(x: Tensor, reference: Tensor) -> float:
    """‖x − reference‖ / ‖reference‖ in float64."""
    difference = x.double() - reference.double()
    return float(difference.norm() / reference.double().norm().clamp_min(1e-300))
