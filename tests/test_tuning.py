"""The command that tunes launches, without a GPU: its grid, its processes, and what it prints."""

from __future__ import annotations

import json
import sys

import pytest
import torch

pytest.importorskip("triton", reason="triton is missing")
from assocmem_kernels import launch

from benchmarks import gpu_cases, tuning
from benchmarks.gpu_cases import Case

TINY = Case("delta_rule", "head", 1, 20, 1, 16)


@pytest.fixture
def on_cpu(monkeypatch):
    """Kernels in Triton's interpreter; each takes as long as its name, fewer warps less."""
    monkeypatch.setattr(gpu_cases, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_cases, "DTYPE", torch.float16)
    monkeypatch.setattr(tuning, "microseconds", times)


def times(call) -> dict[str, float]:
    call()
    names = tuning.kernels("delta_rule", "head")
    return {x: 1e3 * launch.config(x, "sm_90", torch.bfloat16, 1).num_warps for x in names}


@pytest.mark.parametrize("operator", tuning.FILES)
@pytest.mark.parametrize("gate", tuning.KINDS)
def test_the_kernels_of_an_operator(operator, gate):
    names = tuning.kernels(operator, gate)
    assert ("channel_decay_kernel" in names) == (gate == "channel")
    assert "step_kernel" not in names
    assert all(x in launch.TABLE for x in names)


def test_a_launch_is_given_to_the_kernels_and_taken_back():
    def of(kernel):
        return launch.config(kernel, "sm_90", torch.bfloat16, 0)

    own, other = of("delta_forward_kernel"), of("correct_kernel")
    number = next(i for i, x in enumerate(tuning.GRID) if x == (16, 8, 1))
    with tuning.launched(["delta_forward_kernel"], number):
        assert of("delta_forward_kernel") == launch.Config(own.C, 16, 8, 1)
        assert of("correct_kernel") == other
    with tuning.launched(["delta_forward_kernel"], tuning.PRESENT):
        assert of("delta_forward_kernel") == own
    assert of("delta_forward_kernel") == own


def test_rows_have_times_and_differences_or_why_not(on_cpu, monkeypatch):
    def fails(number):
        if number == 2:
            raise RuntimeError("out of shared memory\nand more")
        return real(["delta_forward_kernel"], number)

    real = tuning.launched
    monkeypatch.setattr(tuning, "launched", lambda names, number: fails(number))
    first, second, third = tuning.measure(TINY, [tuning.PRESENT, 0, 2])
    assert first["number"] == tuning.PRESENT
    assert first["differs"] == 0
    assert second["differs"] <= tuning.SAME
    assert second["microseconds"]["delta_forward_kernel"] == 1e3 * tuning.GRID[0][1]
    assert third == {"number": 2, "failed": "RuntimeError: out of shared memory"}


def row(number: int, took: float, differs: float = 0.0) -> dict:
    return {"number": number, "differs": differs, "microseconds": {"states_kernel": took}}


def test_the_fastest_that_gives_the_same_numbers_is_told():
    rows = [
        row(tuning.PRESENT, 900.0), row(3, 800.0), row(4, 100.0, differs=0.17),
        row(5, 90.0, differs=float("nan")), {"number": 6, "failed": "its process ended"},
    ]  # fmt: skip
    case = Case("linear_attention", "head", 8, 4096, 32, 128)
    assert tuning.fastest(rows, "states_kernel") == rows[1]
    assert tuning.fastest(rows, "forward_kernel") is None
    C = launch.listed("states_kernel", "sm_90", "half", 1).C
    assert list(tuning.told(rows, case, "sm_90")) == [
        f'("sm_90", "states_kernel", "half, head"): {(C, *tuning.GRID[3])},'
        "  # 0.800 ms, present 0.900"
    ]


def test_a_row_has_the_launch_that_was_timed(monkeypatch):
    """Without a fence nothing is pipelined, whatever the grid asks for."""
    monkeypatch.setattr(launch, "fenced", lambda _: False)
    rows = [row(tuning.GRID.index((32, 4, 3)), 800.0)]
    (told,) = tuning.told(rows, Case("linear_attention", "none", 8, 4096, 32, 128), "sm_90")
    C = launch.listed("states_kernel", "sm_90", "half", 0).C
    assert f'"half"): {(C, 32, 4, 1)},' in told


def test_launches_that_come_to_the_same_are_tried_once(monkeypatch):
    assert tuning.distinct("delta_rule", "head", "sm_75") == [tuning.PRESENT]  # it has but one
    everything = [tuning.PRESENT, *range(len(tuning.GRID))]
    assert tuning.distinct("delta_rule", "head", "sm_90") == everything
    monkeypatch.setattr(launch, "fenced", lambda _: False)
    monkeypatch.setattr(tuning, "kernels", lambda *_: ["states_kernel"])
    once = tuning.distinct("linear_attention", "none", "sm_90")[1:]
    assert {tuning.GRID[n] for n in once} == {
        (columns, warps, stages)
        for columns, warps, stages in tuning.GRID
        if stages == 3 or (warps < 4 and (columns, warps, stages) != (64, 2, 2))  # the present one
    }


def test_a_launch_that_ends_its_process_costs_no_other(monkeypatch, tmp_path):
    """The first process ends at launch 1, the second runs out of time after launch 2."""
    commands = []

    def within(command, seconds, log):
        commands.append(command)
        numbers = [int(n) for n in command[-1].removeprefix("--time=").split(",")]
        done = [n for n in numbers if n != 1][: 1 if 1 in numbers else None]
        log.write_text("warning\n" + "".join(json.dumps(row(n, 1.0)) + "\n" for n in done))
        return -11

    monkeypatch.setattr(tuning, "within", within)
    rows = tuning.timed(["tune"], [0, 1, 2], 60.0, tmp_path)
    assert rows == [row(0, 1.0), {"number": 1, "failed": "its process ended"}, row(2, 1.0)]
    assert [command[-1] for command in commands] == ["--time=0,1,2", "--time=2"]


def test_only_launches_that_run_are_timed(monkeypatch, tmp_path):
    monkeypatch.setattr(tuning, "within", lambda command, seconds, log: int(command[-1]) % 2)
    runs = [n for n in range(len(tuning.GRID)) if n % 2 == 0]
    assert tuning.compiled(["tune"], list(range(len(tuning.GRID))), 60.0, tmp_path) == runs


def test_the_command(on_cpu, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(tuning, "DEVICE", "cpu")
    monkeypatch.setattr(tuning, "PUBLISHED", (1, 20, 1, 16))
    monkeypatch.setattr(tuning, "GRID", tuning.GRID[:2])
    monkeypatch.setenv("OUT", str(tmp_path))

    def within(command, seconds, log):
        """What a process would do, in this one."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["tuning.py", *command[3:]])
            before = capsys.readouterr().out
            tuning.main()
            log.write_text(capsys.readouterr().out)
            print(before, end="")
        return 0

    monkeypatch.setattr(tuning, "within", within)
    monkeypatch.setattr(tuning, "WORKERS", 1)
    monkeypatch.setattr(sys, "argv", ["tuning.py", "delta_rule", "head", "--D", "64"])
    tuning.main()
    says = capsys.readouterr().out
    assert "3 of 3 launches run, 3 tried" in says
    assert '("sm_90", "triangles_kernel", "half, head"): ' in says
    stored = json.loads((tmp_path / "tuning_gpu_a_gpu_delta_rule_head_64.json").read_text())
    assert [r["number"] for r in stored["rows"]] == [tuning.PRESENT, 0, 1]


def test_what_it_refuses(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tuning.py", "deltaformer", "head"])
    with pytest.raises(SystemExit):
        tuning.main()
    assert "its gate must be none" in capsys.readouterr().err
    if not torch.cuda.is_available():
        monkeypatch.setattr(sys, "argv", ["tuning.py", "deltaformer", "none"])
        with pytest.raises(SystemExit, match="no GPU"):
            tuning.main()
