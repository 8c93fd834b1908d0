"""Sequences taken apart before a loop goes through them.

The gradient of a slice is as long as the sequence, nearly all of it zeros. A loop that takes slices
has a backward pass whose time grows like T²; what is taken apart once gets its gradient in one
piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor


def each_token(*sequences: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """The tokens of sequences `[B, T, ...]`, one after the other; None stays None."""
    return side_by_side(lambda x: x.unbind(1), sequences)


def each_part(lengths: list[int], *sequences: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Parts of given lengths of sequences `[B, T, ...]`, in order; None stays None."""
    return side_by_side(lambda x: x.split(lengths, 1), sequences)


def side_by_side(
    apart: Callable[[Tensor], Sequence[Tensor]], sequences: tuple[Tensor | None, ...]
) -> Iterator[tuple[Any, ...]]:
    """What `apart` makes of every sequence, in step."""
    parts = [None if x is None else apart(x) for x in sequences]
    n = next(len(x) for x in parts if x is not None)
    return zip(*([None] * n if x is None else x for x in parts), strict=True)
