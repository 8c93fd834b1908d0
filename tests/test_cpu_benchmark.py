"""The CPU benchmark: it runs, and the README has what it has stored."""

from __future__ import annotations

import json

import pytest

from benchmarks import cpu


def test_the_readme_has_the_stored_tables():
    stored, readme = json.loads(cpu.STORED.read_text()), cpu.README.read_text()
    assert cpu.table(stored["seconds"]) in readme
    assert cpu.profiles(stored["profile"]) in readme


@pytest.mark.parametrize("operator", cpu.LENGTHS)
def test_a_profile_has_all_of_the_time(monkeypatch, operator):
    monkeypatch.setattr(cpu, "PROFILED", 300)
    monkeypatch.setattr(cpu, "CALLS", 2)
    spent = cpu.profile(operator)
    assert sum(spent.values()) == pytest.approx(1)
    assert spent["products"] > 0.05
    assert spent["copies"] > 0.01
    assert (spent["systems"] > 0.01) == (operator != "linear_attention")


@pytest.mark.parametrize("operator", cpu.LENGTHS)
def test_every_operator_gives_a_row_with_all_forms(monkeypatch, operator):
    monkeypatch.setattr(cpu, "LENGTHS", {operator: (16,)})
    monkeypatch.setattr(cpu, "BYTES_IN_TURN", 0)
    monkeypatch.setattr(cpu, "CALLS", 2)
    monkeypatch.setattr(cpu, "message_time", lambda: 1e-7)
    monkeypatch.setattr(cpu.torch, "get_num_threads", lambda: 2)
    (row,) = cpu.measure(operator)
    decays = set() if operator == "deltaformer" else {"head decay", "channel decay"}
    steps = {"β to 2"} if operator == "delta_rule" else set()
    forms = {"chunk", "training", "recurrent", "attention"} | decays | steps
    assert set(row) == {"operator", "T", "of_matmul_rate", "message"} | forms
    assert all(row[name] > 0 for name in row if name != "operator")
    assert 0 < row["of_matmul_rate"] < 1


def test_the_fastest_call_after_the_first_counts(monkeypatch):
    monkeypatch.setattr(cpu, "CALLS", 4)
    monkeypatch.setattr(cpu, "SLOW", {"slow": 1})
    clock = iter(range(1000))
    monkeypatch.setattr(cpu.time, "perf_counter", lambda: next(clock))
    calls = []
    waits = {"fast": [9, 5, 2, 7, 3], "slow": [1, 8]}

    def call(name):
        calls.append(name)
        for _ in range(waits[name].pop(0)):
            next(clock)

    fastest = cpu.seconds({name: lambda name=name: call(name) for name in waits})
    assert fastest == {"fast": 3, "slow": 9}
    assert calls == ["fast", "slow"] * 2 + ["fast"] * 3


def test_the_operations_of_a_chunk_are_counted():
    """Q Kᵀ, A V, Q S, Kᵀ V of linear attention; for the delta rule K Kᵀ, a system, K S too."""
    C, D = 64, cpu.D
    assert cpu.flops("linear_attention", 1) * C == 2 * (C * C * D + C * C * D + 2 * C * D * D)
    C = 32
    assert cpu.flops("delta_rule", 1) * C == 2 * (4 * C * C * D + 3 * C * D * D)
    assert cpu.flops("deltaformer", 4096) == 4 * 4096 * D
