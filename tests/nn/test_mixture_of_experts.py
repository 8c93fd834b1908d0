"""`nn.MixtureOfExperts` against a loop over tokens and experts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from assocmem.nn import MixtureOfExperts
from tests.ops.reference import relative_error

D, M, E = 6, 4, 5


def mixture(top_k: int, kernel: str = "gelu") -> MixtureOfExperts:
    torch.manual_seed(0)
    return MixtureOfExperts(D, M, E, top_k, kernel).double()


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def definition(layer: MixtureOfExperts, x: Tensor) -> Tensor:
    """The gated sum over the experts with the top_k largest scores, for one token."""
    scores = [(row @ x).item() for row in layer.router.weight]
    gates = torch.tensor(scores, dtype=x.dtype).exp()
    gates /= gates.sum()
    best = sorted(range(E), key=lambda e: -scores[e])[: layer.top_k]
    return sum(gates[e] * layer.experts[e](x) for e in best)


@pytest.mark.parametrize("top_k", [1, 2, E])
@torch.no_grad()
def test_the_chosen_experts_answer(top_k):
    layer, x = mixture(top_k), inputs(3, 7, D)
    expected = torch.stack([definition(layer, y) for y in x.reshape(-1, D)]).view(3, 7, D)
    assert relative_error(layer(x), expected) <= 1e-13


@torch.no_grad()
def test_a_route_lists_gates_and_experts_best_first():
    layer, x = mixture(3), inputs(7, D)
    gates, chosen = layer.route(x)
    assert gates.shape == chosen.shape == (7, 3)
    assert (gates.diff(dim=-1) <= 0).all()
    everything = (x @ layer.router.weight.T).softmax(-1)
    assert torch.equal(everything.gather(-1, chosen), gates)


def test_gradients_reach_router_and_experts():
    layer = mixture(1)
    layer(inputs(200, D)).square().sum().backward()
    assert all(w.grad is not None and w.grad.norm() > 0 for w in layer.parameters())


@torch.no_grad()
def test_no_tokens_are_no_answers():
    assert mixture(2)(inputs(0, D)).shape == (0, D)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: MixtureOfExperts(D, M, 2, 3), ValueError, "top_k must be at most n_experts = 2"),
        (lambda: MixtureOfExperts(D, M, 0, 1), ValueError, "n_experts must be at least 1, got 0"),
        (lambda: MixtureOfExperts(D, M, E, 1, "tanh"), ValueError, "kernel must be one of"),
        (lambda: mixture(1)(inputs(3, 2)), ValueError, r"d_model = 6, got \[3, 2\]"),
        (lambda: mixture(1).route(inputs(3, 2)), ValueError, r"d_model = 6, got \[3, 2\]"),
    ],
)
def test_bad_input_is_named(build, error, message):
    with pytest.raises(error, match=message):
        build()
