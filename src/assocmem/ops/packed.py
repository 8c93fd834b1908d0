"""Packed sequences: N sequences of different lengths, one behind the other in one batch element."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor


def rows_of(cu_seqlens: Tensor) -> list[slice]:
    """The tokens of every packed sequence."""
    return [slice(start, end) for start, end in pairwise(cu_seqlens.tolist())]


def over_sequences(
    read: Callable[..., Tensor], tokens: tuple[Tensor | None, ...], cu_seqlens: Tensor | None
) -> Tensor:
    """Run an operator without a state on the whole batch, or on each packed sequence."""
    if cu_seqlens is None:
        return read(*tokens)
    pieces = [
        read(*(None if x is None else x[:, rows] for x in tokens)) for rows in rows_of(cu_seqlens)
    ]
    return torch.cat(pieces, 1)


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
        o, final = form(*tokens, g, scale, S)
        # Without tokens it is still the caller's own.
        return o, final.clone() if o.shape[1] == 0 else final
    outputs, states = [], []
    for n, rows in enumerate(rows_of(cu_seqlens)):
        o, final = form(
            *(x[:, rows] for x in tokens), None if g is None else g[:, rows], scale, S[n : n + 1]
        )
        outputs.append(o)
        states.append(final)
    return torch.cat(outputs, 1), torch.cat(states)
