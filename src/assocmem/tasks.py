"""Synthetic tasks: what a memory is asked to hold, and the questions that show whether it does.

Every function draws from a `torch.Generator`: the same seed gives the same data on the CPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from assocmem.arguments import check_count
from assocmem.capacity.vectors import sphere

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
        TypeError, ValueError: when a size is no integer >= 1, or n_pairs is above n_keys.
    """
    check_sizes(batch=batch, n_pairs=n_pairs, n_queries=n_queries, n_keys=n_keys, n_values=n_values)
    if n_pairs > n_keys:
        raise ValueError(f"n_pairs must be at most n_keys = {n_keys}, got {n_pairs}")
    keys = torch.rand(batch, n_keys, generator=generator).argsort(1)[:, :n_pairs]
    values = n_keys + torch.randint(n_values, (batch, n_pairs), generator=generator)
    asked = torch.randint(n_pairs, (batch, n_queries), generator=generator)
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
        TypeError, ValueError: when a size is no integer >= 1.
    """
    check_sizes(
        batch=batch, n_writes=n_writes, n_queries=n_queries, n_keys=n_keys, n_values=n_values
    )
    keys = torch.randint(n_keys, (batch, n_writes), generator=generator)
    values = n_keys + torch.randint(n_values, (batch, n_writes), generator=generator)
    asked = torch.randint(n_writes, (batch, n_queries), generator=generator)
    queries = keys.gather(1, asked)
    written = torch.arange(1, n_writes + 1) * (queries[:, :, None] == keys[:, None, :])
    return Recall(keys, values, queries, values.gather(1, written.argmax(-1)))


class Facts(NamedTuple):
    """Facts for a memory that is asked with vectors.

    Args:
        inputs: the vector that asks for each fact `[N, d_model]`, of length √d_model.
        labels: which of the answers is right `[N]`, int64.
        answers: the vectors to choose from `[n_answers, d_model]`, of length √d_model.
    """

    inputs: Tensor
    labels: Tensor
    answers: Tensor

    def accuracy(self, outputs: Tensor) -> float:
        """Share of the outputs `[N, d_model]` whose largest dot product is with their answer."""
        return ((outputs @ self.answers.mT).argmax(-1) == self.labels).double().mean().item()


def fact_storage(
    n_facts: int,
    d_model: int,
    n_answers: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> Facts:
    """Random facts: inputs and answers uniform on a sphere, labels uniform.

    Nothing relates one fact to another, so that whatever answers them has stored them.

    Args:
        n_facts: facts N.
        d_model: size of the vectors.
        n_answers: answers to choose from.
        generator: the source of randomness.
        dtype: floating-point type of the vectors.

    Returns:
        `Facts`.

    Raises:
        TypeError, ValueError: when a size is no integer >= 1.
    """
    check_sizes(n_facts=n_facts, d_model=d_model, n_answers=n_answers)
    inputs = d_model**0.5 * sphere(n_facts, d_model, generator, dtype)
    answers = d_model**0.5 * sphere(n_answers, d_model, generator, dtype)
    labels = torch.randint(n_answers, (n_facts,), generator=generator)
    return Facts(inputs, labels, answers)


def check_sizes(**sizes: int) -> None:
    """Raise unless every size is an integer of at least 1."""
    for name, size in sizes.items():
        check_count(name, size)
