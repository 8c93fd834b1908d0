"""Word problems: each token is a permutation, written as a few swaps."""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem.constructions.arguments import check_integers
from assocmem.constructions.swaps import exchanged


def word_problem(permutations: Tensor, backend: str = "auto") -> Tensor:
    """The product so far of permutations of n elements, by n − 1 corrections per token.

    As in `swaps`, a correction under k = e_j − e_i with value 0 and β = 1 exchanges two places, and
    every permutation of n elements is at most n − 1 exchanges: this is DeltaProduct
    (arXiv:2502.10297) with n − 1 steps per token, four for S₅. Where a token needs fewer, the
    other keys are 0.

    Args:
        permutations: what acts at each step `[B, T, n]`, int64; p makes of an arrangement a the one
            that has a[p[i]] in place i.
        backend: as in `ops.delta_rule`.

    Returns:
        the element in each place after each step `[B, T, n]`, int64, starting from 0 … n − 1.

    Raises:
        TypeError: permutations is not an int64 tensor.
        ValueError: the shape is wrong, n is below 2, or a row is not a permutation.

    Example:
        >>> import torch
        >>> from assocmem import constructions
        >>> turn = torch.tensor([1, 2, 0])
        >>> constructions.word_problem(turn.expand(1, 3, 3))  # three turns are none
        tensor([[[1, 2, 0],
                 [2, 0, 1],
                 [0, 1, 2]]])
    """
    check_integers("permutations", permutations, 3, "[B, T, n]")
    n = permutations.shape[-1]
    if n < 2:
        raise ValueError(f"permutations must have n >= 2 elements, got {n}")
    every = torch.arange(n, device=permutations.device)
    if not bool((permutations.sort(-1).values == every).all()):
        raise ValueError("permutations must hold every number from 0 to n − 1 once in each row")
    return exchanged(exchanges(permutations), n, backend)


def exchanges(permutations: Tensor) -> Tensor:
    """Pairs of places `[…, n − 1, 2]` whose exchange, one after another, gives `[…, n]`.

    Place i gets what belongs there, for i = 0, 1, …; where it already does, both places are i.
    """
    n = permutations.shape[-1]
    a = torch.arange(n, device=permutations.device).expand_as(permutations)
    pairs = []
    for i in range(n - 1):
        j = (a == permutations[..., i : i + 1]).int().argmax(-1)
        pair = torch.stack((torch.full_like(j, i), j), -1)
        a = a.scatter(-1, pair, a.gather(-1, pair.flip(-1)))
        pairs.append(pair)
    return torch.stack(pairs, -2)
