"""The Triton form of `ops.linear_attention`: its normaliser; the rest is in `test_scans.py`."""

from __future__ import annotations

import pytest
import torch

from assocmem import ops
from tests.kernels.test_scans import BOUND, DEVICE
from tests.ops.inputs import GATES, random_inputs
from tests.ops.reference import relative_error


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("T", [1, 70])
def test_normalize(gate, T):
    inputs = random_inputs(1, T, 2, 16, 16, gate)
    inputs.q, inputs.k = inputs.q.exp(), inputs.k.exp()
    o, S = ops.linear_attention(
        *(x.to(DEVICE) for x in inputs.tokens),  # pyright: ignore
        normalize=True, output_final_state=True, backend="triton",
    )  # fmt: skip
    expected, expected_S = ops.linear_attention(
        *(x.double() for x in inputs.tokens),  # pyright: ignore
        normalize=True, output_final_state=True, backend="recurrent",
    )  # fmt: skip
    assert S is not None
    assert expected_S is not None
    assert relative_error(o.cpu(), expected) <= BOUND
    assert relative_error(S.cpu(), expected_S) <= BOUND


def test_gradients_of_nothing():
    k = torch.zeros(1, 0, 2, 4, dtype=torch.float16, device=DEVICE, requires_grad=True)
    o, _ = ops.linear_attention(k, k, k, normalize=True, backend="triton")
    o.sum().backward()
    assert k.grad is not None
    assert k.grad.shape == k.shape


def test_gradients_of_a_small_divisor():
    """Outputs are 64 averages; their gradients, over a divisor of 1e-3, leave float16's range."""
    inputs = random_inputs(1, 8, 1, 16, 16, "none")
    q, k = 1e-4 * inputs.q.exp(), 0.1 * inputs.k.exp()
    tokens = [x.half().to(DEVICE) for x in (q, k, inputs.v)]

    def gradients(tokens, **options):
        tokens = [x.detach().requires_grad_() for x in tokens]
        o, _ = ops.linear_attention(*tokens, normalize=True, **options)
        (64 * o).sum().backward()
        return [x.grad for x in tokens]

    expected = gradients([x.double().cpu() for x in tokens], backend="recurrent")
    for x, y in zip(gradients(tokens, backend="triton")[1:], expected[1:], strict=True):
        assert relative_error(x.cpu(), y) <= 2e-3
