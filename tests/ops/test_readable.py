"""`ops.readable`: when the numbers in tensors are looked at."""

from __future__ import annotations

import pytest
import torch

from assocmem.ops.readable import known
from tests.ops.inputs import OnAGPU

ONES = torch.ones(3)


def positive(x: torch.Tensor) -> torch.Tensor:
    """1 where `known` has seen that the numbers are positive, else 0."""
    return x.new_tensor(float(known(lambda: bool((x > 0).all()), x)))


def test_numbers_are_looked_at():
    assert positive(ONES) == 1
    assert positive(-ONES) == 0
    assert positive(ONES.to("meta")).is_meta


def test_under_vmap_they_are_not():
    rows = torch.stack((ONES, ONES))
    assert torch.func.vmap(positive)(rows).tolist() == [0, 0]

    def derivative(x):
        return torch.func.grad(lambda y: positive(y) + y.sum())(x)

    assert torch.equal(torch.func.vmap(derivative)(rows), rows)
    seen = []
    x = ONES.clone().requires_grad_()
    y = x.clone()
    y.register_hook(lambda dy: seen.append(known(lambda: bool((dy > 0).all()), dy)))
    torch.autograd.grad(y, x, torch.ones(2, 3), is_grads_batched=True)
    assert seen == [False]


def test_an_error_on_the_way_is_not_an_answer():
    def fails():
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        known(fails, ONES)


@pytest.mark.parametrize("capturing", [False, True])
def test_while_a_cuda_graph_is_captured_they_are_not(monkeypatch, capturing):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    assert known(lambda: True, ONES.as_subclass(OnAGPU)) is not capturing
