"""The cache of a layer that keeps every token: how its sequences lie, and which tokens fit it.

A cache is a NamedTuple of tensors that keep something of every token, or None; its last field is
cu_seqlens. The tokens of its N sequences lie in one of three ways:

    in a batch          [N, S, ...], S of each sequence; cu_seqlens is None
    in a row            [1, S, ...], one sequence after the other, with the borders cu_seqlens
    in a padded batch   [N, S, ...], the shorter sequences behind zeros, with the borders cu_seqlens
                        that they would have in a row

Packed tokens go on in a row, a batch of tokens in a batch (`place.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from assocmem.nn.mixer import check_parts
from assocmem.ops.inputs import check_border_tensor, check_tensor
from assocmem.ops.packed import lengths_of
from assocmem.ops.readable import readable, without_numbers


def checked_cache(state: Any, new: Any) -> Any:
    """A cache laid out so that new tokens fit it: in a row if these are packed, else in a batch.

    Raises:
        TypeError, ValueError: when it is another kind of state, its parts differ in S, it differs
            from the new tokens in more than S and T, or its borders are not valid.
    """
    fields = type(new)._fields  # of the class: torch 2.6 cannot count or cut a tuple that it traces
    check_parts(state, fields)
    check_same_tokens(state, fields)
    if state[-1] is not None and not state[-1].is_cuda:  # where a look would have to wait
        check_lengths(state)
    came, N = number_of_sequences(state), number_of_sequences(new)
    if came != N:
        raise ValueError(f"state must be of N = {N} sequences, got {came}")
    state = in_a_batch(state) if new.cu_seqlens is None else in_a_row(state)
    for name, old, x in zip(fields, state, new, strict=True):
        if name != "cu_seqlens" and not alike(old, x):
            raise ValueError(f"state must have {name} = {described(x)}, got {described(old)}")
    return type(new)(*state)


def check_same_tokens(state: Any, fields: tuple[str, ...]) -> None:
    """Raise unless the parts of a cache are tensors `[B, S, ...]` of the same B and S, or None, and
    its borders, if any, those of N sequences in B = 1 or B = N rows.
    """
    first: Any = state[0]
    for name, x in zip(fields, state, strict=True):
        if name == "cu_seqlens" or (x is None and name != fields[0]):
            continue
        if isinstance(x, Tensor):
            check_tensor(f"state.{name}", x)
        if not isinstance(x, Tensor) or x.ndim < 3:
            what = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"state must have {name} = a tensor [B, S, ...], got {what}")
        if x.shape[0] != first.shape[0] or x.shape[1] != first.shape[1]:
            raise ValueError(
                f"state must keep the same tokens in all its parts, got {name} "
                f"{list(x.shape[:2])} beside {list(first.shape[:2])}"
            )
    borders = state[-1]
    if borders is None:
        return
    check_border_tensor("state.cu_seqlens", borders, first, fields[0])
    if first.shape[0] not in (1, borders.shape[0] - 1):
        raise ValueError(
            f"state.cu_seqlens must have the borders of N = {first.shape[0]} sequences, "
            f"got {borders.shape[0] - 1}"
        )


def check_lengths(cache: Any) -> None:
    """Raise unless the borders of a cache, if any, are those of sequences as it has them: from 0,
    without falling, to S in a row, and as far as S for the longest of a padded batch.
    """
    borders = cache[-1]
    if borders is None or not readable(borders):
        return
    (B, S), N = cache[0].shape[:2], borders.shape[0] - 1
    ends = borders.tolist()
    lengths = [end - start for start, end in pairwise(ends)]
    if ends[0] != 0 or min(lengths) < 0 or (max(lengths) if B == N else ends[-1]) != S:
        where = "with a longest sequence of" if B == N > 1 else "to"
        raise ValueError(
            f"state.cu_seqlens must rise from 0 {where} S = {S} without falling, got {ends}"
        )


def number_of_sequences(cache: Any) -> int:
    """N of a cache, however it lies."""
    return cache[0].shape[0] if cache[-1] is None else cache[-1].shape[0] - 1


def alike(old: Tensor | None, new: Tensor | None) -> bool:
    """Whether two tensors `[B, S, ...]` differ in S at most, or are both None."""
    if old is None or new is None:
        return old is new
    return (old.dtype, old.device, old.ndim) == (new.dtype, new.device, new.ndim) and (
        (old.shape[0], *old.shape[2:]) == (new.shape[0], *new.shape[2:])
    )


def described(x: Tensor | None, free: str = "S", dimension: int = 1) -> str:
    """A tensor in words, with a name in place of the size that is free."""
    if x is None:
        return "None"
    sizes = [*map(str, x.shape)]
    sizes[dimension] = free
    return f"{x.dtype} [{', '.join(sizes)}] on {x.device}"


def check_cache(cache: Any) -> None:
    """Raise unless the parts of a cache fit each other."""
    check_same_tokens(cache, type(cache)._fields)
    check_lengths(cache)


def has_borders(state: Any) -> bool:
    """Whether a state is a cache of packed sequences, in a row or in a padded batch."""
    return getattr(state, "cu_seqlens", None) is not None


def in_a_batch(cache: Any) -> tuple[Any, ...]:
    """A cache whose sequences lie in a batch, padded where their lengths differ."""
    *parts, borders = cache
    if borders is None or parts[0].shape[0] > 1:
        return cache
    return uncompiled(_padded)(parts, borders)


def uncompiled(f: Callable) -> Callable:
    """f, called from outside of a graph where `torch.compile` traces one.

    What depends on the lengths of sequences would be compiled anew for each number of them, and
    after eight not at all.
    """
    return torch.compiler.disable(f) if torch.compiler.is_compiling() else f


def _padded(parts: Sequence[Any], borders: Tensor) -> tuple[Any, ...]:
    lengths = lengths_of(borders, parts[0].shape[1], "state.cu_seqlens")
    longest = max(lengths)
    rows = borders[1:, None] + torch.arange(-longest, 0, device=borders.device)
    own = rows >= borders[:-1, None]
    rows = rows.clamp(min=0)  # rows that are not its own are replaced by zeros below
    spread = [None if x is None else kept(x[0, rows], own) for x in parts]
    return *spread, None if min(lengths) == longest else borders


def kept(x: Tensor, own: Tensor) -> Tensor:
    """x `[N, S, ...]` where own `[N, S]` holds, and zeros elsewhere."""
    return torch.where(own.view(*own.shape, *[1] * (x.ndim - 2)), x, 0)


def trimmed(parts: Sequence[Tensor | None], lengths: Tensor) -> tuple[Tensor | None, ...]:
    """A padded batch without the zeros that all sequences of some lengths `[N]` have."""
    borders = F.pad(lengths.cumsum(0), (1, 0))
    if without_numbers(lengths):
        return *parts, borders
    known = lengths.tolist()
    longest = max(known, default=0)
    parts = [None if x is None else x[:, x.shape[1] - longest :] for x in parts]
    return *parts, None if min(known, default=0) == longest else borders


def in_a_row(cache: Any) -> tuple[Any, ...]:
    """A cache whose sequences lie in a row, with their borders."""
    *parts, borders = cache
    B, S = parts[0].shape[:2]
    padded = borders is not None and B > 1
    if borders is None or (padded and without_numbers(borders)):  # whose padding cannot be told
        borders = S * torch.arange(B + 1, device=parts[0].device)
        return *(None if x is None else x.flatten(0, 1)[None] for x in parts), borders
    return uncompiled(_unpadded)(parts, borders) if padded else cache


def _unpadded(parts: Sequence[Any], borders: Tensor) -> tuple[Any, ...]:
    own = ~padding(borders, parts[0].shape[1])
    return *(None if x is None else x[own][None] for x in parts), borders


def in_one_row(caches: Sequence[Any]) -> tuple[Any, ...]:
    """The sequences of several caches in one row, with their borders.

    Raises:
        ValueError: when they differ in more than N and S.
    """
    for cache in caches:
        check_cache(cache)
    rows = [in_a_row(cache) for cache in caches]
    parts = []
    for pieces in zip(*(row[:-1] for row in rows), strict=True):
        if not all(alike(pieces[0], x) for x in pieces):
            kinds = ", ".join(map(described, pieces))
            raise ValueError(f"states must differ in N and S alone, got {kinds}")
        parts.append(None if pieces[0] is None else torch.cat(pieces, 1))
    lengths = torch.cat([row[-1].diff() for row in rows])
    return *parts, F.pad(lengths.cumsum(0), (1, 0))


def padding(borders: Tensor, S: int, more: int = 0) -> Tensor:
    """Where a padded batch of S tokens, and `more` behind them, has zeros, `[N, S + more]`."""
    return torch.arange(S + more, device=borders.device) < S - borders.diff()[:, None]
