"""The time of a message between cores: it is that of a reply, too, and of the fastest round."""

from __future__ import annotations

import time

from benchmarks import cores


def slow_reply(line):
    """As `cores.reply`, a millisecond late."""
    for _ in range(6):
        while not line[0]:
            pass
        time.sleep(1e-3)
        line[0] = 0


def test_a_message_takes_longer_where_its_reply_is_late(monkeypatch):
    monkeypatch.setattr(cores, "MESSAGES", 2)
    monkeypatch.setattr(cores, "ROUNDS", 3)
    monkeypatch.setattr(cores, "reply", slow_reply)
    assert 0.5e-3 < cores.message_time() < 0.1


def test_a_message_takes_less_than_starting_a_process():
    assert 1e-9 < cores.message_time() < 1e-3
