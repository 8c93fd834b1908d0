"""How operators that go token by token with two states begin and end."""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem.ops import inputs
from assocmem.ops.packed import nothing_of


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
