"""`nn.GatedLinearAttention` against its equations."""

from __future__ import annotations

import torch

from assocmem.nn import GatedLinearAttention
from tests.nn.reference import rms_norm, silu, split
from tests.ops.reference import linear_attention, relative_error


@torch.no_grad()
def test_equals_its_equations():
    torch.manual_seed(0)
    layer = GatedLinearAttention(24, 3, d_key=4, d_value=10).double()
    layer.o_norm.weight.normal_()
    x = torch.randn(2, 70, 24, dtype=torch.float64)
    q, k, v, gate = (
        split(x @ proj.weight.T, 3)
        for proj in (layer.q_proj, layer.k_proj, layer.v_proj, layer.gate_proj)
    )
    first, second = layer.decay_proj
    assert first.weight.shape == (16, 24)
    logits = split(x @ first.weight.T @ second.weight.T + second.bias, 3)
    alpha = (1 / (1 + (-logits).exp())) ** (1 / 16)
    o, _ = linear_attention(q, k, v, alpha.log(), scale=0.5)
    o = layer.o_norm.weight * rms_norm(o) * silu(gate)
    assert relative_error(layer(x)[0], o.flatten(-2) @ layer.o_proj.weight.T) <= 1e-12


@torch.no_grad()
def test_the_memory_never_grows_by_itself():
    layer = GatedLinearAttention(24, 3)
    g = layer.log_decay(1000 * torch.randn(2, 70, 24))
    assert g.shape == (2, 70, 3, 8)
    assert g.max() <= 0
    assert g.min() < -1
