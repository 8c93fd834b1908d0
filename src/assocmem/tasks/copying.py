"""Copying: what was read is written once more, in the same order."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from assocmem.arguments import check_counts, check_generator
from assocmem.tasks.recall import IGNORE
from assocmem.tasks.uniform import integers


class Copy(NamedTuple):
    """Sequences that are read, then written.

    Args:
        tokens: x₁ … x_T, a token that says "now", x₁ … x_{T−1}; `[B, 2 T]`, int64.
        targets: x₁ … x_T from "now" on, and `IGNORE` before it, `[B, 2 T]`.
    """

    tokens: Tensor
    targets: Tensor


def copying(batch: int, length: int, n_symbols: int, generator: torch.Generator) -> Copy:
    """Random symbols to be copied, each predicted from those before it (as in arXiv:2402.01032).

    Args:
        batch: sequences B.
        length: symbols T in each.
        n_symbols: symbols to choose from, tokens 0 … n_symbols − 1; "now" is token n_symbols.
        generator: the source of randomness.

    Returns:
        `Copy`.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, or generator is not a
            `torch.Generator`.

    Example:
        >>> import torch
        >>> from assocmem import tasks
        >>> generator = torch.Generator().manual_seed(0)
        >>> task = tasks.copying(1, length=3, n_symbols=8, generator=generator)
        >>> bool((task.targets[0, 3:] == task.tokens[0, :3]).all())
        True
    """
    check_counts(batch=batch, length=length, n_symbols=n_symbols)
    check_generator(generator)
    symbols = integers(n_symbols, batch, length, generator=generator)
    now = torch.full_like(symbols[:, :1], n_symbols)
    silent = torch.full_like(symbols, IGNORE)
    return Copy(torch.cat((symbols, now, symbols[:, :-1]), 1), torch.cat((silent, symbols), 1))
