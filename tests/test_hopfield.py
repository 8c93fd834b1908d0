"""The modern Hopfield network: its energy, its step, and what the step does to the energy."""

import math

import pytest
import torch

from assocmem import hopfield, ops


def patterns(N=7, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, d, generator=generator, dtype=torch.float64)


def test_energy_is_the_definition():
    k, x = patterns(), patterns(3, seed=1)
    for state, got in zip(x, hopfield.energy(x, k, 1.7), strict=True):
        total = sum(math.exp(1.7 * float(pattern @ state)) for pattern in k)
        expected = -math.log(total) / 1.7 + float(state @ state) / 2
        assert got.item() == pytest.approx(expected, rel=1e-13)


def test_a_step_is_one_read_of_softmax_attention():
    k, x = patterns(), patterns(1, seed=1)
    # The last of N tokens sees all keys; only its query matters.
    q = torch.cat((torch.zeros(6, 5, dtype=torch.float64), x))
    q, kv = q[None, :, None], k[None, :, None]
    o = ops.softmax_attention(q, kv, kv, scale=2.5)
    torch.testing.assert_close(hopfield.update(x, k, 2.5)[0], o[0, -1, 0])


def test_a_step_goes_down_the_gradient_of_the_energy():
    k, x = patterns(), patterns(4, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(hopfield.energy(x, k, 1.7).sum(), x)
    torch.testing.assert_close(hopfield.update(x, k, 1.7), x - gradient, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("beta", [0.1, 1.0, 20.0])
def test_the_energy_falls_by_half_the_squared_step_or_more(beta):
    k, x = patterns(20, 8), 3 * patterns(50, 8, seed=1)
    for _ in range(5):
        new = hopfield.update(x, k, beta)
        fall = hopfield.energy(x, k, beta) - hopfield.energy(new, k, beta)
        assert (fall >= (new - x).square().sum(-1) / 2 - 1e-12).all()
        x = new


def test_a_cold_network_answers_with_the_nearest_pattern():
    k = patterns()
    k = k / k.norm(dim=1, keepdim=True)
    x = k + 0.1 * patterns(seed=1)
    assert (x @ k.T).argmax(1).tolist() == list(range(7))
    torch.testing.assert_close(hopfield.update(x, k, 1e4), k, rtol=0, atol=1e-12)


def test_a_hot_network_answers_with_the_mean():
    k, x = patterns(), patterns(1, seed=1)
    torch.testing.assert_close(hopfield.update(x, k, 1e-9)[0], k.mean(0), rtol=0, atol=1e-7)


@pytest.mark.parametrize("function", [hopfield.energy, hopfield.update])
def test_bad_input_is_named(function):
    with pytest.raises(ValueError, match=r"patterns must have shape \[N, d\].*d = 4.*got \[7, 5\]"):
        function(torch.zeros(2, 4, dtype=torch.float64), patterns(), 1.0)
    with pytest.raises(ValueError, match=r"patterns must have shape .* got \[0, 5\]"):
        function(patterns(), patterns(0), 1.0)
    with pytest.raises(ValueError, match=r"patterns must have shape .* got \[5\]"):
        function(patterns(), patterns()[0], 1.0)
    with pytest.raises(TypeError, match=r"x must be a torch.Tensor, got list"):
        function([0.0], patterns(), 1.0)
    with pytest.raises(TypeError, match=r"patterns must be torch.float32 like x, got .*float64"):
        function(patterns().float(), patterns(), 1.0)
    with pytest.raises(ValueError, match=r"beta must be finite and > 0, got 0\.0"):
        function(patterns(), patterns(), 0.0)
    with pytest.raises(ValueError, match=r"beta must be finite and > 0, got inf"):
        function(patterns(), patterns(), math.inf)
    for beta in ("a", True, torch.ones(2)):
        with pytest.raises(TypeError, match=r"beta must be a number, got"):
            function(patterns(), patterns(), beta)
    with pytest.raises(ValueError, match=r"patterns must be on cpu like x, got meta"):
        function(patterns(), patterns().to("meta"), 1.0)
    with pytest.raises(ValueError, match=r"x must have shape \[..., d\], got \[\]"):
        function(patterns()[0, 0], patterns(), 1.0)
