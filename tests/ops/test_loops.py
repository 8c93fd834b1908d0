"""Training takes a time that grows like T: no loop makes a gradient as long as the sequence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from assocmem import ops
from tests.ops.inputs import GATES, delta_inputs
from tests.ops.operators import OPERATORS

LENGTH = 8  # tokens a packed sequence


class Numbers(TorchDispatchMode):
    """Counts the numbers in all results of PyTorch's operators, those of a backward pass, too."""

    written = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            self.written += sum(x.numel() for x in tree_leaves(results) if torch.is_tensor(x))
        return results


def written(operator, tokens: list[Tensor], **options) -> int:
    """How many numbers an operator writes, forward and backward."""
    leaves = [x.float().detach().requires_grad_() for x in tokens]
    with Numbers() as numbers:
        result = operator(*leaves, **options)
        (result if torch.is_tensor(result) else result[0]).sum().backward()
    return numbers.written


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("form", "T"), [("chunk", 1024), ("recurrent", 64)])
def test_training_grows_like_the_length(name, gate, form, T):
    op = OPERATORS[name]
    once, twice = (
        written(op.function, op.inputs(1, length, 2, 8, 8, gate).tokens, backend=form)
        for length in (T, 2 * T)
    )
    assert twice <= 2.01 * once


@pytest.mark.parametrize("form", ["chunk", "recurrent"])
@pytest.mark.parametrize("name", [name for name in ops.__all__ if name != "backend_for"])
def test_training_grows_like_the_number_of_packed_sequences(name, form):
    once, twice = (
        written(
            getattr(ops, name),
            delta_inputs(1, n * LENGTH, 2, 8, 8, "none").tokens[: 4 if "delta" in name else 3],
            backend=form,
            cu_seqlens=LENGTH * torch.arange(n + 1),
        )
        for n in (16, 32)
    )
    assert twice <= 2.01 * once
