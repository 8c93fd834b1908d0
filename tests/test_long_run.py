"""A state that is handed on for long: `benchmarks/long_run.py` on a shorter sequence."""

from __future__ import annotations

import json

import pytest

from benchmarks import long_run
from benchmarks.long_run import FADING, KEEPING, Case, exceeded, measure, worst


@pytest.mark.parametrize("case", FADING, ids=str)
def test_errors_of_a_memory_that_forgets_do_not_grow(case):
    rows = measure(case, tokens=8000, piece=400)
    assert [row["tokens"] for row in rows] == [800 * n for n in range(1, 11)]
    assert 1e-8 <= worst(rows) <= case.bound / 4  # an error of 0 would be that of no comparison
    assert rows[-1]["o"] <= 1.3 * rows[2]["o"]  # filled after 2,400 tokens


def test_errors_of_a_memory_that_keeps_grow():
    """A memory without decay, and one whose only key leaves most directions alone."""
    adding, *one_key, _ = (measure(case, tokens=8000, piece=400) for case in KEEPING)
    assert 1.2 * adding[0]["o"] <= adding[-1]["o"] <= 5e-7
    for rows in one_key:
        assert 2 * rows[0]["o"] <= rows[-1]["o"] <= 1e-5


def test_what_is_stored_is_within_its_bounds():
    found = json.loads(long_run.STORED.read_text())["cases"]
    for case, stored in zip((*FADING, *KEEPING), found, strict=True):
        told = {name: x for name, x in stored.items() if name != "rows"}
        assert Case(**told | {"beta": tuple(told["beta"])}) == case
        assert len(stored["rows"]) == 10
        assert not exceeded(stored["rows"], case.bound)
    assert exceeded(found[0]["rows"], worst(found[0]["rows"]) / 2)
