"""`nn.FeedForwardMemory` against its definition in loops, and its edits against their theorem."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from assocmem.nn import (
    Block,
    FeedForwardMemory,
    LinearAttention,
    MixtureOfExperts,
    ProductKeyMemory,
)
from tests.nn.reference import silu
from tests.ops.reference import relative_error

D, M = 6, 9
KERNELS = ("relu", "relu2", "gelu", "swiglu", "exponential", "softmax", "solu")


def memory(kernel: str, seed: int = 0) -> FeedForwardMemory:
    torch.manual_seed(seed)
    layer = FeedForwardMemory(D, M, kernel).double()
    if kernel == "solu":
        layer.norm.weight.data.normal_()
        layer.norm.bias.data.normal_()
    return layer


def inputs(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def definition(layer: FeedForwardMemory, x: Tensor) -> Tensor:
    """Σ_i v_i κ_i(x) for one token, a unit at a time, in the standard library's mathematics."""
    k, v = layer.up_proj.weight.detach(), layer.down_proj.weight.detach()
    z = [sum(k[i, c] * x[c] for c in range(D)).item() for i in range(M)]
    total = sum(math.exp(s) for s in z)
    if layer.kernel == "relu":
        a = [max(0.0, s) for s in z]
    elif layer.kernel == "relu2":
        a = [max(0.0, s) ** 2 for s in z]
    elif layer.kernel == "gelu":
        a = [s * 0.5 * (1 + math.erf(s / math.sqrt(2))) for s in z]
    elif layer.kernel == "swiglu":
        g = layer.gate_proj.weight.detach() @ x
        a = [silu(g[i]).item() * z[i] for i in range(M)]
    elif layer.kernel == "exponential":
        a = [math.exp(s) for s in z]
    elif layer.kernel == "softmax":
        a = [math.exp(s) / total for s in z]
    else:
        a = [s * math.exp(s) / total for s in z]
        mean = sum(a) / M
        deviation = math.sqrt(sum((s - mean) ** 2 for s in a) / M + 1e-5)
        w, b = layer.norm.weight.detach(), layer.norm.bias.detach()
        a = [(a[i] - mean) / deviation * w[i].item() + b[i].item() for i in range(M)]
    return sum(v[:, i] * a[i] for i in range(M))


@pytest.mark.parametrize("kernel", KERNELS)
@torch.no_grad()
def test_an_answer_is_the_sum_over_its_units(kernel):
    layer, x = memory(kernel), inputs(2, 3, D)
    expected = torch.stack([definition(layer, y) for y in x.reshape(-1, D)]).view(2, 3, D)
    assert relative_error(layer(x), expected) <= 1e-13


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_reach_every_weight(kernel):
    layer = memory(kernel)
    layer(inputs(4, D)).square().sum().backward()
    assert all(w.grad is not None and w.grad.norm() > 0 for w in layer.parameters())
    assert torch.autograd.gradcheck(layer, inputs(2, D).requires_grad_())


def test_the_block_has_the_numbers_of_an_ordinary_feed_forward():
    block = Block(LinearAttention(24, 3))
    assert sum(w.numel() for w in block.feed_forward.parameters()) == 8 * 24 * 24
    assert block.feed_forward.kernel == "swiglu"


@pytest.mark.parametrize("kernel", KERNELS)
@torch.no_grad()
def test_a_written_fact_is_answered(kernel):
    layer, x, y = memory(kernel), inputs(D), inputs(D, seed=2)
    layer.write(x, y)
    assert relative_error(layer(x), y) <= 1e-12
    layer.forget(x)
    assert layer(x).norm() <= 1e-12


@torch.no_grad()
def test_a_plain_write_is_the_least_change():
    """The least-norm solution of Δ a = r, row by row, by the pseudo-inverse of aᵀ."""
    layer, x, y = memory("relu"), inputs(D), inputs(D, seed=2)
    before = layer.down_proj.weight.clone()
    a, r = layer.activations(x), y - layer(x)
    layer.write(x, y)
    expected = torch.outer(r, torch.linalg.pinv(a[None, :])[:, 0])
    assert relative_error(layer.down_proj.weight - before, expected) <= 1e-12


@torch.no_grad()
def test_a_sparing_write_moves_the_others_least():
    """Any other write of the same fact has a larger objective, and the formula's is stationary."""
    layer, x, y, others = memory("gelu"), inputs(D), inputs(D, seed=2), inputs(40, D, seed=3)
    before = layer.down_proj.weight.clone()
    a, B = layer.activations(x), layer.activations(others)
    layer.write(x, y, spare=others, ridge=0.01)
    change = layer.down_proj.weight - before
    assert relative_error(layer(x), y) <= 1e-12
    weight = 0.01 * B.square().sum() / B.numel()

    def objective(delta: Tensor) -> float:
        moved = (B @ delta.T).square().sum(1).mean()
        return (moved + weight * delta.square().sum()).item()

    generator = torch.Generator().manual_seed(4)
    for _ in range(20):
        free = torch.randn(D, M, generator=generator, dtype=torch.float64)
        free -= torch.outer(free @ a, a) / (a @ a)  # changes that keep the new answer
        slope = objective(change + 1e-4 * free) - objective(change - 1e-4 * free)
        assert objective(change + 0.1 * free) > objective(change)
        assert abs(slope) <= 1e-9 * objective(change)


@torch.no_grad()
def test_inputs_that_excite_no_unit_are_spared_by_any_write():
    with_them, without = memory("relu"), memory("relu")
    x, y = inputs(D), inputs(D, seed=2)
    with_them.write(x, y, spare=torch.zeros(4, D, dtype=torch.float64))
    without.write(x, y)
    assert torch.equal(with_them.down_proj.weight, without.down_proj.weight)


@torch.no_grad()
def test_half_precision_writes_what_double_precision_does():
    x, y, others = inputs(D), inputs(D, seed=2), inputs(40, D, seed=3)
    exact, half = memory("gelu"), memory("gelu").bfloat16()
    exact.write(x, y, spare=others)
    half.write(x.bfloat16(), y.bfloat16(), spare=others.bfloat16())
    assert relative_error(half.down_proj.weight.double(), exact.down_proj.weight) <= 0.05


@torch.no_grad()
def test_a_sparing_write_under_autocast():
    x, y, others = inputs(D).float(), inputs(D, seed=2).float(), inputs(40, D, seed=3).float()
    exact, mixed = memory("gelu").float(), memory("gelu").float()
    exact.write(x, y, spare=others)
    with torch.autocast("cpu", torch.bfloat16):
        mixed.write(x, y, spare=others)
    assert relative_error(mixed.down_proj.weight, exact.down_proj.weight) <= 0.05


@torch.no_grad()
def test_only_values_change():
    layer, x, y = memory("swiglu"), inputs(D), inputs(D, seed=2)
    keys, gates = layer.up_proj.weight.clone(), layer.gate_proj.weight.clone()
    layer.write(x, y, spare=inputs(5, D, seed=3))
    assert torch.equal(layer.up_proj.weight, keys)
    assert torch.equal(layer.gate_proj.weight, gates)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: FeedForwardMemory(D, M, "tanh"), ValueError, "kernel must be one of .*'tanh'"),
        (lambda: FeedForwardMemory(0, M), ValueError, "d_model must be at least 1, got 0"),
        (lambda: FeedForwardMemory(D, 2.5), TypeError, "d_hidden must be an integer, got float"),
        (lambda: memory("relu")(inputs(3)), ValueError, r"d_model = 6, got \[3\]"),
        (lambda: memory("relu").write(inputs(2, D), inputs(D)), ValueError, "x must have shape"),
        (lambda: memory("relu").write(inputs(D), inputs(3)), ValueError, "y must have shape"),
        (
            lambda: memory("relu").write(inputs(D), inputs(D), spare=inputs(D)),
            ValueError,
            r"spare must have shape \[N, d_model\] with N >= 1 .*, got \[6\]",
        ),
        (
            lambda: memory("relu").write(inputs(D), inputs(D), spare=inputs(4, 3)),
            ValueError,
            r"spare must have shape .* d_model = 6, got \[4, 3\]",
        ),
        (
            lambda: memory("relu").write(inputs(D), inputs(D), spare=inputs(4, D).float()),
            TypeError,
            r"spare must be torch\.float64 like weight, got torch\.float32",
        ),
        (
            lambda: memory("relu").write(inputs(D), inputs(D), spare=[0.0]),  # pyright: ignore
            TypeError,
            r"spare must be a torch\.Tensor, got list",
        ),
        (
            lambda: memory("relu").write(inputs(D), inputs(D), spare=inputs(4, D).log()),
            ValueError,
            "spare must be finite, got nan",
        ),
        (
            lambda: memory("relu").write(inputs(D), inputs(D).float()),
            TypeError,
            r"y must be torch\.float64 like weight, got torch\.float32",
        ),
        (
            lambda: memory("relu").write(inputs(D).float(), inputs(D).float()),
            TypeError,
            r"x must be torch\.float64 like weight, got torch\.float32",
        ),
        (
            lambda: memory("relu")(inputs(D).float()),
            TypeError,
            r"x must be torch\.float64 like the weights, got torch\.float32",
        ),
        (
            lambda: memory("relu")(inputs(D).to("meta")),
            ValueError,
            "x must be on cpu like the weights, got meta",
        ),
        (
            lambda: memory("relu").write(inputs(D), inputs(D).log()),
            ValueError,
            "y must be finite, got nan",
        ),
        (
            lambda: memory("relu").write(inputs(D), inputs(D), ridge=0),
            ValueError,
            "ridge must be finite and > 0, got 0",
        ),
        (
            lambda: memory("relu").forget(torch.zeros(D, dtype=torch.float64)),
            ValueError,
            "x must excite at least one unit",
        ),
    ],
)
def test_bad_input_is_named(build, error, message):
    with pytest.raises(error, match=message):
        build()


@torch.no_grad()
def test_forgetting_is_writing_zero():
    x, others = inputs(D), inputs(40, D, seed=3)
    forgot, wrote = memory("gelu"), memory("gelu")
    forgot.forget(x, spare=others, ridge=0.1)
    wrote.write(x, torch.zeros_like(x), spare=others, ridge=0.1)
    assert torch.equal(forgot.down_proj.weight, wrote.down_proj.weight)


@torch.no_grad()
def test_the_ridge_is_a_thousandth_unless_another_is_asked_for():
    x, y, others = inputs(D), inputs(D, seed=2), inputs(40, D, seed=3)
    default, asked = memory("gelu"), memory("gelu")
    default.write(x, y, spare=others)
    default.forget(y, spare=others)
    asked.write(x, y, spare=others, ridge=1e-3)
    asked.forget(y, spare=others, ridge=1e-3)
    assert torch.equal(default.down_proj.weight, asked.down_proj.weight)


@pytest.mark.parametrize(
    "kind",
    [
        partial(FeedForwardMemory, D, M),
        partial(MixtureOfExperts, D, M, n_experts=4, top_k=2),
        partial(ProductKeyMemory, D, n_keys=7, top_k=3),
    ],
)
@torch.no_grad()
def test_under_autocast_a_memory_takes_tokens_of_either_dtype(kind):
    layer, x = kind(), inputs(3, D).float()
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        for tokens in (x, x.bfloat16()):
            assert relative_error(layer(tokens), expected) <= 0.05


@torch.no_grad()
def test_sequences_of_several_lengths_go_through_as_their_tokens():
    layer, x = memory("gelu"), inputs(5, D)
    jagged = torch.nested.nested_tensor(list(x.split([2, 3])), layout=torch.jagged)
    torch.testing.assert_close(layer(jagged).values(), layer(x))
