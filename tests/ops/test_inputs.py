"""`ops.inputs`: when the numbers in tensors are looked at."""

from __future__ import annotations

import pytest
import torch

from assocmem.ops import inputs
from assocmem.ops.inputs import known

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


def test_borders_on_a_gpu_are_looked_at_once(monkeypatch):
    """Here every tensor counts as one on a GPU."""
    looks = []
    monkeypatch.setattr(inputs, "looked_at_once", lambda _: True)
    monkeypatch.setattr(inputs, "check_borders", lambda borders, T: looks.append((borders, T)))
    borders, x = torch.tensor([0, 2, 5]), torch.zeros(1, 5)
    for _ in range(3):
        inputs.check_cu_seqlens(borders, x)
    borders[1] = 3
    inputs.check_cu_seqlens(borders, x)
    inputs.check_cu_seqlens(borders, torch.zeros(1, 6))
    inputs.check_cu_seqlens(borders.clone(), x)
    assert looks == [([0, 2, 5], 5), ([0, 3, 5], 5), ([0, 3, 5], 6), ([0, 3, 5], 5)]
    count = len(inputs.looks)
    del borders
    assert len(inputs.looks) == count - 1


def test_wrong_borders_are_refused_each_time(monkeypatch):
    monkeypatch.setattr(inputs, "looked_at_once", lambda _: True)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"cu_seqlens must rise from 0 to T = 5"):
            inputs.check_cu_seqlens(torch.tensor([0, 2, 4]), torch.zeros(1, 5))


def test_where_a_look_does_not_wait_or_changes_leave_no_trace_it_is_repeated():
    with torch.inference_mode():
        assert not inputs.looked_at_once(torch.tensor([0, 2]))
    assert not inputs.looked_at_once(torch.tensor([0, 2]))
