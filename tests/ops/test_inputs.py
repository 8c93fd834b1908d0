"""`ops.inputs`: when the borders of packed sequences are looked at."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from assocmem.ops import inputs


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


@pytest.mark.parametrize("once", [True, False])
def test_wrong_borders_are_refused_each_time(monkeypatch, once):
    monkeypatch.setattr(inputs, "looked_at_once", lambda _: once)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"cu_seqlens must rise from 0 to T = 5"):
            inputs.check_cu_seqlens(torch.tensor([0, 2, 4]), torch.zeros(1, 5))


def test_where_a_look_does_not_wait_or_changes_leave_no_trace_it_is_repeated():
    with FakeTensorMode():  # says that it is on a GPU
        assert inputs.looked_at_once(torch.empty(2, device="cuda"))
        with torch.inference_mode():
            assert not inputs.looked_at_once(torch.empty(2, device="cuda"))
    with torch.inference_mode():  # where borders have no version
        inputs.check_cu_seqlens(torch.tensor([0, 5]), torch.zeros(1, 5))
    assert not inputs.looked_at_once(torch.tensor([0, 2]))
