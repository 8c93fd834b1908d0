"""Packed sequences: N sequences of different lengths, one behind the other in one batch element."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def each_sequence(
    form: Callable[..., tuple[Tensor, Tensor]],
    tokens: tuple[Tensor, ...],
    g: Tensor | None,
    scale: float,
    S: Tensor,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run a form of an operator on the whole batch, or on one packed sequence after the other."""
    if cu_seqlens is None:
        return form(*tokens, g, scale, S)
    borders = cu_seqlens.tolist()
    outputs, states = [], []
    for n in range(len(borders) - 1):
        rows = slice(borders[n], borders[n + 1])
        o, final = form(
            *(x[:, rows] for x in tokens), None if g is None else g[:, rows], scale, S[n : n + 1]
        )
        outputs.append(o)
        states.append(final)
    return torch.cat(outputs, 1), torch.cat(states)
