"""`ops.linear_attention`: long sequences, and the normaliser; the rest is in `test_scans.py`."""

from __future__ import annotations

import pytest
import torch

from assocmem import ops
from tests.ops import reference
from tests.ops.inputs import GATES, OnAGPU, random_inputs
from tests.ops.operators import LINEAR, worst
from tests.ops.reference import relative_error

FORMS = ("recurrent", "chunk")


@pytest.mark.parametrize("gate", GATES)
def test_chunk_form_in_float32_over_4096_tokens(gate):
    inputs = random_inputs(1, 4096, 1, 16, 16, gate, strength=-2.0)
    error, name = worst(LINEAR.run(inputs, torch.float32, "chunk"), LINEAR.expected(inputs))
    assert error <= 1e-6, name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
def test_normalize_is_the_memory_of_the_constant_one(form, gate):
    inputs = random_inputs(1, 100, 2, 12, 7, gate)
    q, k, v = inputs.q.double().exp(), inputs.k.double().exp(), inputs.v.double()
    g = None if inputs.g is None else inputs.g.double()
    o, S = ops.linear_attention(q, k, v, g, normalize=True, output_final_state=True, backend=form)
    value, S_value = reference.linear_attention(q, k, v, g)
    one, S_one = reference.linear_attention(q, k, torch.ones_like(v[..., :1]), g)
    assert relative_error(o, value / one) <= 1e-13
    assert S is not None
    assert S.shape == (1, 2, 12, 8)
    assert relative_error(S, torch.cat((S_value, S_one), -1)) <= 1e-13


def test_normalized_positive_weights_average_the_values():
    inputs = random_inputs(1, 100, 2, 12, 7, "none")
    ones = torch.full_like(inputs.v, 3.0)
    o, _ = ops.linear_attention(inputs.q.exp(), inputs.k.exp(), ones, normalize=True)
    torch.testing.assert_close(o, ones)


def test_the_state_of_the_normaliser_has_a_column_more():
    q, S = torch.zeros(2, 10, 3, 4), torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"initial_state must have shape .* = \[2, 3, 4, 5\]"):
        ops.linear_attention(q, q, q, initial_state=S, normalize=True)
    with pytest.raises(TypeError, match="normalize must be a bool, got NoneType"):
        ops.linear_attention(q, q, q, normalize=None)


def test_auto_takes_the_chunk_form_on_a_cpu():
    assert ops.backend_for(torch.zeros(2, 10, 3, 4)) == "chunk"


@pytest.mark.parametrize(
    ("capability", "K", "dtype", "form"),
    [
        ((7, 5), 4, torch.float16, "chunk"),
        ((8, 0), 128, torch.float16, "triton"),
        ((8, 0), 128, torch.bfloat16, "triton"),
        ((8, 0), 129, torch.float16, "chunk"),
        ((8, 0), 4, torch.float64, "chunk"),
    ],
)
def test_auto_takes_triton_where_it_can(capability, K, dtype, form, monkeypatch):
    pytest.importorskip("triton", reason="triton is missing")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr("assocmem.ops.backend._interpreted", lambda: False)  # as for a user
    on_a_gpu = torch.zeros(2, 10, 3, K, dtype=dtype).as_subclass(OnAGPU)
    assert ops.backend_for(on_a_gpu) == form
    with pytest.raises(TypeError, match=r"q must be a torch.Tensor, got list"):
        ops.backend_for([1.0])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_a_normalised_reading(form):
    inputs = random_inputs(1, 5, 1, 3, 2, "head")
    q, k, v, g = inputs.tokens
    leaves = [x.double().requires_grad_() for x in (q.exp(), k.exp(), v, g)]

    def read(*tokens):
        return ops.linear_attention(*tokens, normalize=True, backend=form)[0]

    assert torch.autograd.gradcheck(read, leaves)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_round_the_divisor(dtype):
    inputs = random_inputs(1, 100, 2, 12, 7, "none")
    q, k, v = (x.to(dtype) for x in (inputs.q.exp(), inputs.k.exp(), inputs.v))
    o, _ = ops.linear_attention(q, k, v, normalize=True)
    q, k, v = (x.double() for x in (q, k, v))
    value, _ = reference.linear_attention(q, k, v)
    one, _ = reference.linear_attention(q, k, torch.ones_like(v[..., :1]))
    rtol = 0.51 * torch.finfo(dtype).eps  # the output's own rounding, and that of float32
    torch.testing.assert_close(o.double(), value / one, rtol=rtol, atol=1e-7)
