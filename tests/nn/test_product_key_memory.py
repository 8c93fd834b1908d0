"""`nn.ProductKeyMemory` against a search through all of its keys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from assocmem.nn import ProductKeyMemory
from tests.ops.reference import relative_error

D, N, K = 6, 7, 3


def memory(n_heads: int = 2) -> ProductKeyMemory:
    torch.manual_seed(0)
    return ProductKeyMemory(D, N, K, d_key=10, n_heads=n_heads).double()


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def all_scores(layer: ProductKeyMemory, x: Tensor, head: int) -> Tensor:
    """The score of every one of the n² keys, each written out as the join of its halves."""
    q = (layer.query_proj.weight @ x).view(-1, 10)[head]
    first, second = layer.sub_keys[head]
    keys = [torch.cat((first[i], second[j])) for i in range(N) for j in range(N)]
    return torch.stack(keys) @ q


@torch.no_grad()
def test_the_best_keys_of_all_answer():
    layer, x = memory(), inputs(4, 5, D)
    weights, rows = layer.lookup(x)
    assert weights.shape == rows.shape == (4, 5, 2, K)
    for b in range(4):
        for t in range(5):
            y = torch.zeros(D, dtype=torch.float64)
            for head in range(2):
                scores = all_scores(layer, x[b, t], head)
                best = scores.argsort(descending=True)[:K]
                assert rows[b, t, head].tolist() == best.tolist()
                share = scores[best].exp() / scores[best].exp().sum()
                assert relative_error(weights[b, t, head], share) <= 1e-12
                y += share @ layer.values[best]
            assert relative_error(layer(x)[b, t], y) <= 1e-12


def test_gradients_reach_every_weight():
    layer = memory()
    layer(inputs(30, D)).square().sum().backward()
    assert all(w.grad is not None and w.grad.norm() > 0 for w in layer.parameters())


def test_sub_keys_and_values_start_with_length_one():
    layer = ProductKeyMemory(64, 40, 4)
    for rows in (layer.values, layer.sub_keys):
        assert abs(rows.square().sum(-1).mean() - 1) < 0.05


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ProductKeyMemory(D, N, N + 1), "top_k must be at most n_keys = 7, got 8"),
        (lambda: ProductKeyMemory(5, N, 1), "d_key must be even, got 5"),
        (lambda: ProductKeyMemory(D, N, 0), "top_k must be at least 1, got 0"),
        (lambda: memory()(inputs(3, 2)), r"d_model = 6, got \[3, 2\]"),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
