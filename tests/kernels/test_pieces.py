"""Sequences that are cut into pieces give what whole ones give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton", reason="triton is missing")
from assocmem_kernels import launch, pieces

from tests.kernels.test_scans import BOUND, assert_as_exact_as_torch, run
from tests.ops.inputs import GATES
from tests.ops.operators import OPERATORS, worst


@pytest.mark.parametrize(
    ("T", "walks", "scans", "n"),
    [(65_536, 32, 2, 4), (65_536, 34, 2, 1), (65_536, 20, 3, 6), (65_536, 32, 3, 1),
     (65_536, 1, 2, 16), (16_400, 8, 2, 4), (16_383, 8, 2, 1), (0, 8, 2, 1), (65_536, 0, 2, 16)],
)  # fmt: skip
def test_few_long_sequences_are_cut(T, walks, scans, n, monkeypatch):
    monkeypatch.setattr(launch, "processors", lambda _: 132)
    q = torch.empty(2, T, 1, 1)
    found = pieces.cut(q, None, walks, scans)
    assert found.n == n
    assert found.borders.dtype == torch.int64
    starts, end = found.borders[:-1].unflatten(0, (2, n)), found.borders[-1]
    assert torch.equal(starts[1] - T, starts[0])
    assert torch.equal(starts[0], torch.arange(n) * found.size)
    assert end == 2 * T
    assert n == 1 or (found.size % 64 == 0 and 0 < T - starts[0, -1] <= found.size)
    assert pieces.cut(q, torch.tensor([0, 2 * T]), walks, scans).n == 1


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A GPU of many processors, short pieces, and into how many of them sequences were cut."""
    counts = []

    def noted(*args, **kwargs):
        found = cut(*args, **kwargs)
        counts.append(found.n)
        return found

    cut = pieces.cut
    monkeypatch.setattr(launch, "processors", lambda _: 1000)
    monkeypatch.setattr(pieces, "SHORTEST", 8)
    monkeypatch.setattr(pieces, "ALIGNED", 32)
    for op in OPERATORS.values():
        for file in (op.function.__name__, f"{op.function.__name__}_backward"):
            monkeypatch.setattr(f"assocmem_kernels.{file}.cut", noted)
    return counts


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("gate", GATES)
def test_float32_equals_the_recurrence(name, gate, cuts):
    inputs = OPERATORS[name].inputs(2, 70, 1, 16, 8, gate)
    error, what = worst(run(name, inputs, torch.float32), OPERATORS[name].expected(inputs))
    assert error <= BOUND, what
    assert cuts == [3, 3]


@pytest.mark.parametrize("name", OPERATORS)
def test_states_are_float32_whatever_the_default_is(name, cuts):
    inputs = OPERATORS[name].inputs(1, 70, 1, 16, 8, "head")
    torch.set_default_dtype(torch.float64)
    try:
        got = run(name, inputs, torch.float32)
    finally:
        torch.set_default_dtype(torch.float32)
    error, what = worst(got, OPERATORS[name].expected(inputs))
    assert error <= BOUND, what
    assert got["final S"].dtype == got["dS"].dtype == torch.float32
    assert cuts == [3, 3]


@pytest.mark.parametrize("name", OPERATORS)
def test_half_precision_is_as_exact_as_torch(name, cuts):
    assert_as_exact_as_torch(name, OPERATORS[name].inputs(1, 70, 1, 16, 8, "head"), torch.float16)
    assert cuts == [3, 3]


@pytest.mark.parametrize(
    ("columns", "V", "walks", "narrow"),
    [(64, 128, 66, 64), (64, 128, 33, 32), (64, 128, 16, 16), (64, 128, 17, 32), (64, 64, 8, 16),
     (32, 128, 67, 32), (16, 128, 1, 16), (64, 8, 1, 16)],
)  # fmt: skip
def test_tiles_are_narrowed_where_half_of_the_processors_are_idle(
    columns, V, walks, narrow, monkeypatch
):
    monkeypatch.setattr(launch, "processors", lambda _: 132)
    cfg = launch.Config(32, columns, 4, 2)
    assert launch.narrowed(cfg, torch.empty(0), V, walks) == launch.Config(32, narrow, 4, 2)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("gate", GATES)
def test_narrow_tiles_give_what_wide_ones_give(name, gate, monkeypatch):
    """All walks of both passes, whose columns do not depend on each other."""
    listed = launch.listed
    monkeypatch.setattr(launch, "listed", lambda *case: replace(listed(*case), BV=32))
    inputs = OPERATORS[name].inputs(1, 40, 1, 16, 32, gate)
    expected = run(name, inputs, torch.float32)
    seen = []

    def noted(cfg, *rest):
        found = narrowed(cfg, *rest)
        seen.append(found.BV)
        return found

    narrowed = launch.narrowed
    monkeypatch.setattr(launch, "narrowed", noted)
    monkeypatch.setattr(launch, "processors", lambda _: 132)
    got = run(name, inputs, torch.float32)
    error, what = worst(got, expected)
    assert error <= BOUND, what
    assert seen == [16] * (3 if name == "delta" else 2)
