"""The runner of `make gpu`, without a GPU: its rows, budget, failures, floors and provenance."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import re
import sys
import time
from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="triton is missing")
from benchmarks import gpu, gpu_cases, gpu_first_calls, gpu_timing, processes
from benchmarks.gpu_cases import Case, planned
from benchmarks.gpu_first_calls import key

TINY = {"B": 1, "T": 5, "H": 1, "D": 16}
NEVER = math.inf


@pytest.fixture
def on_cpu(monkeypatch):
    """Kernels in Triton's interpreter, and a clock that does not look at the time."""
    monkeypatch.setattr(gpu_cases, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_cases, "DTYPE", torch.float16)
    monkeypatch.setattr(gpu_timing, "samples", lambda call: [call() is None, 4.0, 2.0])
    monkeypatch.setattr(gpu_timing, "peak_bytes", lambda call: 7)


def forms(monkeypatch, **functions):
    for module in (gpu, gpu_cases, gpu_first_calls):
        monkeypatch.setattr(module, "implementations", lambda case: functions)


def softmax_row(name: str = "torch", deadline: float = NEVER) -> dict:
    rows = gpu.benchmark(
        planned([Case("softmax_attention", "none", **TINY)]), {}, "NVIDIA H200", deadline
    )
    return next(row for row in rows if row["implementation"] == name)


@pytest.mark.parametrize(("operator", "gate"), gpu_cases.VARIANTS)
def test_every_operator_gives_a_row(on_cpu, operator, gate):
    (row,) = gpu.benchmark(planned([Case(operator, gate, **TINY)]), {}, "NVIDIA H200", NEVER)
    assert "failed" not in row
    more = ["dbeta"] * operator.startswith("delta") + ["dg"] * (gate != "none")
    assert list(row["errors"]) == ["o", "dq", "dk", "dv", *more]
    assert max(row["errors"].values()) <= 2e-3
    assert row["other_bits"] == []
    for what in ("forward", "forward+backward"):
        assert row[what]["samples"] == [0.0, 4.0, 2.0]
        assert row[what]["ms"] == 2.0
        assert row[what]["peak_bytes"] == 7
        assert row[what]["over_floor"] == 2.0 / row[what]["floor_ms"] > 1
    assert gpu.line(row)


def test_a_wrong_kernel_shows_its_error_and_a_race_its_bits(on_cpu, monkeypatch):
    scaled = itertools.cycle((1.0, 1.01))
    forms(
        monkeypatch,
        wrong=lambda q, k, v: gpu_cases.attention(q, k, v) * 1.01,
        race=lambda q, k, v: gpu_cases.attention(q, k, v) * next(scaled),
    )
    row = softmax_row("wrong")
    assert row["errors"]["o"] == pytest.approx(0.01, rel=0.05)
    assert row["other_bits"] == []
    assert softmax_row("race")["other_bits"] == ["o", "dq", "dk", "dv"]


def test_what_is_compared_are_the_last_heads_of_the_last_sequence(on_cpu, monkeypatch):
    def late(q, k, v):
        o = gpu_cases.attention(q, k, v)
        return torch.cat((o[:-1], torch.cat((o[-1:, :, :-1], 0 * o[-1:, :, -1:]), 2)))

    forms(monkeypatch, late=late)
    monkeypatch.setitem(TINY, "B", 2)
    monkeypatch.setitem(TINY, "H", 3)
    assert softmax_row("late")["errors"]["o"] > 0.5


def test_a_row_that_fails_says_why_and_the_others_go_on(on_cpu, monkeypatch):
    def fails(**x):
        raise torch.cuda.OutOfMemoryError("out of memory\nsecond line")

    forms(monkeypatch, fails=fails, works=gpu_cases.attention)
    row = softmax_row("fails")
    assert row["failed"] == "OutOfMemoryError: out of memory"
    assert "failed: OutOfMemoryError" in gpu.line(row)
    assert "failed" not in softmax_row("works")


def without_gradients(q, k, v):
    return gpu_cases.attention(q, k, v).detach()


def test_a_forward_pass_counts_without_the_backward_pass(on_cpu, monkeypatch):
    forms(monkeypatch, torch=without_gradients)
    row = softmax_row()
    assert "failed" not in row
    assert row["forward"]["ms"] == 2.0
    assert "forward+backward" not in row
    assert list(row["errors"]) == ["o"]
    assert row["errors"]["o"] <= 2e-3
    assert "does not require grad" in row["backward_failed"]
    assert "backward: RuntimeError" in gpu.line(row)


def test_a_row_that_crashes_or_hangs_its_process_costs_no_other(monkeypatch):
    """Each process goes on until a row ends it; each row says in which it was measured."""

    def measured(todo, *_):
        for case, name in todo:
            if name == "crashes":
                os._exit(3)
            if name == "hangs":
                time.sleep(60)
            row = {"failed": "left an error behind"} if name == "fails" else {}
            yield {**vars(case), "implementation": name, **row, "process": os.getpid()}

    monkeypatch.setattr(gpu, "benchmark", measured)
    monkeypatch.setattr(gpu, "CONTEXT", multiprocessing.get_context("fork"))
    monkeypatch.setattr(gpu, "PATIENCE", 2)
    monkeypatch.setattr(gpu, "usable", lambda: False)
    names = ["a", "b", "fails", "c", "crashes", "d", "hangs", "e"]
    forms(monkeypatch, **dict.fromkeys(names))
    todo = planned([Case("softmax_attention", "none", **TINY)])
    rows = {row["implementation"]: row for row in gpu.isolated(todo, {}, "", NEVER)}
    assert list(rows) == names
    at = {name: row["process"] for name, row in rows.items() if "process" in row}
    assert at["a"] == at["b"] == at["fails"] != os.getpid()
    assert len({at["a"], at["c"], at["d"], at["e"]}) == 4
    assert rows["crashes"]["failed"] == "its process crashed"
    assert rows["hangs"]["failed"] == "its process hung"


def test_a_row_that_hangs_at_the_end_does_not_hold_the_run_up(monkeypatch):
    monkeypatch.setattr(gpu, "send_rows", lambda *_: time.sleep(60))
    monkeypatch.setattr(gpu, "CONTEXT", multiprocessing.get_context("fork"))
    monkeypatch.setattr(gpu, "LATE", 1)
    forms(monkeypatch, hangs=None, waits=None)
    todo = planned([Case("softmax_attention", "none", **TINY)])
    start = time.monotonic()
    hangs, waits = gpu.isolated(todo, {}, "", start + 1)
    assert time.monotonic() - start < 20
    assert hangs["failed"] == "its process hung"
    assert waits["skipped"] == "no time was left"


def test_a_process_that_crashes_when_it_ends_has_said_so(monkeypatch):
    """An error of CUDA that a row leaves behind may abort its process after the last word."""

    def crashes_at_the_end(pipe, todo, *_):
        case, name = todo[0]
        pipe.send({**vars(case), "implementation": name, "failed": "left an error behind"})
        pipe.send(None)
        os.abort()

    monkeypatch.setattr(gpu, "send_rows", crashes_at_the_end)
    monkeypatch.setattr(gpu, "CONTEXT", multiprocessing.get_context("fork"))
    forms(monkeypatch, a=None, b=None)
    todo = planned([Case("softmax_attention", "none", **TINY)])
    rows = list(gpu.isolated(todo, {}, "", NEVER))
    assert [row["implementation"] for row in rows] == ["a", "b"]
    assert all(row["failed"] == "left an error behind" for row in rows)


def test_a_reference_that_fails_is_a_row_for_each_implementation(on_cpu, monkeypatch):
    monkeypatch.setattr(gpu, "reference", lambda *_: 1 / 0)
    forms(monkeypatch, one=gpu_cases.attention, two=gpu_cases.attention)
    for name in ("one", "two"):
        assert (
            softmax_row(name)["failed"]
            == "inputs or reference: ZeroDivisionError: division by zero"
        )


def test_rows_beyond_the_budget_are_listed_as_skipped(on_cpu, monkeypatch):
    seconds = iter(range(100))
    monkeypatch.setattr(gpu.time, "monotonic", lambda: next(seconds))
    cases = [Case("softmax_attention", "none", **{**TINY, "B": B}) for B in (1, 2, 3)]
    rows = list(gpu.benchmark(planned(cases), {}, "NVIDIA H200", 3))
    assert [row["B"] for row in rows] == [1, 2, 3]
    assert ["skipped" in row for row in rows] == [False, True, True]
    assert "no time was left" in gpu.line(rows[1])


def test_what_did_not_compile_is_not_measured(on_cpu):
    case = Case("softmax_attention", "none", **TINY)
    for said in ({"skipped": "too long"}, {"failed": "crashed"}):
        (row,) = gpu.benchmark(planned([case]), {key(case, "torch"): said}, "NVIDIA H200", NEVER)
        assert said.items() <= row.items()
        assert "forward" not in row
    (row,) = gpu.benchmark(planned([case]), {key(case, "torch"): {"first_call_s": 3.0}}, "", NEVER)
    assert row["first_call_s"] == 3.0
    assert row["forward"]["floor_ms"] is row["forward"]["over_floor"] is None  # unknown device


def test_first_calls(on_cpu, monkeypatch, tmp_path):
    cases = [Case("softmax_attention", "none", **{**TINY, "T": T}) for T in (16, 32)]
    (compiled,) = {key(case, "torch") for case in cases}  # whatever their length
    # It looks for a real GPU.
    crashed = gpu_first_calls.first_calls(planned(cases), 120.0, tmp_path)[compiled]
    assert torch.cuda.is_available() or re.search("CUDA|no NVIDIA driver", crashed["failed"])

    def within(command, seconds, log, code, **_):
        log.write_text('a warning\nfirst call: {"first_call_s": 1.5}\nwhat stopped it\n')
        return code

    expected = {
        0: {"first_call_s": 1.5},
        1: {"failed": "first call: what stopped it"},
        None: {"skipped": "its first call did not end within 9 s"},
    }
    for code, row in expected.items():
        monkeypatch.setattr(gpu_first_calls, "within", partial(within, code=code))
        assert gpu_first_calls.first_calls(planned(cases), 9.0, tmp_path) == {compiled: row}


def test_a_first_call_is_timed(on_cpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    compiled = key(Case("softmax_attention", "none", **TINY), "torch")
    assert gpu_first_calls.first_call(compiled)["first_call_s"] > 0
    forms(monkeypatch, torch=without_gradients)
    row = gpu_first_calls.first_call(compiled)
    assert row["first_call_s"] > 0
    assert "does not require grad" in row["backward_failed"]


def test_what_counts_most_is_compiled_first(monkeypatch):
    forms(monkeypatch, assocmem=None, fla=None)
    order = gpu_first_calls.compiled_first(planned(list(gpu_cases.cases())))
    assert len(set(order)) == len(order)
    cases, names = zip(*map(json.loads, order), strict=True)
    assert [(x["H"], x["D"]) for x in cases[:16]] == 16 * [(32, 128)]
    rest = names[16:]
    assert rest == ("assocmem",) * (len(rest) // 2) + ("fla",) * (len(rest) // 2)


def test_the_grid():
    cases = list(gpu_cases.cases())
    assert len(set(cases)) == len(cases)
    assert {(c.operator, c.gate) for c in cases[:8]} == set(gpu_cases.VARIANTS)
    assert {(c.B, c.T, c.H, c.D) for c in cases[:8]} == {gpu_cases.PUBLISHED}
    shapes = {(c.T, c.H, c.D) for c in cases[8:] if c.B * c.T == gpu_cases.TOKENS}
    assert {(T, H, D) for T in gpu_cases.LENGTHS for H in (16, 32) for D in (64, 128)} < shapes
    assert set(Counter((c.B, c.T, c.H, c.D) for c in cases).values()) == {8}
    early = {(c.H, c.D) for c in cases[: 5 * 8]}
    assert early == {(32, 128), (4, 128), (16, 128), (32, 64), (16, 64)}


@pytest.mark.parametrize(
    ("operator", "forward", "backward"),
    # milliseconds at 8 × 4096 × 32 × 128 from bytes (1024, 1792; 1028, 1800 + 4) over 4.8 TB/s,
    # and from operations over 989 TFLOP/s
    [("linear_attention", 0.2237, 0.3915), ("delta_rule", 0.2246, 0.4690),
     ("softmax_attention", 1.1118, 2.7794)],
)  # fmt: skip
def test_floors(operator, forward, backward):
    case = Case(operator, "none", *gpu_cases.PUBLISHED)
    whole = torch.empty(8, 4096, 32, 128, dtype=torch.bfloat16, device="meta")
    x = dict.fromkeys("qkv", whole)
    if operator == "delta_rule":
        x["beta"] = torch.empty(8, 4096, 32, device="meta")
    got = gpu_cases.floors(case, x, whole, "NVIDIA H200")
    assert got["forward"] == pytest.approx(forward, rel=1e-3)
    assert got["forward+backward"] == pytest.approx(forward + backward, rel=1e-3)


def test_a_command_ends_when_its_time_is_out(tmp_path):
    log = tmp_path / "log"
    assert processes.within(["sh", "-c", "echo so far; sleep 60"], 0.5, log) is None
    assert log.read_text() == "so far\n"
    assert processes.within(["sh", "-c", "echo $WORD; exit 3"], 60, log, WORD="word") == 3
    assert log.read_text() == "word\n"
    assert processes.answer("false") is processes.answer("no-such-command") is None


def test_outcomes_are_counted_as_far_as_the_log_goes():
    plain = (
        "collected 4 items\n\nt/a.py::x[1-none] PASSED [ 25%]\nt/a.py::y FAILED [ 50%]\nt/a.py::z "
    )
    parallel = (
        "2 workers [4 items]\n\nt/a.py::x[1-none] \nt/a.py::y \n"
        "[gw1] [ 25%] PASSED t/a.py::x[1-none] \n[gw0] [ 50%] FAILED t/a.py::y \nt/a.py::z \n"
    )
    expected = {"passed": 1, "failed": 1, "error": 0, "skipped": 0, "not_run": 2}
    for log in (plain, parallel):
        assert processes.outcomes(log) == {**expected, "failures": ["t/a.py::y"]}
    assert processes.outcomes("ImportError")["not_run"] is None


def test_the_tests_that_run_are_counted(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\n"
        "def test_c(): pytest.skip('')\ndef test_d(missing): pass\n"
    )
    got = processes.run_tests(120, tmp_path / "log", str(tmp_path))
    assert (got["passed"], got["failed"], got["skipped"], got["error"]) == (1, 1, 1, 1)
    assert (got["not_run"], got["exit_code"]) == (0, 1)
    assert [name.rpartition("::")[2] for name in got["failures"]] == ["test_b", "test_d"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_command(on_cpu, monkeypatch, tmp_path, fails):
    chosen = [Case("linear_attention", "none", **TINY), Case("softmax_attention", "none", **TINY)]
    monkeypatch.setattr(gpu, "cases", lambda: chosen)
    monkeypatch.setattr(gpu, "first_calls", lambda *_: {})
    monkeypatch.setattr(gpu, "isolated", gpu.benchmark)
    monkeypatch.setattr(gpu, "replayed", lambda call: 0.5)
    monkeypatch.setattr(gpu, "SHORT", 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--no-tests", "linear_attention"])
    monkeypatch.setenv("OUT", str(tmp_path))
    if fails:
        monkeypatch.setattr(gpu, "measure", lambda *_: 1 / 0)
    with pytest.raises(SystemExit) as stop:
        gpu.main()
    (path,) = tmp_path.iterdir()
    assert path.name == "gpu_nvidia_h200_linear_attention.json"
    result = json.loads(path.read_text())
    (row,) = result["rows"]
    if fails:
        assert stop.value.code == "tests or 1 rows failed"
        assert row["failed"] == "ZeroDivisionError: division by zero"
        return
    assert stop.value.code == 0
    assert row["operator"] == "linear_attention"
    assert row["forward"]["graph_ms"] == 0.5
    assert result["command"] == "make gpu ARGS='--no-tests linear_attention'"
    told = ("date", "gpu", "torch", "triton", "dtype")
    assert all(isinstance(result[name], str) for name in told)
    assert {"driver", "cuda", "fla", "changed"} <= set(result)  # null where there is none
    assert result["commit"] == processes.answer("git", "rev-parse", "HEAD")


def test_a_graph_that_cannot_be_captured_says_why(on_cpu, monkeypatch):
    row = {**vars(Case("softmax_attention", "none", **TINY)), "implementation": "torch",
           "forward": {"ms": 0.5}}  # fmt: skip
    monkeypatch.setattr(gpu, "replayed", lambda call: 1 / 0)
    gpu.replay([row], NEVER)
    assert row["forward"]["graph_failed"] == "ZeroDivisionError: division by zero"


def test_fla_is_called_by_name(monkeypatch):
    called = {}

    def function(name):
        return lambda **x: (called.setdefault(name, x), None)

    there = {name: function(name) for name, _ in gpu_cases.FLA.values()}
    monkeypatch.setitem(sys.modules, "fla", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "fla.ops", SimpleNamespace(**there))
    for (operator, gate), (name, options) in gpu_cases.FLA.items():
        x = {"q": torch.ones(1), "g": torch.ones(1)}
        got = gpu_cases.fla(Case(operator, gate, **TINY), **x)
        assert got is called[name]
        assert got == {**x, **options}
