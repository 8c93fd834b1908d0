"""The time of a message between cores."""

from __future__ import annotations

import time

from benchmarks import cores


def slow_reply(line, times):
    """As `cores.reply`, a millisecond late."""
    for _ in range(times):
        while not line[0]:
            pass
        time.sleep(1e-3)
        line[0] = 0


def test_half_of_a_round_trip_counts(monkeypatch):
    # Few, as where two processes share one core, a message waits for the other's turn.
    monkeypatch.setattr(cores, "MESSAGES", 50)
    monkeypatch.setattr(cores, "ROUNDS", 3)
    monkeypatch.setattr(cores, "reply", slow_reply)
    assert 0.5e-3 < cores.message_time() < 0.1
