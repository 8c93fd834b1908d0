"""What layers that keep every token share: a cache that fits, and where new tokens follow it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from assocmem.arguments import check_floats
from assocmem.nn.mixer import Mixer, check_parts
from assocmem.ops.inputs import check_packed
from assocmem.ops.packed import rows_behind, rows_of, sequence_of


def checked_cache(state: Any, new: Any) -> Any:
    """A cache as it fits new tokens: packed where these are, of as many sequences.

    A cache is a tuple of tensors `[B, S, ...]`, or None, that keep something of every token; the
    last of them, cu_seqlens, has the borders of packed sequences, or is None.

    Raises:
        TypeError, ValueError: when it is another kind of state, its parts differ in S, they differ
            from the new ones in more than S and T, or its borders are no borders.
    """
    fields = type(new)._fields  # of the class: torch 2.6 cannot count or cut a tuple that it traces
    check_parts(state, fields)
    check_tensors(state, fields)
    check_packed(state[-1], new[0], "x")
    if new.cu_seqlens is not None:
        state = packed(state)
        N, came = new.cu_seqlens.shape[0] - 1, state[-1].shape[0] - 1
        if came != N:
            raise ValueError(f"state must be of N = {N} sequences like cu_seqlens, got {came}")
    for name, old, x in zip(fields, state, new, strict=True):
        if name != "cu_seqlens" and not alike(old, x):
            raise ValueError(f"state must have {name} = {described(x)}, got {described(old)}")
    return type(new)(*state)


def check_tensors(state: Any, fields: tuple[str, ...]) -> None:
    """Raise unless the parts of a cache are tensors `[B, S, ...]` of the same B and S, or None."""
    first = None
    for name, x in zip(fields, state, strict=True):
        if name == "cu_seqlens" or x is None:
            continue
        if not isinstance(x, Tensor) or x.ndim < 3:
            what = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"state must have {name} = a tensor [B, S, ...], got {what}")
        first = x if first is None else first
        if x.shape[0] != first.shape[0] or x.shape[1] != first.shape[1]:
            raise ValueError(
                f"state must keep the same tokens in all its parts, got {name} "
                f"{list(x.shape[:2])} beside {list(first.shape[:2])}"
            )
    if first is None:
        raise ValueError(f"state must have {fields[0]} = a tensor [B, S, ...], got None")


def is_packed(state: Any, kind: type) -> bool:
    """Whether a state is a cache of this kind, and of packed sequences."""
    return (
        isinstance(state, tuple)
        and len(state) == len(kind._fields)
        and isinstance(state[-1], Tensor)
    )


def packed(state: Any) -> Any:
    """A cache of B sequences of S tokens as one of packed sequences, which it may be already."""
    *parts, borders = state
    if borders is not None:
        return state
    B, S = parts[0].shape[:2]
    borders = S * torch.arange(B + 1, device=parts[0].device)
    return *(None if x is None else x.flatten(0, 1)[None] for x in parts), borders


def alike(old: Tensor | None, new: Tensor | None) -> bool:
    """Whether two tensors `[B, S, ...]` differ in S at most, or are both None."""
    if old is None or new is None:
        return old is new
    return (old.dtype, old.device, old.ndim) == (new.dtype, new.device, new.ndim) and (
        (old.shape[0], *old.shape[2:]) == (new.shape[0], *new.shape[2:])
    )


def described(x: Tensor | None) -> str:
    """A tensor `[B, S, ...]` in words, without S."""
    if x is None:
        return "None"
    sizes = ", ".join(map(str, (*x.shape[:1], "S", *x.shape[2:])))
    return f"{x.dtype} [{sizes}] on {x.device}"


def after_packed(layer: Mixer, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """A batch of tokens `[N, T, d_model]` after a cache of N packed sequences: T for each.

    Raises:
        ValueError: when x is of another number of sequences.
    """
    check_floats(x=x)
    check_packed(state[-1], x[:1], "x")
    N = state[-1].shape[0] - 1
    if x.ndim != 3 or x.shape[0] != N or x.shape[2] != layer.d_model:
        raise ValueError(
            f"x must have shape [N, T, d_model] with N = {N} like the state and "
            f"d_model = {layer.d_model}, got {list(x.shape)}"
        )
    borders = x.shape[1] * torch.arange(N + 1, device=x.device)
    # Not the layer itself, whose hooks run already.
    y, state = layer.forward(x.flatten(0, 1)[None], state, cu_seqlens=borders)
    return y.reshape(x.shape), state


# The rows of one sequence, or of all in a batch: in a cache, in new tokens, and in both. (Of a
# NamedTuple `torch.compile` would fix the numbers, and trace every step of decoding anew.)
Span = tuple[slice, slice, slice]


class Batch:
    """T new tokens of each sequence of a batch, after S of each.

    `borders` are those of the packed sequences in the cache that comes out.
    """

    borders = None

    def __init__(self, S: int, x: Tensor) -> None:
        self.S, self.T, self.device = S, x.shape[1], x.device

    def spans(self) -> list[Span]:
        """The rows of every sequence; here of all at once."""
        S, T = self.S, self.T
        return [(slice(0, S), slice(0, T), slice(0, S + T))]

    def positions(self) -> Tensor:
        """How many tokens of its sequence come before each new one, `[T]`."""
        return torch.arange(self.S, self.S + self.T, device=self.device)

    def join(self, old: Tensor, new: Tensor) -> Tensor:
        """The tokens of a cache, then the new ones."""
        return torch.cat((old, new), 1)


class Packed:
    """New tokens of packed sequences, some of each, after some of each.

    Args:
        S: how many tokens are in the cache.
        past: their borders, `[N + 1]`.
        x: the new tokens `[1, T, ...]`.
        new: their borders, `[N + 1]`.

    Raises:
        ValueError: when the borders do not rise from 0 to S and to T.
    """

    def __init__(self, S: int, past: Tensor, x: Tensor, new: Tensor) -> None:
        T = x.shape[1]
        self.new, self.borders = new, past + new
        self.slices = rows_of(past, S), rows_of(new, T)
        self.order, self.rows = rows_behind(past, S, new, T)

    def spans(self) -> list[Span]:
        """The rows of every sequence."""
        return [
            (a, b, slice(a.start + b.start, a.stop + b.stop))
            for a, b in zip(*self.slices, strict=True)
        ]

    def positions(self) -> Tensor:
        """How many tokens of its sequence come before each new one, `[T]`."""
        return self.rows - self.borders[sequence_of(self.new, self.rows.shape[0])]

    def join(self, old: Tensor, new: Tensor) -> Tensor:
        """Every sequence of a cache, followed by its new tokens."""
        return torch.cat((old, new), 1).index_select(1, self.order)


def following(state: Any, x: Tensor, cu_seqlens: Tensor | None, start: int = 0) -> Batch | Packed:
    """Where new tokens x `[B, T, ...]` lie, after a cache that fits them and `start` others."""
    S = 0 if state is None else state[0].shape[1]
    if cu_seqlens is None:
        return Batch(start + S, x)
    past = torch.zeros_like(cu_seqlens) if state is None else state.cu_seqlens
    return Packed(S, past, x, cu_seqlens)


def together(pieces: Sequence[Tensor]) -> Tensor:
    """The tokens of all spans in a row; what is one span already is not copied."""
    return pieces[0] if len(pieces) == 1 else torch.cat(tuple(pieces), 1)
