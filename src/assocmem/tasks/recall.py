"""Pairs to read, and questions about them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from assocmem.arguments import check_count, check_counts, check_generator
from assocmem.tasks.uniform import integers, uniform

IGNORE = -100  # the target of a position that asks nothing, as in torch's cross_entropy


class Recall(NamedTuple):
    """Pairs to read, and questions about them; every entry is a token of one vocabulary.

    Args:
        keys: keys `[B, N]` in the order of writing.
        values: the value of each key `[B, N]`.
        queries: keys that are asked for afterwards `[B, Q]`.
        answers: the right value for each query `[B, Q]`.
    """

    keys: Tensor
    values: Tensor
    queries: Tensor
    answers: Tensor

    @property
    def tokens(self) -> Tensor:
        """The sequence k₁ v₁ … k_N v_N q₁ … q_Q, `[B, 2N + Q]`."""
        pairs = torch.stack((self.keys, self.values), -1).flatten(1)
        return torch.cat((pairs, self.queries), 1)

    @property
    def targets(self) -> Tensor:
        """The answer at each query, and `IGNORE` at all other tokens, `[B, 2N + Q]`."""
        pairs = torch.full_like(torch.cat((self.keys, self.values), 1), IGNORE)
        return torch.cat((pairs, self.answers), 1)


def associative_recall(
    batch: int,
    n_pairs: int,
    n_queries: int,
    n_keys: int,
    n_values: int,
    generator: torch.Generator,
) -> Recall:
    """Pairs with distinct keys, then questions about some of them (as in arXiv:2312.04927).

    Args:
        batch: sequences B.
        n_pairs: pairs N in each, at most n_keys.
        n_queries: questions Q in each; a key may be asked for more than once.
        n_keys: keys to choose from, tokens 0 … n_keys − 1.
        n_values: values to choose from, tokens n_keys … n_keys + n_values − 1.
        generator: the source of randomness.

    Returns:
        `Recall` of int64 tokens.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, n_pairs is above n_keys, or
            generator is not a `torch.Generator`.

    Example:
        >>> import torch
        >>> from assocmem import tasks
        >>> generator = torch.Generator().manual_seed(0)
        >>> r = tasks.associative_recall(1, 4, 2, n_keys=8, n_values=8, generator=generator)
        >>> asked = r.keys == r.queries[0, 0]
        >>> bool(r.values[asked] == r.answers[0, 0])
        True
    """
    check_counts(
        batch=batch, n_pairs=n_pairs, n_queries=n_queries, n_keys=n_keys, n_values=n_values
    )
    if n_pairs > n_keys:
        raise ValueError(f"n_pairs must be at most n_keys = {n_keys}, got {n_pairs}")
    check_generator(generator)
    keys = uniform(batch, n_keys, generator=generator).argsort(1)[:, :n_pairs]
    values = n_keys + integers(n_values, batch, n_pairs, generator=generator)
    asked = integers(n_pairs, batch, n_queries, generator=generator)
    return Recall(keys, values, keys.gather(1, asked), values.gather(1, asked))


def overwrite(
    batch: int,
    n_writes: int,
    n_queries: int,
    n_keys: int,
    n_values: int,
    generator: torch.Generator,
) -> Recall:
    """Pairs whose keys come again: the right answer is the value that was written last.

    Args:
        batch: sequences B.
        n_writes: pairs N in each, their keys drawn with replacement.
        n_queries: questions Q in each, about keys that were written.
        n_keys: keys to choose from, tokens 0 … n_keys − 1.
        n_values: values to choose from, tokens n_keys … n_keys + n_values − 1.
        generator: the source of randomness.

    Returns:
        `Recall` of int64 tokens.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, or generator is not a
            `torch.Generator`.

    Example:
        >>> import torch
        >>> from assocmem import tasks
        >>> generator = torch.Generator().manual_seed(0)
        >>> r = tasks.overwrite(1, 8, n_queries=1, n_keys=2, n_values=4, generator=generator)
        >>> last = r.values[r.keys == r.queries][-1]
        >>> bool(last == r.answers)
        True
    """
    check_counts(
        batch=batch, n_writes=n_writes, n_queries=n_queries, n_keys=n_keys, n_values=n_values
    )
    check_generator(generator)
    keys = integers(n_keys, batch, n_writes, generator=generator)
    values = n_keys + integers(n_values, batch, n_writes, generator=generator)
    asked = integers(n_writes, batch, n_queries, generator=generator)
    queries = keys.gather(1, asked)
    place = torch.arange(1, n_writes + 1, device=keys.device)
    written = place * (queries[:, :, None] == keys[:, None, :])
    return Recall(keys, values, queries, values.gather(1, written.argmax(-1)))


def noisy_recall(
    batch: int,
    n_pairs: int,
    n_noise: int,
    n_queries: int,
    n_keys: int,
    n_values: int,
    generator: torch.Generator,
) -> Recall:
    """Pairs as in `associative_recall`, among others that nobody will ask for.

    The keys of those others are tokens of their own, from which a memory can tell that they need
    not be written (after the noisy in-context recall of arXiv:2403.17844).

    Args:
        batch: sequences B.
        n_pairs: pairs in each that can be asked for, at most n_keys.
        n_noise: pairs that cannot, 0 or more, at random places among them; N = n_pairs + n_noise.
        n_queries: questions Q in each; a key may be asked for more than once.
        n_keys: keys to choose from, tokens 0 … n_keys − 1; as many keys of noise, drawn with
            replacement from tokens n_keys + n_values … 2 n_keys + n_values − 1.
        n_values: values to choose from, tokens n_keys … n_keys + n_values − 1.
        generator: the source of randomness.

    Returns:
        `Recall` of int64 tokens.

    Raises:
        TypeError, ValueError: when another size than n_noise is not an integer >= 1, n_noise not an
            integer >= 0, n_pairs is above n_keys, or generator is not a `torch.Generator`.

    Example:
        >>> import torch
        >>> from assocmem import tasks
        >>> generator = torch.Generator().manual_seed(0)
        >>> r = tasks.noisy_recall(1, 4, 12, n_queries=2, n_keys=8, n_values=8, generator=generator)
        >>> r.keys.shape, int((r.keys < 8).sum())  # four of the sixteen can be asked for
        (torch.Size([1, 16]), 4)
    """
    check_count("n_noise", n_noise, at_least=0)
    recall = associative_recall(batch, n_pairs, n_queries, n_keys, n_values, generator)
    marked = n_keys + n_values + integers(n_keys, batch, n_noise, generator=generator)
    values = n_keys + integers(n_values, batch, n_noise, generator=generator)
    order = uniform(batch, n_pairs + n_noise, generator=generator).argsort(1)
    return recall._replace(
        keys=torch.cat((recall.keys, marked), 1).gather(1, order),
        values=torch.cat((recall.values, values), 1).gather(1, order),
    )
