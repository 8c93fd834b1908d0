"""`ops.delta_rule`: keys that are hard, and what a step size means; the rest in `test_scans.py`."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

from assocmem import ops
from tests.ops.inputs import GATES, KEYS, delta_inputs, random_inputs
from tests.ops.operators import DELTA, worst
from tests.ops.reference import relative_error

FORMS = ("recurrent", "chunk")


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("beta", [(0.0, 2.0), (1.0, 1.0), (1.9, 2.0), (2.0, 2.0)])
def test_chunk_form_with_the_worst_keys(keys, beta):
    """With β = 2 nothing fades: the recurrent form in float32 is itself off by 8e-6 here."""
    inputs = delta_inputs(1, 1000, 1, 64, 32, "none", keys=keys, beta=beta)
    error, name = worst(DELTA.run(inputs, torch.float32, "chunk"), DELTA.expected(inputs))
    assert error <= 2e-6, name


@pytest.mark.parametrize("gate", ["head", "channel"])
@pytest.mark.parametrize("keys", KEYS)
def test_chunk_form_with_the_worst_keys_and_weak_decay(gate, keys):
    """Were the rows of ρ ⊙ K rounded, each in its own way, equal keys would be off by 3e-6."""
    inputs = delta_inputs(1, 1000, 1, 64, 32, gate, keys=keys, beta=(1.9, 2.0), strength=-8.0)
    error, name = worst(DELTA.run(inputs, torch.float32, "chunk"), DELTA.expected(inputs))
    assert error <= 2e-6, name


@pytest.mark.parametrize("gate", ["head", "channel"])
@pytest.mark.parametrize("keys", ["identical", "alternating"])
def test_chunk_form_with_draws_in_which_gradients_cancel(gate, keys):
    """Were what the triangular system gives read in float32, one would be off by 2.8e-6."""
    for seed in (3, 9, 11, 13):
        inputs = delta_inputs(
            1, 127, 1, 16, 16, gate, keys=keys, beta=(1.9, 2.0), strength=-8.0, seed=seed
        )
        error, name = worst(DELTA.run(inputs, torch.float32, "chunk"), DELTA.expected(inputs))
        assert error <= 2e-6, (seed, name)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("beta", [(0.0, 1.0), (1.0, 1.0)])
def test_chunk_form_where_errors_fade(gate, keys, beta):
    """There all of it is in float32, and here no worse than the recurrence (off by 3.1e-6)."""
    inputs = delta_inputs(1, 1000, 1, 64, 32, gate, keys=keys, beta=beta, strength=-8.0)
    error, name = worst(DELTA.run(inputs, torch.float32, "chunk"), DELTA.expected(inputs))
    assert error <= 2.5e-6, name


def solves_in(*tokens):
    """The dtypes in which the chunk form solves its systems, for keys, step sizes and decays."""
    k, *others = tokens
    solve = torch.linalg.solve_triangular
    with patch.object(torch.linalg, "solve_triangular", wraps=solve) as spied:
        ops.delta_rule(k, k, k, *others, backend="chunk")
    return {call.args[0].dtype for call in spied.call_args_list}


def with_one(x, value):
    """x with a value at one token of one head."""
    x = x.clone()
    x[0, 40, 1] = value
    return x


def test_systems_are_in_float64_where_errors_need_not_fade():
    inputs = delta_inputs(1, 70, 2, 16, 16, "channel", beta=(0.0, 1.0))
    k, beta, g = inputs.k, inputs.beta, inputs.g
    fading = [(k, beta), (k, beta, g), (k.bfloat16(), torch.ones_like(beta))]
    not_fading = [(k, with_one(beta, x)) for x in (1.1, -0.1)]
    not_fading += [(2 * k, beta / 4), (k / 2, 4 * beta), (k, beta, with_one(g, 0.1))]
    assert [solves_in(*tokens) for tokens in fading] == 3 * [{torch.float32}]
    assert [solves_in(*tokens) for tokens in not_fading] == 5 * [{torch.float64}]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_nan_costs_no_digits_where_errors_fade(gate, value):
    """Were the system built in float64 because of it, what it does not reach would change."""
    inputs = delta_inputs(1, 70, 2, 16, 16, gate, beta=(0.0, 1.0))
    clean, _ = ops.delta_rule(*inputs.tokens, backend="chunk")
    for i, x in enumerate(inputs.tokens):
        poisoned = [*inputs.tokens[:i], with_one(x, value), *inputs.tokens[i + 1 :]]
        o, _ = ops.delta_rule(*poisoned, backend="chunk")
        assert torch.equal(o[:, :40], clean[:, :40])
        assert torch.equal(o[:, :, 0], clean[:, :, 0])


def test_a_step_size_that_is_infinite_in_float32_costs_no_digits():
    inputs = delta_inputs(1, 70, 2, 16, 16, "none", beta=(0.0, 1.0))
    clean, _ = ops.delta_rule(*inputs.tokens, backend="chunk")
    *qkv, beta = inputs.tokens
    o, _ = ops.delta_rule(*qkv, with_one(beta.double(), 1e300), backend="chunk")
    assert torch.equal(o[:, :40], clean[:, :40])
    assert torch.equal(o[:, :, 0], clean[:, :, 0])


def test_errors_of_readings_at_most_add_up():
    """‖E − β k (Eᵀ k + δ)ᵀ‖² ≤ ‖E‖² + β ‖δ‖² / (2 − a): for an E along k this is an equality.

    What `errors_fade` says of writes; no code of the library takes part.
    """
    generator = torch.Generator().manual_seed(0)
    E, k, δ = (torch.randn(n, generator=generator).double() for n in ((64, 32), (64,), (32,)))
    for a in (0.1, 1.0, 1.9):
        beta = a / k.dot(k)
        worst_case = torch.outer(k / k.dot(k), δ) * (a - 1) / (2 - a)
        for before in (E, worst_case):
            after = before - beta * torch.outer(k, before.T @ k + δ)
            growth = (after.square().sum() - before.square().sum()) / (beta * δ.dot(δ) / (2 - a))
            assert growth <= 1 + 1e-9
        assert growth >= 1 - 1e-9  # of the worst case


@pytest.mark.parametrize("form", FORMS)
def test_a_step_size_of_one_replaces_the_value_of_a_key(form):
    inputs = delta_inputs(1, 100, 2, 16, 8, "none", beta=(1.0, 1.0))
    k, v = inputs.k.double(), inputs.v.double()
    o, _ = ops.delta_rule(k, k, v, inputs.beta, scale=1.0, backend=form)
    assert relative_error(o, v) <= 1e-6  # β and the lengths of the keys are rounded to float32


@pytest.mark.parametrize("form", FORMS)
def test_a_step_size_of_zero_leaves_the_memory_alone(form):
    inputs = delta_inputs(1, 100, 2, 16, 8, "none", beta=(0.0, 0.0))
    _, S = ops.delta_rule(
        *inputs.tokens, initial_state=inputs.S, output_final_state=True, backend=form
    )
    assert torch.equal(S, inputs.S)


@pytest.mark.parametrize("form", FORMS)
def test_a_step_size_of_two_mirrors(form):
    """With β = 2 and values of 0, the same key twice restores the memory."""
    inputs = delta_inputs(1, 2, 2, 16, 8, "none", keys="identical", beta=(2.0, 2.0))
    k, S = inputs.k.double(), inputs.S.double()
    k = k / k.norm(dim=-1, keepdim=True)
    v, beta = torch.zeros(1, 2, 2, 8, dtype=torch.float64), inputs.beta
    _, once = ops.delta_rule(
        k[:, :1], k[:, :1], v[:, :1], beta[:, :1],
        initial_state=S, output_final_state=True, backend=form,
    )  # fmt: skip
    _, twice = ops.delta_rule(k, k, v, beta, initial_state=S, output_final_state=True, backend=form)
    assert relative_error(once, S) > 0.1
    assert relative_error(twice, S) <= 1e-14


@pytest.mark.parametrize("form", FORMS)
def test_orthonormal_keys_are_linear_attention(form):
    inputs = random_inputs(1, 16, 2, 16, 8, "none")
    k = torch.eye(16)[None, :, None].expand(1, 16, 2, 16)
    beta = torch.ones(1, 16, 2)
    o, _ = ops.delta_rule(inputs.q, k, inputs.v, beta, backend=form)
    expected, _ = ops.linear_attention(inputs.q, k, inputs.v, backend="recurrent")
    assert relative_error(o, expected) <= 1e-6


q, beta = torch.zeros(2, 10, 3, 4), torch.zeros(2, 10, 3)
BAD = {
    "beta no tensor": (0.5, TypeError, r"beta must be a torch.Tensor, got float"),
    "beta shape": (
        beta[:, :, 0], ValueError,
        r"beta must have shape \[B, T, H\] = \[2, 10, 3\] like q, got \[2, 10\]",
    ),
    "beta of a channel": (q, ValueError, r"beta must have shape .*got \[2, 10, 3, 4\]"),
    "beta integer": (beta.long(), TypeError, r"beta must be a floating-point tensor"),
    "beta device": (beta.to("meta"), ValueError, r"beta must be on cpu like q, got meta"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_step_sizes_are_named(case):
    bad, error, message = BAD[case]
    with pytest.raises(error, match=message):
        ops.delta_rule(q, q, q, bad)


@pytest.mark.parametrize("poisoned", ["k", "v", "beta"])
def test_no_solver_sees_what_is_not_finite(poisoned, monkeypatch):
    """One that inverts blocks, as on a GPU, would carry a NaN to earlier rows."""
    solve, seen = torch.linalg.solve_triangular, []

    def looked_at(L, D, **options):
        seen.append(bool(L.isfinite().all() and D.isfinite().all()))
        return solve(L, D, **options)

    monkeypatch.setattr(torch.linalg, "solve_triangular", looked_at)
    inputs = delta_inputs(1, 70, 2, 8, 8, "head")
    getattr(inputs, poisoned)[0, 20] = torch.nan
    ops.delta_rule(*inputs.tokens, backend="chunk")
    assert seen
    assert all(seen)
