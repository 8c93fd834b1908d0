"""Packed sequences: N sequences of different lengths, one behind the other in one batch element."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from assocmem.ops.inputs import check_borders


def rows_of(cu_seqlens: Tensor, T: int) -> list[slice]:
    """The tokens of every packed sequence, of T tokens in all."""
    borders = cu_seqlens.tolist()
    check_borders(borders, T)  # where a graph was traced before, only here they are known
    return [slice(start, end) for start, end in pairwise(borders)]


def over_sequences(
    read: Callable[..., Tensor], tokens: tuple[Tensor | None, ...], cu_seqlens: Tensor | None
) -> Tensor:
    """Run an operator without a state on the whole batch, or on each packed sequence."""
    if cu_seqlens is None:
        return read(*tokens)
    T = next(x.shape[1] for x in tokens if x is not None)
    pieces = [
        read(*(None if x is None else x[:, rows] for x in tokens))
        for rows in rows_of(cu_seqlens, T)
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
    for n, rows in enumerate(rows_of(cu_seqlens, tokens[0].shape[1])):
        o, final = form(
            *(x[:, rows] for x in tokens), None if g is None else g[:, rows], scale, S[n : n + 1]
        )
        outputs.append(o)
        states.append(final)
    return torch.cat(outputs, 1), torch.cat(states)
