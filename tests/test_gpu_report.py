"""The tables and the figure made of what `make gpu` measures; every number here is made up."""

from __future__ import annotations

import json
import math
import sys

import pytest

from assocmem.book import recorded
from benchmarks import gpu_page, gpu_report, gpu_tables

H200 = "benchmarks/results/gpu_nvidia_h200.json"
TIME = {"over_floor": 2.0, "floor_ms": 1.0, "peak_bytes": 7_000_000, "samples": [1.0]}
WHERE = {
    "gpu": "a GPU", "driver": "1", "torch": "2", "triton": "3", "fla": "0.6.0", "tests": None,
    "dtype": "bfloat16", "date": "2026-01-01", "commit": None, "command": "make gpu",
}  # fmt: skip


def row(operator="delta_rule", who="assocmem", ms=1.0, error=1e-3, T=4096, **more) -> dict:
    forward, both = ({**TIME, "ms": x} for x in (ms, 3 * ms))
    if operator == "softmax_attention":
        forward["over_floor"] = None
    return {
        "operator": operator, "gate": "none", "B": 8, "T": T, "H": 32, "D": 128,
        "implementation": who, "errors": {"dq": 0.0, "o": error}, "other_bits": [],
        "first_call_s": 3.0,
        "forward": forward, "forward+backward": both, **more,
    }  # fmt: skip


def not_measured(why: str, **options) -> dict:
    kept = {name: x for name, x in row(**options).items() if name in gpu_tables.SHAPE}
    return {**kept, "operator": "delta_rule", "gate": "none", "implementation": "fla", why: "why"}


def test_a_table_has_every_operator_and_leaves_empty_what_is_not_known():
    rows = [
        row(), row(who="fla", ms=2.5, error=2e-3),
        row("softmax_attention", "torch", ms=4.0, errors=None, first_call_s=None),
        row("linear_attention", ms=1.5), row("linear_attention", "fla", error=math.nan),
    ]  # fmt: skip
    lines = gpu_tables.table(rows, (8, 4096, 32, 128)).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][:6] == [
        "operator", "gate", "ms, forward", "ms, forward (fla)", "ms, both passes",
        "ms, both passes (fla)",
    ]  # fmt: skip
    assert cells[0][6::2] == ["error", "peak MB", "first call, s"]
    assert [row[:6] for row in cells[2:]] == [
        ["delta_rule", "none", "1.00 (2.0×)", "2.50 (2.0×)", "3.00 (2.0×)", "7.50 (2.0×)"],
        ["softmax_attention", "none", "4.00", "", "12.00 (2.0×)", ""],
        ["linear_attention", "none", "1.50 (2.0×)", "", "4.50 (2.0×)", ""],
    ]
    assert cells[2][6:] == ["1.0e-03", "2.0e-03", "7", "7", "3.0", "3.0"]
    assert cells[3][6:] == ["", "", "7", "", "", ""]


def test_fla_is_compared_only_where_both_are_measured_and_right():
    rows = [
        row(), row(who="fla", ms=2.0), row(T=8192), row(who="fla", ms=8.0, T=8192),
        row(T=1), row(who="fla", T=1, ms=0.1, error=0.5),  # a fast wrong kernel loses
        row(T=2), not_measured("failed", T=2), row(T=3), not_measured("skipped", T=3),
    ]  # fmt: skip
    says = gpu_tables.summary({**WHERE, "rows": rows})
    assert "fla takes 4.00× our time (geometric mean of 2 rows), at least 2.00×" in says
    assert (
        "8 rows measured, 1 failed, 1 skipped, 1 wrong, 0 without a backward pass, "
        "0 without a reference, "
        "0 not the same bits twice"
    ) in says
    assert "tests: not run" in says
    says = gpu_tables.summary({**WHERE, "rows": [row(other_bits=["dq"])]})
    assert "forward: not compared with fla" in says
    assert "1 not the same bits twice" in says


def test_a_forward_pass_alone_is_compared_with_another():
    alone = row(who="fla", ms=2.0, backward_failed="refused")
    del alone["forward+backward"]
    says = gpu_tables.summary({**WHERE, "rows": [row(), alone]})
    assert "forward: fla takes 2.00× our time (geometric mean of 1 rows)" in says
    assert "forward+backward: not compared with fla" in says
    assert "1 without a backward pass" in says
    cells = gpu_tables.table([row(), alone], (8, 4096, 32, 128)).splitlines()[-1].split(" | ")
    assert cells[2:6] == ["1.00 (2.0×)", "2.00 (2.0×)", "3.00 (2.0×)", ""]


def test_the_readme_has_the_stored_table():
    stored = json.loads((gpu_tables.README.parent / H200).read_text())
    assert gpu_tables.readme_table(stored["rows"]) in gpu_tables.README.read_text()


def test_the_book_has_the_page():
    stored = gpu_tables.gathered([gpu_tables.README.parent / H200])
    assert gpu_page.page(stored) == gpu_page.PAGE.read_text()


def test_aims_that_are_reached_and_missed():
    def measured(operator, gate, ours, fla):
        return [row(operator, ms=ours, gate=gate), row(operator, "fla", ms=fla, gate=gate)]

    rows = [*measured("delta_rule", "head", 1.0, 0.9), *measured("deltaformer", "none", 1.0, 4.0)]
    told = {aim: (came, reached) for aim, came, reached in gpu_page.aims(rows)}
    assert told == {
        "delta rule, a decay per head, forward: at most 1.0 ms": (1.0, True),
        "delta rule, a decay per head, forward and backward: at most 5.0 ms": (3.0, True),
        **{
            f"{name}, {passes}: fla takes at least {least} times as long": (came, reached)
            for passes in ("forward", "forward and backward")
            for name, least, came, reached in (
                ("DeltaFormer", 3.0, 4.0, True),
                ("geometric mean of all shapes", 1.5, pytest.approx(3.6**0.5), True),
                ("the least of all shapes", 1.0, pytest.approx(0.9), False),
            )
        },
    }
    assert list(gpu_page.aims([])) == []


def test_what_is_missing_is_listed():
    skipped = {**row("linear_attention", T=2048), "skipped": "no time"}
    del skipped["forward"], skipped["forward+backward"]
    rows = [row(), row(who="fla", error=0.5), skipped]
    assert gpu_page.missing(rows).splitlines() == [
        "- 8 × 4,096 × 32 × 128: delta rule (none, fla)",
        "- 8 × 2,048 × 32 × 128: everything",
    ]
    assert gpu_page.missing(rows[:1]) == "Nothing is missing."
    assert gpu_page.unsteady(rows) == "Nothing changed."
    racy = [row(other_bits=["dq", "dk"]), row(other_bits=["dq"], T=2048), *rows]
    assert gpu_page.unsteady(racy) == "- delta rule (none, assocmem): dq, dk in 2 rows"


def test_a_table_for_the_readme():
    rows = [
        row(), row(who="fla", ms=2.5), row(gate="head"), row(T=2048, gate="channel"),
        row("deltaformer", ms=2.0), row("softmax_attention", "torch", ms=4.0),
    ]  # fmt: skip
    del rows[2]["forward+backward"]
    table = gpu_tables.readme_table(rows)
    assert table.splitlines()[2:] == [
        "| `delta_rule` | none | 1.00 (2.50) | 3.00 (2.50) |",
        "| `delta_rule` | per head | 1.00 (–) |  |",
        "| `deltaformer` | – | 2.00 (–) | 6.00 (–) |",
        "| PyTorch's softmax attention | – | 4.00 | 12.00 |",
    ]
    old = "before\n\n" + gpu_tables.readme_table(rows[:1]) + "\n\nafter\n"
    assert gpu_tables.with_table(old, table) == f"before\n\n{table}\n\nafter\n"


def test_the_command(tmp_path, monkeypatch, capsys):
    tests = {"passed": 9, "failed": 1, "error": 1, "skipped": 0, "not_run": 3}
    first = {**WHERE, "tests": tests, "rows": [not_measured("skipped"), row(T=2048)]}
    second = {**WHERE, "date": "2026-01-02",
              "rows": [row(who="fla"), row(ms=5.0, T=2048)]}  # fmt: skip
    paths = [tmp_path / name for name in ("b.json", "a.json")]
    for path, result in zip(paths, (first, second), strict=True):
        path.write_text(json.dumps(result))
    monkeypatch.setattr(recorded, "RESULTS", tmp_path / "kept")
    readme = tmp_path / "README.md"
    readme.write_text(gpu_tables.readme_table([]) + "\n\nafter\n")
    monkeypatch.setattr(gpu_report, "README", readme)
    monkeypatch.setattr(gpu_page, "PAGE", tmp_path / "gpu.md")
    monkeypatch.setattr(gpu_page, "FIGURE", tmp_path / "page.svg")
    picture = tmp_path / "gpu.svg"
    command = ["gpu_report.py", *map(str, paths), "--figure", str(picture), "--store"]
    monkeypatch.setattr(sys, "argv", command)
    gpu_report.main()
    says = capsys.readouterr().out
    assert "tests: 9 passed, 2 failed, 0 skipped, 3 not run" in says
    assert "8 × 2048 × 32 × 128" in says
    kept = recorded.read("gpu_a_gpu")["rows"]
    assert [r["forward"]["ms"] for r in kept] == [1.0, 5.0]  # the later file counts
    assert "samples" not in kept[0]["forward"]
    assert picture.read_text() == (tmp_path / "page.svg").read_text()
    assert picture.read_text().startswith("<?xml")
    assert "### 8 sequences of 2,048 tokens" in (tmp_path / "gpu.md").read_text()
    assert readme.read_text() == gpu_tables.readme_table([row(who="fla")]) + "\n\nafter\n"


def test_commands_find_what_they_import():
    """A script that is run by its path does not see the package in which it lies."""
    for file in (gpu_tables.README.parent / "benchmarks").glob("*.py"):
        code = file.read_text()
        assert "from benchmarks" not in code or f"python benchmarks/{file.name}" not in code


def test_files_of_different_devices_are_not_mixed(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(json.dumps({**WHERE, "gpu": name, "rows": []}))
    with pytest.raises(ValueError, match=r"files must be of one GPU, got \['one', 'two'\]"):
        gpu_tables.gathered([tmp_path / "one", tmp_path / "two"])
