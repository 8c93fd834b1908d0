"""A sequence in chunks: how they are laid out for products, and how a NaN stays where it is."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from assocmem.ops.inputs import known

CHUNK = 64  # on CPU 32 to 128 are equally fast, and larger tiles leave the cache
GROUP = 256  # tokens whose products are taken together: few calls, and all operands in the cache


def spans(T: int, C: int) -> Iterator[tuple[slice, int]]:
    """Groups of chunks that cover T tokens, as (tokens, tokens a chunk); a shorter one is last."""
    start = 0
    while start < T:
        C = min(C, T - start)
        stop = start + C * (min(GROUP, T - start) // C)
        yield slice(start, stop), C
        start = stop


def heads_first(x: Tensor, S: Tensor) -> Tensor:
    """From `[B, C, H, ...]` to `[B H, C, ...]` in the state's dtype.

    Always laid out alike, or a sum would take its terms in another order when B is 1.
    """
    return x.to(S).transpose(1, 2).flatten(0, 1).contiguous()


def in_chunks(x: Tensor, C: int, S: Tensor) -> Tensor:
    """From `[B, n C, H, ...]` to `[n, B H, C, ...]` in the state's dtype, always laid out alike."""
    x = x.to(S).unflatten(1, (x.shape[1] // C, C)).movedim((1, 3), (0, 2))  # [n, B, H, C, ...]
    return x.flatten(1, 2).contiguous()


def in_sequence(groups: list[Tensor], v: Tensor) -> Tensor:
    """From groups `[n, B H, C, V]` back to `[B, T, H, V]` like v, in one copy where C is one."""
    if not groups:  # no tokens
        return v
    B, _, H, _ = v.shape
    groups = [x.unflatten(1, (B, H)).movedim((0, 2), (1, 3)) for x in groups]  # [B, n, C, H, V]
    alike = [x for x in groups if x.shape[2] == groups[0].shape[2]]
    rest = groups[len(alike) :]
    sequences = [torch.cat(x, 1).flatten(1, 2) for x in (alike, rest) if x]
    return torch.cat(sequences, 1) if len(sequences) > 1 else sequences[0]


def plus_recalled(O: Tensor, Q: Tensor, states: list[Tensor]) -> Tensor:
    """O + Q S for n chunks `[n, B H, C, ...]`, each with the state `[B H, K, V]` that it found."""
    O = torch.baddbmm(O.flatten(0, 1), Q.flatten(0, 1), torch.cat(states))
    return O.unflatten(0, (len(states), -1))


def wide(x: Tensor) -> Tensor:
    """In float64, where the device has it."""
    return x if x.device.type == "mps" else x.double()


def known_to_be_finite(*tensors: Tensor) -> bool:
    """Whether no number is NaN or infinite; False where numbers must not be looked at."""

    def finite(x: Tensor) -> bool:
        wide_enough = torch.promote_types(x.dtype, torch.float32)  # float16 ends at 65,504
        return bool(x.detach().sum(dtype=wide_enough).isfinite())

    return known(lambda: all(map(finite, tensors)), *tensors)


def without_poison(X: Tensor) -> tuple[Tensor, Tensor]:
    """X with 0 for every NaN and infinity, and what brings them back: to add from their row on.

    Times a masked 0 a NaN or infinity in X_s would reach the rows before s. It is taken out of the
    product, and put back into every row that may see it. This costs as much as half of the product.
    """
    lost = X.detach().masked_fill(X.isfinite(), 0.0)
    return X.nan_to_num(0.0, 0.0, 0.0), lost.cumsum(-2)


def masked_product(A: Tensor, X: Tensor) -> Tensor:
    """A X for a lower triangular A, in which a NaN in X_s reaches the rows from s on only."""
    finite, lost = without_poison(X)
    return A @ finite + lost
