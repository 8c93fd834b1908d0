"""Which nodes of a directed graph can be reached from the first one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from assocmem.arguments import check_count, check_fraction, check_generator
from assocmem.tasks.uniform import uniform


class Reachability(NamedTuple):
    """Directed graphs whose nodes are in topological order, and what node 0 reaches.

    Args:
        adjacency: whether an edge leads from node s to node t, `[B, n, n]` at [b, t, s], bool;
            strictly lower triangular.
        reachable: whether a path leads from node 0 to each node, `[B, n]`, bool; node 0 reaches
            itself.
    """

    adjacency: Tensor
    reachable: Tensor


def reached(adjacency: Tensor) -> Tensor:
    """What node 0 reaches in graphs `[B, n, n]`, node by node in topological order."""
    seen = torch.zeros_like(adjacency[:, 0])
    seen[:, 0] = True
    for t in range(1, adjacency.shape[-1]):
        seen[:, t] = (adjacency[:, t] & seen).any(-1)
    return seen


def reachability(
    batch: int, n: int, edge_probability: float, generator: torch.Generator
) -> Reachability:
    """Random graphs: every edge from an earlier to a later node is there with one probability.

    Args:
        batch: graphs B.
        n: nodes in each, at least 2.
        edge_probability: of each edge, in [0, 1].
        generator: the source of randomness.

    Returns:
        `Reachability`.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, n is below 2, the probability
            lies outside [0, 1], or generator is not a `torch.Generator`.

    Example:
        >>> import torch
        >>> from assocmem import tasks
        >>> generator = torch.Generator().manual_seed(0)
        >>> graphs = tasks.reachability(1, n=4, edge_probability=1.0, generator=generator)
        >>> graphs.reachable
        tensor([[True, True, True, True]])
    """
    check_count("batch", batch)
    check_count("n", n, at_least=2)
    check_fraction("edge_probability", edge_probability)
    check_generator(generator)
    adjacency = (uniform(batch, n, n, generator=generator) < edge_probability).tril(-1)
    return Reachability(adjacency, reached(adjacency))


def two_trees(batch: int, n: int, generator: torch.Generator) -> Reachability:
    """Random forests of two trees with n/2 nodes each; node 0 is the root of one of them.

    Every node but the two roots has one parent, an earlier node of its own tree.

    Args:
        batch: forests B.
        n: nodes in each, even and at least 4.
        generator: the source of randomness.

    Returns:
        `Reachability`.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, n is below 4 or odd, or generator
            is not a `torch.Generator`.

    Example:
        >>> import torch
        >>> from assocmem import tasks
        >>> forests = tasks.two_trees(2, n=8, generator=torch.Generator().manual_seed(0))
        >>> forests.reachable.sum(-1)  # the tree of node 0 has half of the nodes
        tensor([4, 4])
    """
    check_count("batch", batch)
    check_count("n", n, at_least=4)
    if n % 2:
        raise ValueError(f"n must be even, got {n}")
    check_generator(generator)
    others = uniform(batch, n - 1, generator=generator).argsort(1) < n // 2 - 1
    first = torch.cat((torch.ones_like(others[:, :1]), others), 1)
    candidates = (first[:, :, None] == first[:, None, :]).tril(-1)
    weights = uniform(batch, n, n, generator=generator).where(candidates, -1.0)
    parent = torch.zeros_like(candidates).scatter(2, weights.argmax(2, keepdim=True), True)
    adjacency = parent & candidates  # a root has no candidate
    return Reachability(adjacency, reached(adjacency))
