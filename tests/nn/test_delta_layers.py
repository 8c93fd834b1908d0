"""The layers of the delta rule family against their papers' equations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from assocmem import nn
from assocmem.nn import DeltaNet, DeltaProduct, GatedDeltaNet, KimiDeltaAttention, SoftplusDecay
from assocmem.nn.delta_net import l2_normalize
from tests.nn.reference import rms_norm, short_convolution, silu, split, unit
from tests.ops.reference import delta_rule, relative_error

H, K, V = 3, 4, 10


def layer_of(Layer: type[DeltaNet], **options) -> Any:
    """In float64, with the norm's weights, which start at 1, made different."""
    torch.manual_seed(2)
    layer = Layer(24, H, d_key=K, d_value=V, **options).double()
    torch.nn.init.normal_(layer.o_norm.weight)
    return layer


def read_outs(layer: Any, x: Tensor, beta: Tensor, g: Tensor | None) -> Tensor:
    """The heads' outputs after RMSNorm, `[B, T, H, V]`."""
    kernels = layer.conv.weight.split([H * K, H * K, H * V], 1)
    q, k, v = (
        split(short_convolution(x @ proj.weight.T, kernel), H)
        for proj, kernel in zip((layer.q_proj, layer.k_proj, layer.v_proj), kernels, strict=True)
    )
    o, _ = delta_rule(unit(q), unit(k), v, beta, g, scale=1.0)
    return layer.o_norm.weight * rms_norm(o)


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def tokens() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 70, 24, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("factor", [1, 2])
@torch.no_grad()
def test_delta_net(factor):
    layer = layer_of(DeltaNet, allow_negative_eigenvalues=factor == 2)
    x = tokens()
    beta = factor * sigmoid(x @ layer.beta_proj.weight.T)
    o = read_outs(layer, x, beta, None)
    expected = o.flatten(-2) @ layer.o_proj.weight.T
    assert relative_error(layer(x)[0], expected) <= 1e-12


class Fading(DeltaProduct):
    """DeltaProduct that keeps more of what it holds in each further head."""

    def log_decay(self, x):
        return -(0.5 ** torch.arange(1, H + 1, dtype=x.dtype)).expand(*x.shape[:2], -1)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("kind", [DeltaProduct, Fading])
@torch.no_grad()
def test_delta_product(kind, factor):
    n = 3
    layer = layer_of(kind, n_corrections=n, allow_negative_eigenvalues=factor == 2)
    x = tokens()
    g = layer.log_decay(x)
    decay = torch.ones(2, 70, H, dtype=x.dtype) if g is None else g.exp()
    filters = layer.conv.weight.split([H * K, n * H * K, n * H * V], 1)
    q, k, v = (
        short_convolution(x @ proj.weight.T, kernel)
        for proj, kernel in zip((layer.q_proj, layer.k_proj, layer.v_proj), filters, strict=True)
    )
    q, beta = unit(split(q, H)), factor * sigmoid(x @ layer.beta_proj.weight.T)
    k, v, beta = (
        unit(k.reshape(2, 70, n, H, K)),
        v.reshape(2, 70, n, H, V),
        beta.reshape(2, 70, n, H),
    )
    S, o = torch.zeros(2, H, K, V, dtype=x.dtype), torch.zeros(2, 70, H, V, dtype=x.dtype)
    for t in range(70):
        S = decay[:, t, :, None, None] * S
        for i in range(n):
            recalled = (k[:, t, i, :, :, None] * S).sum(2)
            u = beta[:, t, i, :, None] * (v[:, t, i] - recalled)
            S = S + k[:, t, i, :, :, None] * u[:, :, None, :]
        o[:, t] = (q[:, t, :, :, None] * S).sum(2)
    o = layer.o_norm.weight * rms_norm(o)
    y, state = layer(x)
    assert relative_error(y, o.flatten(-2) @ layer.o_proj.weight.T) <= 1e-12
    assert relative_error(state.S, S) <= 1e-12


def test_a_delta_product_has_a_correction_or_more():
    with pytest.raises(ValueError, match="n_corrections must be at least 1, got 0"):
        DeltaProduct(24, H, n_corrections=0)
    with pytest.raises(TypeError, match="n_corrections must be an integer, got bool"):
        DeltaProduct(24, H, n_corrections=True)


@torch.no_grad()
def test_gated_delta_net():
    layer = layer_of(GatedDeltaNet)
    x = tokens()
    A, bias = layer.decay.A_log[:, 0].exp(), layer.decay.dt_bias[:, 0]
    dt = (1 + (x @ layer.a_proj.weight.T + bias).exp()).log()
    o = read_outs(layer, x, sigmoid(x @ layer.beta_proj.weight.T), -A * dt)
    gate = silu(split(x @ layer.gate_proj.weight.T, H))
    expected = (o * gate).flatten(-2) @ layer.o_proj.weight.T
    assert relative_error(layer(x)[0], expected) <= 1e-12


@torch.no_grad()
def test_kimi_delta_attention():
    layer = layer_of(KimiDeltaAttention)
    assert (layer.decay.A_log.shape, layer.decay.dt_bias.shape) == ((H, 1), (H, K))
    x = tokens()
    first, second = layer.a_proj
    a = split(x @ first.weight.T @ second.weight.T, H)
    dt = (1 + (a + layer.decay.dt_bias).exp()).log()
    g = -layer.decay.A_log.exp() * dt
    o = read_outs(layer, x, sigmoid(x @ layer.beta_proj.weight.T), g)
    first, second = layer.gate_proj
    gate = sigmoid(split(x @ first.weight.T @ second.weight.T + second.bias, H))
    expected = (o * gate).flatten(-2) @ layer.o_proj.weight.T
    assert relative_error(layer(x)[0], expected) <= 1e-12


@pytest.mark.parametrize("how", ["module", "autocast"])
@pytest.mark.parametrize("name", ["DeltaNet", "DeltaProduct", "DeltaFormer"])
@torch.no_grad()
def test_rounded_keys_do_not_let_a_memory_grow(name, how):
    """In bfloat16 a key may be longer than 1; a β of 2 would then make S larger at every token."""
    options = {"erase": "linear"} if name == "DeltaFormer" else {}
    for seed in range(8):
        torch.manual_seed(seed)
        layer = getattr(nn, name)(64, 1, allow_negative_eigenvalues=True, **options)
        x = torch.randn(1, 1, 64)
        logit = layer.beta_proj(x)[0, 0, 0]
        layer.beta_proj.weight.mul_(60 / logit)  # β is 2 in bfloat16
        if how == "module":
            layer, x = layer.bfloat16(), x.bfloat16()
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
            _, state = layer(x.expand(1, 1000, 64))
        assert (state.u if name == "DeltaFormer" else state.S).abs().max() <= 4


def test_a_state_of_another_kind_is_named():
    for Layer in (DeltaNet, DeltaProduct):
        with pytest.raises(TypeError, match=r"state must be \(S, recent\), got int"):
            Layer(24, H)(torch.zeros(2, 5, 24), 3)  # pyright: ignore[reportArgumentType]
        _, state = Layer(24, H)(torch.zeros(2, 5, 24))
        with pytest.raises(ValueError, match=r"state\.S must have shape"):
            Layer(24, H)(torch.zeros(2, 5, 24), state._replace(S=state.S[..., 1:]))


def test_keys_have_length_one():
    x = torch.randn(50, 16)
    assert torch.autograd.gradcheck(l2_normalize, x[:3].double().requires_grad_())
    torch.testing.assert_close(l2_normalize(x).norm(dim=-1), torch.ones(50))
    torch.testing.assert_close(l2_normalize(1000 * x), l2_normalize(x))
    long = torch.full((1, 64), 50.0)  # the square of its length is infinite in float16
    torch.testing.assert_close(l2_normalize(long.half()), torch.full((1, 64), 0.125).half())


@pytest.mark.parametrize("Layer", [DeltaNet, GatedDeltaNet, KimiDeltaAttention])
@torch.no_grad()
def test_beta_reaches_one_or_two(Layer):
    x = 100 * tokens()
    for negative, top in [(False, 1), (True, 2)]:
        beta = Layer(24, H, allow_negative_eigenvalues=negative).double().beta(x)
        assert beta.shape == (2, 70, H)
        assert 0 <= beta.min() < 1e-6
        assert top - 1e-6 < beta.max() <= top


@pytest.mark.parametrize(
    ("Layer", "shape"), [(GatedDeltaNet, (2, 70, H)), (KimiDeltaAttention, (2, 70, H, 8))]
)
@torch.no_grad()
def test_the_memory_never_grows_by_itself(Layer, shape):
    g = Layer(24, H).double().log_decay(10 * tokens())
    assert g.shape == shape
    assert g.max() <= 0
    assert g.min() < -1


@pytest.mark.parametrize("Layer", [GatedDeltaNet, KimiDeltaAttention])
@torch.no_grad()
def test_autocast_keeps_decays_in_float32(Layer):
    with torch.autocast("cpu", torch.bfloat16):
        assert Layer(24, H).log_decay(tokens().float()).dtype == torch.float32


def test_a_decay_of_other_tokens_is_named():
    decay = SoftplusDecay(2, 4)
    with pytest.raises(ValueError, match=r"a must have shape .* = \[2, 4\], got \[1, 5, 2, 1\]"):
        decay(torch.zeros(1, 5, 2, 1))
    with pytest.raises(TypeError, match=r"a must be a tensor of floats, got torch\.int64"):
        decay(torch.zeros(1, 5, 2, 4).long())
    with pytest.raises(ValueError, match="a must be on cpu like the weights, got meta"):
        decay(torch.zeros(1, 5, 2, 4, device="meta"))
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        SoftplusDecay(2, 0)


@pytest.mark.parametrize("channels", [1, 64])
@torch.no_grad()
def test_initial_rates_and_time_steps(channels):
    decay = SoftplusDecay(4096 // channels, channels)
    A = decay.A_log.exp()
    assert A.min() >= 1 - 1e-5
    assert A.max() <= 16 + 1e-5
    dt = F.softplus(decay.dt_bias)
    assert dt.min() >= 1e-3 - 1e-7
    assert dt.max() <= 1e-1 + 1e-6
    # Uniform: 4096 draws have a mean within 5 standard errors of the middle.
    for x, low, high in [(A, 1, 16), (dt.log(), math.log(1e-3), math.log(1e-1))]:
        error = (high - low) / math.sqrt(12 * x.numel())
        assert abs(x.mean() - (low + high) / 2) <= 5 * error
    torch.testing.assert_close(decay(torch.zeros_like(dt)), -A * dt)
