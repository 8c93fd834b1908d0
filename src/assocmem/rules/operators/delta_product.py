"""DeltaProduct: several corrections a token, as the delta rule on a longer sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem import ops
from assocmem.ops import inputs


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
