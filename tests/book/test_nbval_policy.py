"""The policy lets rounding pass, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tests.book.chapter import ROOT
from tests.book.nbval_policy import OFFLINE, alike


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("error 0.12345", "error 0.12346"),
        ("1.0e-3 and 2", "1.0004e-3 and 2"),
        ("[1.0, 2.0]", "[1.0005, 2.0]"),
        ("3.2e-16", "1.1e-16"),  # both are zero as far as anyone can tell
        ("no number", "no number"),
    ],
)
def test_rounding_is_forgiven(a: str, b: str) -> None:
    assert alike(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("error 0.12345", "error 0.124"),
        ("N = 100", "N = 101"),
        ("1 of 2", "1.0 of 2"),
        ("holds", "DOES NOT HOLD"),
        ("0.5", "-0.5"),
        ("1.0 2.0", "1.0"),
        ("1.0", "nan"),
    ],
)
def test_a_difference_is_not(a: str, b: str) -> None:
    assert not alike(a, b)


def judged(tmp_path: Path, code: str, printed: str, count: int | None = 1) -> tuple[int, str]:
    """What `make notebooks` says of a notebook of one cell: exit status and output."""
    output = new_output("stream", name="stdout", text=printed)
    notebook = new_notebook(
        cells=[new_code_cell(code, execution_count=count, outputs=[output])],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    path = tmp_path / "one_cell.ipynb"
    nbformat.write(notebook, path)
    options = ["-p", "tests.book.nbval_policy", "--nbval", "--nbval-current-env"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr


# What a socket asks before it connects, and a name before it is looked up; nothing is sent.
NETWORK = """
import sys
for event, arguments in (
    ("socket.connect", (None, ("127.0.0.1", 9))),
    ("socket.connect", (None, ("192.0.2.1", 9))),
    ("socket.getaddrinfo", ("example.org", 80, 0, 0, 0)),
):
    try:
        sys.audit(event, *arguments)
        print("allowed")
    except PermissionError as refusal:
        print(refusal)
"""
REFUSED = """allowed
a notebook makes no network call, and this is one: socket.connect 192.0.2.1
a notebook makes no network call, and this is one: socket.getaddrinfo example.org
"""


def test_a_notebook_that_gives_its_outputs_passes_without_a_network(tmp_path: Path) -> None:
    status, said = judged(tmp_path, NETWORK + "print(1 / 3, 7)", REFUSED + "0.33340 7\n")
    assert status == 0, said


def test_other_tests_have_a_network() -> None:
    """pip fetches what builds the wheel; only where the policy is loaded with `-p` is none."""
    assert OFFLINE not in os.environ.get("PYTHONPATH", "")


def test_a_semicolon_silences_a_cell(tmp_path: Path) -> None:
    status, said = judged(tmp_path, "print(7)\nobject();", "7\n")
    assert status == 0, said


def test_a_notebook_that_gives_another_number_fails(tmp_path: Path) -> None:
    status, said = judged(tmp_path, "print(1 / 3, 7)", "0.3333 8\n")
    assert status == 1, said
    assert "1 failed" in said


def test_a_notebook_that_was_never_run_fails(tmp_path: Path) -> None:
    status, said = judged(tmp_path, "print(1)", "1\n", count=None)
    assert status != 0, said
    assert "never executed" in said
