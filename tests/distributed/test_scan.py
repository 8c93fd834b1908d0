"""Split scans equal those of one process: outputs and all gradients, with the gloo backend."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch
import torch.distributed as dist

from assocmem import distributed, ops
from tests.distributed.ranks import on_ranks
from tests.ops.inputs import GATES, Inputs, delta_inputs, random_inputs
from tests.ops.reference import relative_error

T, H, K, V = 150, 2, 8, 6
SPLITS = [(100, 50), (150, 0), (0, 150), (1, 64, 85), (70, 0, 80), (40, 30, 50, 30)]
BORDERS = torch.tensor([0, 0, 30, 110, 149, 150])  # sequences that cross ranks, one that is empty
BOUNDS = {torch.float32: 2e-6, torch.float64: 1e-12}
OPERATORS = ("linear_attention", "delta_rule")


def inputs_of(name: str, gate: str, packed: bool) -> Inputs:
    make = random_inputs if name == "linear_attention" else delta_inputs
    inputs = make(1 if packed else 2, T, H, K, V, gate)
    if not packed:
        return inputs
    generator = torch.Generator().manual_seed(1)
    state = torch.randn(2, len(BORDERS) - 1, H, K, V, generator=generator)
    return replace(inputs, S=state[0], dS=state[1])


def options_of(packed: bool) -> dict:
    return {
        "backend": "chunk",
        "output_final_state": True,
        "scale": 0.3,
        "cu_seqlens": BORDERS if packed else None,
    }


def error_of(case, inputs: Inputs, whole: dict, split: tuple[int, ...], group) -> float:
    """The worst relative error on this rank, against one process with the whole sequence."""
    name, _, packed, dtype = case
    rank = dist.get_rank(group)
    rows = slice(sum(split[:rank]), sum(split[: rank + 1]))
    mine = inputs.rows(rows.start, rows.stop)
    if rank:  # only rank 0's start counts
        mine = replace(mine, S=torch.full_like(mine.S, 7.0))
    # The ranks' gradients of the final state add up to dS.
    mine = replace(mine, dS=inputs.dS.double() / len(split))
    got = mine.run(getattr(distributed, name), dtype, group=group, **options_of(packed))
    assert (got["dS"].abs().max() > 0) == (rank == 0)
    errors = []
    for what, x in got.items():
        if x.numel() and not (what == "dS" and rank):
            expected = whole[what] if what in ("final S", "dS") else whole[what][:, rows]
            errors.append(relative_error(x, expected))
    return max(errors)


def compare(rank: int, cases: list) -> None:
    """All cases over the first 2, the first 3, and all ranks."""
    groups = {n: dist.new_group(list(range(n))) for n in (2, 3, 4)}
    for (case, whole), split in product(cases, SPLITS):
        if rank < len(split):
            error = error_of(case, inputs_of(*case[:3]), whole, split, groups[len(split)])
            assert error <= BOUNDS[case[3]], (case, split, error)


def test_a_split_scan_equals_that_of_one_process():
    cases = []
    for case in product(OPERATORS, GATES, (False, True), BOUNDS):
        name, gate, packed, dtype = case
        inputs = inputs_of(name, gate, packed)
        cases.append((case, inputs.run(getattr(ops, name), dtype, **options_of(packed))))
    on_ranks(4, compare, cases)


def normalised_in_half_precision(rank: int) -> None:
    """Under autocast the state stays in float32, and the divisor is not rounded."""
    q, k, v = (x.abs() for x in torch.randn(3, 1, 40, 2, 8, generator=torch.manual_seed(0)))
    start = torch.rand(1, 2, 8, 9)
    options = {"initial_state": start, "output_final_state": True, "normalize": True}
    rows = slice(0, 17) if rank == 0 else slice(17, 40)
    with torch.autocast("cpu", torch.bfloat16):
        v = v.bfloat16()  # what a layer before hands on
        o, S = ops.linear_attention(q, k, v, **options)
        mine, final = distributed.linear_attention(q[:, rows], k[:, rows], v[:, rows], **options)
    assert mine.dtype == torch.bfloat16
    assert relative_error(mine, o[:, rows]) <= 1e-3  # a few numbers on the other side of a rounding
    assert relative_error(final, S) <= 1e-6


def delta_rule_in_half_precision(rank: int) -> None:
    """Under autocast all tokens are cast alike, whatever a layer before hands on."""
    inputs = delta_inputs(1, 40, 2, 8, 6, "none")
    rows = slice(0, 17) if rank == 0 else slice(17, 40)
    with torch.autocast("cpu", torch.bfloat16):
        whole = replace(inputs, v=inputs.v.bfloat16())
        o, S = ops.delta_rule(*whole.tokens, output_final_state=True)
        mine, final = distributed.delta_rule(
            *whole.rows(rows.start, rows.stop).tokens, output_final_state=True
        )
    assert mine.dtype == torch.bfloat16
    assert relative_error(mine, o[:, rows]) <= 1e-3
    assert relative_error(final, S) <= 1e-6


def bad_input(rank: int) -> None:
    """It is named on every rank."""
    x = torch.randn(1, 3, 1, 2)
    borders = torch.tensor([0, 4, 5])
    for scan in (
        distributed.linear_attention,
        partial(distributed.delta_rule, beta=torch.ones(1, 3, 1)),
    ):
        with pytest.raises(ValueError, match=r"initial_state must have shape .* = \[1, 1, 2, 2\]"):
            scan(x, x, x, initial_state=torch.zeros(1, 1, 1, 1))
        with pytest.raises(ValueError, match="cu_seqlens must rise from 0 to T = 6"):
            scan(x, x, x, cu_seqlens=borders)
        with pytest.raises(TypeError, match=r"cu_seqlens must be a torch\.Tensor, got list"):
            scan(x, x, x, cu_seqlens=[0, 6])


def wrong_groups(rank: int) -> None:
    x = torch.randn(1, 3, 1, 2)
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    first = dist.new_group([0])
    with pytest.raises(TypeError, match=r"mesh\.get_group"):
        distributed.linear_attention(x, x, x, group=mesh)
    with pytest.raises(TypeError, match=r"mesh\.get_group"):
        distributed.Piece(x, mesh)  # pyright: ignore[reportArgumentType]
    if rank:
        with pytest.raises(ValueError, match="group must contain this rank, 1"):
            distributed.linear_attention(x, x, x, group=first)
    o, _ = distributed.linear_attention(x, x, x, group=mesh.get_group())
    assert o.shape == x.shape


def second_derivatives(rank: int) -> None:
    """They would need the communication of another backward pass, and are refused."""
    x = torch.randn(1, 3, 1, 2, requires_grad=True)
    scanned, _ = distributed.delta_rule(x, x, x, torch.ones(1, 3, 1))
    (whole,) = distributed.Piece(x, dist.group.WORLD).whole(x)
    for y in (scanned, whole):
        (d,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            d.sum().backward()


def gradients_that_are_handed_in(rank: int) -> None:
    """They are added up over the ranks in another tensor than the caller's."""
    x, d_whole = torch.randn(1, 3, 1, 2, requires_grad=True), torch.ones(1, 6, 1, 2)
    (whole,) = distributed.Piece(x, dist.group.WORLD).whole(x)
    (d,) = torch.autograd.grad(whole, x, d_whole)
    assert (d == 2).all()
    assert (d_whole == 1).all()


def others(rank: int) -> None:
    normalised_in_half_precision(rank)
    delta_rule_in_half_precision(rank)
    bad_input(rank)
    wrong_groups(rank)
    second_derivatives(rank)
    gradients_that_are_handed_in(rank)


def test_in_half_precision_with_bad_input_and_derived_twice():
    on_ranks(2, others)


def test_without_a_process_group_it_says_so():
    x = torch.randn(1, 3, 1, 2)
    for name in ("normalize", "output_final_state"):
        with pytest.raises(TypeError, match=f"{name} must be a bool"):
            distributed.linear_attention(x, x, x, **{name: "no"})
    with pytest.raises(TypeError, match="output_final_state must be a bool"):
        distributed.delta_rule(x, x, x, x[..., 0], output_final_state=1)  # pyright: ignore[reportArgumentType]
    scans = (distributed.linear_attention, partial(distributed.delta_rule, beta=x[..., 0]))
    for scan in scans:
        with pytest.raises(TypeError, match="q must be"):
            scan([1.0], x, x)
        with pytest.raises(RuntimeError, match="has no process group"):
            scan(x, x, x)
