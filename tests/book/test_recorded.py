"""Recorded results come back as they were stored, and say how to repeat them."""

from __future__ import annotations

import pytest

from assocmem.book import recorded
from tests.book.chapter import ROOT

NAMES = sorted(path.stem for path in recorded.RESULTS.glob("*.json"))


def test_a_result_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "RESULTS", tmp_path / "results")
    recorded.store("mine", "python mine.py", rows=[{"x": 1.5}])
    got = recorded.read("mine")
    assert got["rows"] == [{"x": 1.5}]
    assert got["command"] == "python mine.py"
    with pytest.raises(ValueError, match=r"name must be one of \['mine'\], got 'yours'"):
        recorded.read("yours")


def test_there_are_results():
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_result_says_where_it_comes_from(name):
    result = recorded.read(name)
    assert {"command", "date", "cpu", "cores", "threads", "torch"} <= set(result)
    python, script, *_ = result["command"].split()
    assert python == "python"
    assert (ROOT / script).exists()
