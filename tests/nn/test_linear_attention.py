"""`nn.LinearAttention`: its definition, and pieces that equal the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from assocmem.nn import LinearAttention
from assocmem.similarity import Polynomial, PositiveRandomFeatures, elu_plus_one
from tests.ops.reference import relative_error


def layer(**options) -> LinearAttention:
    torch.manual_seed(0)
    return LinearAttention(24, 3, **options).double()


def test_equals_attention_with_positive_weights():
    attention, x = layer(), torch.randn(2, 50, 24, dtype=torch.float64)
    y, _ = attention(x)
    q, k, v = (
        proj(x).unflatten(-1, (3, 8)).transpose(1, 2)
        for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    weights = (elu_plus_one(q) @ elu_plus_one(k).mT).tril()
    o = (weights / weights.sum(-1, keepdim=True)) @ v
    assert relative_error(y, attention.o_proj(o.transpose(1, 2).flatten(-2))) <= 1e-13


@pytest.mark.parametrize("options", [{}, {"normalize": False}, {"d_key": 4, "d_value": 5}])
def test_pieces_equal_the_whole(options):
    attention, x = layer(**options), torch.randn(2, 150, 24, dtype=torch.float64)
    whole, final = attention(x)
    state, pieces = None, []
    for piece in x.split([1, 80, 69], 1):
        y, state = attention(piece, state)
        pieces.append(y)
    assert relative_error(torch.cat(pieces, 1), whole) <= 1e-13
    assert relative_error(state, final) <= 1e-13


@pytest.mark.parametrize("feature_map", [elu_plus_one, PositiveRandomFeatures(9).feature_map])
def test_a_graph_of_any_length(feature_map):
    attention = layer(feature_map=feature_map)
    torch.compiler.reset()
    compiled = torch.compile(attention, fullgraph=True, dynamic=True, backend="aot_eager")
    for T in (9, 20):
        x = torch.randn(2, T, 24, dtype=torch.float64)
        assert relative_error(compiled(x)[0].detach(), attention(x)[0].detach()) <= 1e-13


def test_a_state_carries_gradients():
    attention, x = layer(), torch.randn(1, 20, 24, dtype=torch.float64, requires_grad=True)
    _, state = attention(x[:, :10])
    y, _ = attention(x[:, 10:], state)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert (dx[:, :10].norm(dim=-1) > 0).all()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="d_model must be a multiple of n_heads = 5"):
        LinearAttention(24, 5)
    with pytest.raises(ValueError, match=r"x must have shape .* d_model = 24, got \[2, 8, 23\]"):
        layer()(torch.zeros(2, 8, 23))
    kernel_function: Any = Polynomial()
    with pytest.raises(TypeError, match="such as the feature_map of a Polynomial"):
        LinearAttention(8, 2, feature_map=kernel_function)


@pytest.mark.parametrize("no_function", ["relu", None])
def test_what_is_no_feature_map_is_named(no_function):
    with pytest.raises(TypeError, match="feature_map must be a function of one tensor"):
        LinearAttention(24, 3, feature_map=no_function)
