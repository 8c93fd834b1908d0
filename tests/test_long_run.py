"""A state that is handed on for long: `benchmarks/long_run.py` on a shorter sequence."""

from __future__ import annotations

import pytest

from benchmarks.long_run import BOUND, FADING, KEEPING, measure, worst


@pytest.mark.parametrize("case", FADING, ids=str)
def test_errors_of_a_memory_that_forgets_do_not_grow(case):
    rows = measure(case, tokens=8000, piece=400)
    assert [row["tokens"] for row in rows] == [800 * n for n in range(1, 11)]
    assert worst(rows, "chunk") <= BOUND / 4
    assert rows[-1]["chunk"]["o"] <= 1.3 * rows[2]["chunk"]["o"]  # filled after 2,400 tokens


@pytest.mark.parametrize("case", KEEPING, ids=str)
def test_errors_of_a_memory_that_keeps_are_as_large_as_token_by_token(case):
    rows = measure(case, tokens=8000, piece=400)
    assert worst(rows, "chunk") <= 3 * worst(rows, "recurrence")
