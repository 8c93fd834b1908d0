"""Packed sequences: N sequences of different lengths, one after the other in one batch element."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from assocmem.ops.inputs import check_borders
from assocmem.ops.loops import each_part
from assocmem.ops.readable import without_numbers


def lengths_of(cu_seqlens: Tensor, T: int, name: str = "cu_seqlens") -> list[int]:
    """How many tokens every packed sequence has, of T in all."""
    if without_numbers(cu_seqlens):  # they hold no numbers, and any lengths give the same shapes
        borders = [0, *[T] * (cu_seqlens.shape[0] - 1)]
    else:
        borders = cu_seqlens.tolist()
    check_borders(borders, T, name)  # where a graph was traced before, they are known only here
    return [end - start for start, end in pairwise(borders)]


def sequence_of(cu_seqlens: Tensor, T: int) -> Tensor:
    """Of each of T tokens, which of the packed sequences it belongs to, `[T]`."""
    token = torch.arange(T, device=cu_seqlens.device)
    sequence = torch.searchsorted(cu_seqlens[1:].long().contiguous(), token, right=True)
    return sequence.clamp(max=cu_seqlens.shape[0] - 2)  # where borders are wrong, and not yet known


def rows_behind(first: Tensor, S: int, second: Tensor, T: int) -> tuple[Tensor, Tensor]:
    """How two packs become one, in which each sequence of the first goes on in the second.

    Args:
        first: borders of the first, with S tokens; those of both together are first + second.
        S: number of tokens.
        second: borders of the second, with T tokens.
        T: number of tokens.

    Returns:
        The order in which to take the S + T tokens, and the rows `[T]` of the second's among them.
    """
    token = torch.arange(max(S, T), device=first.device)
    before = token[:S] + second[sequence_of(first, S)]
    behind = token[:T] + first[sequence_of(second, T) + 1]
    return torch.cat((before, behind)).argsort(), behind


def scan_sequences(
    form: Callable[..., tuple[Tensor, Tensor]],
    tokens: tuple[Tensor | None, ...],
    scale: float,
    S: Tensor,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run a form of a scan on the whole batch, or on one packed sequence after the other."""
    if cu_seqlens is None:
        return _scan(form, tokens, scale, S)
    q = tokens[0]
    assert q is not None
    each = each_part(lengths_of(cu_seqlens, q.shape[1]), *tokens)
    scans = [_scan(form, own, scale, start) for own, start in zip(each, S.split(1), strict=True)]
    outputs, states = zip(*scans, strict=True)
    return torch.cat(outputs, 1), torch.cat(states)


def _scan(
    form: Callable[..., tuple[Tensor, Tensor]],
    tokens: tuple[Tensor | None, ...],
    scale: float,
    S: Tensor,
) -> tuple[Tensor, Tensor]:
    v = tokens[2]
    assert v is not None
    if v.shape[1] == 0:
        nothing = nothing_of(*tokens)
        return v + nothing + S.sum(), S + nothing
    return form(*tokens, scale, S)


def nothing_of(*tensors: Tensor | None) -> Tensor:
    """0, as the sum of no tokens, which sends gradients back to tensors `[B, T, ...]`.

    Outputs of no tokens depend on what goes in as others do, so that a loss of them has gradients.
    """
    return torch.stack([x[:, :0].sum().float() for x in tensors if x is not None]).sum()
