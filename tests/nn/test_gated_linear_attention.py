"""`nn.Retention` and `nn.GatedLinearAttention` against their equations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from assocmem.nn import GatedLinearAttention, Retention
from tests.nn.reference import rms_norm, silu, split
from tests.ops.reference import linear_attention, relative_error


def layer_of(Layer: type[Retention]) -> Retention:
    torch.manual_seed(0)
    layer = Layer(24, 3, d_key=4, d_value=10).double()
    torch.nn.init.normal_(layer.o_norm.weight)
    return layer


def check(layer: Retention, x: Tensor, alpha: Tensor) -> None:
    """What the layer makes of x is what a memory with the decays alpha `[B, T, H, K]` makes."""
    q, k, v, gate = (
        split(x @ proj.weight.T, 3)
        for proj in (layer.q_proj, layer.k_proj, layer.v_proj, layer.gate_proj)
    )
    o, _ = linear_attention(q, k, v, alpha.log(), scale=0.5)
    o = layer.o_norm.weight * rms_norm(o) * silu(gate)
    assert relative_error(layer(x)[0], o.flatten(-2) @ layer.o_proj.weight.T) <= 1e-12


@torch.no_grad()
def test_retention_equals_its_equations():
    layer, x = layer_of(Retention), torch.randn(2, 70, 24, dtype=torch.float64)
    decays = torch.tensor([31 / 32, 63 / 64, 127 / 128], dtype=torch.float64)
    check(layer, x, decays[:, None].expand(2, 70, 3, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_retention_fades_alike_in_half_precision(dtype):
    """In float16 1 − 2^(−5−h) is 1 from head 6 on, and 2^(−5−h) is 0 from head 20 on."""
    layer, x = Retention(48, 24), torch.zeros(1, 1, 48)
    expected = torch.log1p(-(2.0 ** -torch.arange(5, 29))).view(1, 1, 24)
    torch.testing.assert_close(layer.log_decay(x.to(dtype)), expected)


@torch.no_grad()
def test_gated_linear_attention_equals_its_equations():
    layer, x = layer_of(GatedLinearAttention), torch.randn(2, 70, 24, dtype=torch.float64)
    first, second = layer.decay_proj
    assert first.weight.shape == (16, 24)
    logits = split(x @ first.weight.T @ second.weight.T + second.bias, 3)
    check(layer, x, (1 / (1 + (-logits).exp())) ** (1 / 16))


@torch.no_grad()
def test_the_memory_never_grows_by_itself():
    layer = GatedLinearAttention(24, 3)
    g = layer.log_decay(1000 * torch.randn(2, 70, 24))
    assert g.shape == (2, 70, 3, 8)
    assert g.max() <= 0
    assert g.min() < -1
