"""A sequence in chunks: how they are laid out for products of matrices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from assocmem.ops.loops import each_part

CHUNK = 64  # on CPU 32 to 128 are equally fast, and larger tiles leave the cache
GROUP = 256  # tokens whose products are taken together: few calls, and all operands in the cache


def groups(S: Tensor, C: int, *sequences: Tensor | None) -> Iterator[list[Any]]:
    """Sequences `[B, T, ...]` in groups of chunks `[n, B H, C, ...]`; None stays None.

    They have the state's dtype, and a chunk has C tokens, but for what remains at the end.
    """
    T = next(x.shape[1] for x in sequences if x is not None)
    sizes = list(spans(T, C))
    parts = each_part([n * C for n, C in sizes], *sequences)
    for (_, C), group in zip(sizes, parts, strict=True):
        yield [None if x is None else in_chunks(x, C, S) for x in group]


def spans(T: int, C: int) -> Iterator[tuple[int, int]]:
    """Groups of chunks that cover T tokens, as (chunks, tokens per chunk), a shorter one last."""
    while T:
        C = min(C, T)
        n = min(GROUP, T) // C
        yield n, C
        T -= n * C


def heads_first(x: Tensor, S: Tensor) -> Tensor:
    """From `[B, C, H, ...]` to `[B H, C, ...]` in the state's dtype.

    Always laid out alike, or a sum would take its terms in another order when B is 1, and a graph
    would not know the layout of what follows.
    """
    return x.to(S).transpose(1, 2).flatten(0, 1).contiguous()


def in_chunks(x: Tensor, C: int, S: Tensor) -> Tensor:
    """From `[B, n C, H, ...]` to `[n, B H, C, ...]` in the state's dtype, always laid out alike."""
    x = x.to(S).unflatten(1, (x.shape[1] // C, C)).movedim((1, 3), (0, 2))  # [n, B, H, C, ...]
    return x.flatten(1, 2).contiguous()


def in_sequence(outputs: list[Tensor], v: Tensor) -> Tensor:
    """From groups `[n, B H, C, V]` back to `[B, T, H, V]` like v, in one copy if all share C."""
    B, _, H, _ = v.shape
    outputs = [x.unflatten(1, (B, H)).movedim((0, 2), (1, 3)) for x in outputs]  # [B, n, C, H, V]
    alike = [x for x in outputs if x.shape[2] == outputs[0].shape[2]]
    rest = outputs[len(alike) :]
    sequences = [torch.cat(x, 1).flatten(1, 2) for x in (alike, rest) if x]
    return torch.cat(sequences, 1) if len(sequences) > 1 else sequences[0]


def plus_recalled(O: Tensor, Q: Tensor, states: list[Tensor]) -> Tensor:
    """O + Q S for n chunks `[n, B H, C, ...]`, each with the state `[B H, K, V]` that it found."""
    O = torch.baddbmm(O.flatten(0, 1), Q.flatten(0, 1), torch.cat(states))
    return O.unflatten(0, (len(states), -1))
