"""The time of a message between cores."""

from __future__ import annotations

from types import SimpleNamespace

from benchmarks import cores


def test_half_of_a_round_trip_counts_in_the_fastest_round(monkeypatch):
    # Few, as where two processes share one core, a message waits for the other's turn.
    monkeypatch.setattr(cores, "MESSAGES", 50)
    monkeypatch.setattr(cores, "ROUNDS", 3)
    clock = iter([0, 10, 20, 24, 30, 37])
    monkeypatch.setattr(cores, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert cores.message_time() == 4 / (2 * 50)
