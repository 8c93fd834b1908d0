"""State tracking: every token acts on a state, and the state is asked for after every token."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from assocmem.arguments import check_count, check_counts, check_generator
from assocmem.tasks.uniform import integers


class States(NamedTuple):
    """Sequences of actions, and the state after each.

    Args:
        tokens: what acts at each step `[B, T]`, int64.
        targets: the state after it `[B, T]`, int64.
    """

    tokens: Tensor
    targets: Tensor


def parity(batch: int, length: int, generator: torch.Generator) -> States:
    """Random bits; the state is the number of ones so far, modulo 2.

    Args:
        batch: sequences B.
        length: tokens T in each.
        generator: the source of randomness.

    Returns:
        `States`.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, or generator is not a
            `torch.Generator`.

    Example:
        >>> import torch
        >>> from assocmem import tasks
        >>> task = tasks.parity(1, length=8, generator=torch.Generator().manual_seed(0))
        >>> bool((task.tokens.cumsum(-1) % 2 == task.targets).all())
        True
    """
    check_counts(batch=batch, length=length)
    check_generator(generator)
    bits = integers(2, batch, length, generator=generator)
    return States(bits, bits.cumsum(1) % 2)


def modular_arithmetic(batch: int, length: int, modulus: int, generator: torch.Generator) -> States:
    """Sums, differences and products modulo m, from left to right without brackets.

    The state starts at 0. Token d < m adds d, token m + d subtracts d, token 2 m + d multiplies
    by d.

    Args:
        batch: sequences B.
        length: tokens T in each.
        modulus: m, at least 2.
        generator: the source of randomness.

    Returns:
        `States`.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, the modulus is below 2, or
            generator is not a `torch.Generator`.

    Example:
        >>> import torch
        >>> from assocmem import tasks
        >>> generator = torch.Generator().manual_seed(0)
        >>> task = tasks.modular_arithmetic(1, length=6, modulus=5, generator=generator)
        >>> task.tokens.shape, int(task.targets.max()) < 5
        (torch.Size([1, 6]), True)
    """
    check_counts(batch=batch, length=length)
    check_count("modulus", modulus, at_least=2)
    check_generator(generator)
    tokens = integers(3 * modulus, batch, length, generator=generator)
    d = torch.arange(modulus, device=tokens.device)
    state = d[:, None]
    moves = torch.cat((state + d, state - d, state * d), 1) % modulus
    return States(tokens, followed(moves, tokens))


def is_even(permutation: tuple[int, ...]) -> bool:
    """Whether a permutation has an even number of pairs in the wrong order."""
    return sum(a > b for a, b in itertools.combinations(permutation, 2)) % 2 == 0


# The elements of each group as permutations: a product of two is their composition.
GROUPS: dict[str, tuple[tuple[int, ...], ...]] = {
    "S3": tuple(itertools.permutations(range(3))),
    "A5": tuple(p for p in itertools.permutations(range(5)) if is_even(p)),
    "S5": tuple(itertools.permutations(range(5))),
}


def word_problem(batch: int, length: int, group: str, generator: torch.Generator) -> States:
    """Random elements of a group of permutations; the state is their product so far.

    Elements are numbered as in `GROUPS`, the identity being 0. A permutation p makes of an
    arrangement a the arrangement that has a[p[i]] in place i, so the product of p₁ … p_t is
    p₁ ∘ … ∘ p_t. For S₅ the task is complete for NC¹ (Barrington, 1989), for the solvable S₃ it is
    in TC⁰.

    Args:
        batch: sequences B.
        length: tokens T in each.
        group: "S3", "A5" or "S5".
        generator: the source of randomness.

    Returns:
        `States`.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, the group is unknown, or
            generator is not a `torch.Generator`.

    Example:
        >>> import torch
        >>> from assocmem import tasks
        >>> generator = torch.Generator().manual_seed(0)
        >>> task = tasks.word_problem(1, length=4, group="S3", generator=generator)
        >>> bool(task.tokens[0, 0] == task.targets[0, 0])  # the first product is its first factor
        True
    """
    check_counts(batch=batch, length=length)
    if group not in list(GROUPS):  # a dictionary asks for a hash first
        raise ValueError(f"group must be one of {list(GROUPS)}, got {group!r}")
    check_generator(generator)
    where = generator.device
    elements = torch.tensor(GROUPS[group], device=where)
    digits = elements.shape[1] ** torch.arange(elements.shape[1], device=where)
    number = elements.new_zeros(int(digits.sum()) * elements.shape[1])
    # Sums and no matrix products, which a GPU does not have for integers.
    number[(elements * digits).sum(-1)] = torch.arange(len(elements), device=where)
    product = number[(elements[:, elements] * digits).sum(-1)]  # [a, p]: a, then p

    tokens = integers(len(elements), batch, length, generator=generator)
    return States(tokens, followed(product, tokens))


def followed(moves: Tensor, tokens: Tensor) -> Tensor:
    """The states after each token `[B, T]`, from 0 on, by where each leads: moves[state, token]."""
    state, states = torch.zeros_like(tokens[:, 0]), []
    for token in tokens.unbind(1):
        state = moves[state, token]
        states.append(state)
    return torch.stack(states, 1)


class Swaps(NamedTuple):
    """Elements that change places.

    Args:
        pairs: the two places whose elements are swapped at each step `[B, T, 2]`, the smaller
            first.
        states: which element lies in each place afterwards `[B, T, n]`.
    """

    pairs: Tensor
    states: Tensor

    @property
    def tokens(self) -> Tensor:
        """The number of each pair among the n (n − 1)/2 of them `[B, T]`."""
        low, high = self.pairs.unbind(-1)
        return high * (high - 1) // 2 + low

    @property
    def targets(self) -> Tensor:
        """The element in the first place after each step `[B, T]`."""
        return self.states[..., 0]


def swaps(batch: int, length: int, n: int, generator: torch.Generator) -> Swaps:
    """Random swaps of two of n elements, which start in order (the task of arXiv:2505.19488, §3.2).

    Args:
        batch: sequences B.
        length: swaps T in each.
        n: elements, at least 2.
        generator: the source of randomness.

    Returns:
        `Swaps`, all of it int64.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, n is below 2, or generator is not
            a `torch.Generator`.

    Example:
        >>> import torch
        >>> from assocmem import tasks
        >>> task = tasks.swaps(1, length=3, n=4, generator=torch.Generator().manual_seed(0))
        >>> i, j = task.pairs[0, 0].tolist()
        >>> task.states[0, 0, [i, j]].tolist() == [j, i]  # after the first swap
        True
    """
    check_counts(batch=batch, length=length)
    check_count("n", n, at_least=2)
    check_generator(generator)
    first = integers(n, batch, length, generator=generator)
    second = integers(n - 1, batch, length, generator=generator)
    second += second >= first
    pairs = torch.stack((first, second), -1).sort(-1).values
    state, states = torch.arange(n, device=pairs.device).expand(batch, n), []
    for pair in pairs.unbind(1):
        state = state.scatter(1, pair, state.gather(1, pair.flip(1)))
        states.append(state)
    return Swaps(pairs, torch.stack(states, 1))
