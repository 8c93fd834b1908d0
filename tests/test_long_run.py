"""A state that is handed on for long: `benchmarks/long_run.py` on a shorter sequence."""

from __future__ import annotations

import pytest

from benchmarks.long_run import BOUND, FADING, KEEPING, measure, worst


@pytest.mark.parametrize("case", FADING, ids=str)
def test_errors_of_a_memory_that_forgets_do_not_grow(case):
    rows = measure(case, tokens=8000, piece=400)
    assert [row["tokens"] for row in rows] == [800 * n for n in range(1, 11)]
    assert 1e-8 <= worst(rows) <= BOUND / 4  # an error of 0 would be that of no comparison
    assert rows[-1]["o"] <= 1.3 * rows[2]["o"]  # filled after 2,400 tokens


def test_errors_of_a_memory_that_keeps_grow():
    """A memory without decay, and one whose only key leaves most directions alone."""
    adding, one_key, _ = (measure(case, tokens=8000, piece=400) for case in KEEPING)
    assert 1.2 * adding[0]["o"] <= adding[-1]["o"] <= BOUND / 4
    assert 2 * one_key[0]["o"] <= one_key[-1]["o"] <= 5 * BOUND
