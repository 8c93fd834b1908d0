"""Where new tokens go on after those in a cache: behind a batch, or each behind its sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from assocmem.nn.cache import padding
from assocmem.ops.packed import rows_behind, sequence_of


class Batch:
    """T new tokens of each sequence of a batch, after S of each.

    Where the batch is padded, hidden `[N, S + T]` says where it has zeros. `borders` are those of
    the cache that comes out, and `seen` the rows that the new tokens are the last of.

    Args:
        S: how many tokens the cache has of each sequence, or has room for.
        past: their borders `[N + 1]` where the batch is padded.
        x: the new tokens `[N, T, ...]`.
    """

    def __init__(self, S: int, past: Tensor | None, x: Tensor) -> None:
        self.S, self.T, self.device = S, x.shape[1], x.device
        self.seen = slice(0, S + self.T)  # not what follows on later ranks
        self.hidden = self.borders = None
        if past is not None:
            self.hidden = padding(past, S, self.T)
            self.borders = past + self.T * torch.arange(past.shape[0], device=x.device)

    def positions(self) -> Tensor:
        """How many tokens of its sequence come before each new one, `[T]` or `[N, T]`."""
        after = torch.arange(self.S, self.S + self.T, device=self.device)
        return after if self.hidden is None else after - self.hidden.sum(1, keepdim=True)

    def append(self, old: Tensor, new: Tensor) -> Tensor:
        """The tokens of a cache, then the new ones."""
        return torch.cat((old, new), 1)


class Packed:
    """New tokens of packed sequences, some of each, after some of each.

    Args:
        S: how many tokens are in the cache.
        past: their borders, `[N + 1]`.
        x: the new tokens `[1, T, ...]`.
        new: their borders, `[N + 1]`.

    `borders` are those of the cache that comes out, `order` how its tokens are taken from old and
    new, `rows` where the new ones lie.
    """

    def __init__(self, S: int, past: Tensor, x: Tensor, new: Tensor) -> None:
        self.past, self.new, self.borders = past, new, past + new
        self.order, self.rows = rows_behind(past, S, new, x.shape[1])

    def positions(self) -> Tensor:
        """How many tokens of its sequence come before each new one, `[T]`."""
        return self.rows - self.borders[sequence_of(self.new, self.rows.shape[0])]

    def append(self, old: Tensor, new: Tensor) -> Tensor:
        """Every sequence of a cache, followed by its new tokens."""
        return torch.cat((old, new), 1).index_select(1, self.order)


def following(state: Any, x: Tensor, cu_seqlens: Tensor | None, start: int = 0) -> Batch | Packed:
    """Where new tokens x `[B, T, ...]` lie, after a cache that fits them and `start` others."""
    S, past = (0, None) if state is None else (state[0].shape[1], state[-1])
    if cu_seqlens is None:
        return Batch(start + S, past, x)
    return Packed(S, torch.zeros_like(cu_seqlens) if past is None else past, x, cu_seqlens)
