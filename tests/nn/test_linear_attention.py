"""`nn.LinearAttention`: its definition, and what it takes for a feature map."""

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
    attention, x = layer(), torch.randn(2, 150, 24, dtype=torch.float64)
    y, _ = attention(x)
    q, k, v = (
        proj(x).unflatten(-1, (3, 8)).transpose(1, 2)
        for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    weights = (elu_plus_one(q) @ elu_plus_one(k).mT).tril()
    o = (weights / weights.sum(-1, keepdim=True)) @ v
    assert relative_error(y, attention.o_proj(o.transpose(1, 2).flatten(-2))) <= 1e-13


@pytest.mark.parametrize("feature_map", [elu_plus_one, PositiveRandomFeatures(9).feature_map])
def test_a_graph_of_any_length(feature_map):
    attention = layer(feature_map=feature_map)
    torch.compiler.reset()
    compiled = torch.compile(attention, fullgraph=True, dynamic=True, backend="aot_eager")
    for T in (9, 20):
        x = torch.randn(2, T, 24, dtype=torch.float64)
        assert relative_error(compiled(x)[0].detach(), attention(x)[0].detach()) <= 1e-13


def test_a_kernel_function_is_no_feature_map():
    kernel_function: Any = Polynomial()
    with pytest.raises(TypeError, match="such as the feature_map of a Polynomial"):
        LinearAttention(8, 2, feature_map=kernel_function)


@pytest.mark.parametrize("no_function", ["relu", None])
def test_what_is_no_feature_map_is_named(no_function):
    with pytest.raises(TypeError, match="feature_map must be a function of one tensor"):
        LinearAttention(24, 3, feature_map=no_function)
