"""Longhorn: implicit steps, as the delta rule with other step sizes."""

from __future__ import annotations

from torch import Tensor

from assocmem import ops
from assocmem.ops import inputs
from assocmem.ops.autocast import cast
from assocmem.ops.readable import known
from assocmem.rules.solving import proximal_rate


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
