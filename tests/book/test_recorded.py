"""Recorded results come back as they were stored, and say how to repeat them."""

from __future__ import annotations

import platform

import pytest

from assocmem.book import recorded
from tests.book.chapter import ROOT

NAMES = sorted(path.stem for path in recorded.RESULTS.glob("*.json"))


def test_a_result_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "RESULTS", tmp_path / "results")
    assert not recorded.exists("mine")
    recorded.store("mine", "python mine.py", rows=[{"x": 1.5}])
    assert recorded.exists("mine")
    got = recorded.read("mine")
    assert got["rows"] == [{"x": 1.5}]
    assert got["command"] == "python mine.py"
    with pytest.raises(ValueError, match=r"name must be one of \['mine'\], got 'yours'"):
        recorded.read("yours")


def test_a_fingerprint_follows_code_and_not_comments():
    code = 'def f(x):\n    """Why."""\n    return x + 1  # how\n'
    told = code.replace("Why", "What for").replace("# how", "# so")
    changed = code.replace("x + 1", "x + 2")
    one, same, other = (
        recorded.fingerprint(recorded.without_comments(x)) for x in (code, told, changed)
    )
    assert one == same != other
    assert recorded.fingerprint("a", "b") != recorded.fingerprint("b", "a")


def test_there_are_results():
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_result_says_where_it_comes_from(name):
    result = recorded.read(name)
    assert {"command", "date", "cpu", "cores", "threads", "torch"} <= set(result)
    program, what, *_ = result["command"].split()
    if program == "make":
        assert f"\n{what}:" in (ROOT / "Makefile").read_text()
    else:
        assert program == "python"
        assert (ROOT / what).exists()


def test_times_on_a_gpu_come_back_by_implementation(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "RESULTS", tmp_path)
    row = {"operator": "delta_rule", "gate": "head", "B": 8, "T": 4096}
    time = {"ms": 1.5, "samples": [1.5]}
    rows = [
        {**row, "implementation": "assocmem", "forward": time},
        {**row, "implementation": "fla", "failed": "why"},
        {**row, "implementation": "torch", "skipped": "no time was left"},
        {**row, "implementation": "assocmem", "T": 8192, "forward": {"ms": 9.0}},
    ]
    asked = ("NVIDIA H200", "delta_rule", "head")
    assert recorded.gpu_times(*asked, B=8, T=4096) == {}  # nothing is recorded
    recorded.store_gpu({"gpu": "NVIDIA H200", "rows": rows})
    assert recorded.gpu_times(*asked, B=8, T=4096) == {"assocmem": 1.5}
    assert recorded.gpu_times("NVIDIA H100", *asked[1:], B=8, T=4096) == {}
    stored = recorded.read("gpu_nvidia_h200")["rows"]
    assert stored[0]["forward"] == {"ms": 1.5}
    assert [x["implementation"] for x in stored] == ["assocmem", "fla", "assocmem"]


def test_a_machine_without_proc_says_its_processor(monkeypatch):
    monkeypatch.setattr(recorded.Path, "exists", lambda _: False)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert recorded.provenance("python mine.py")["cpu"] == "arm"
