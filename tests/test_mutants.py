"""Every mutant still has its place, and guards that exist; `make mutants` then breaks them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.mutants import MUTANTS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_mutant_has_one_place_to_break(mutant):
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert all((ROOT / guard.split()[0]).exists() for guard in mutant.guards)


def test_every_file_of_the_library_has_a_mutant():
    rooms = (ROOT / "src/assocmem", ROOT / "kernels/assocmem_kernels")
    files = {str(path.relative_to(ROOT)) for room in rooms for path in room.rglob("*.py")}
    files = {name for name in files if not name.endswith("__init__.py")}
    assert files - {mutant.file for mutant in MUTANTS} == set()


def test_every_test_file_is_a_guard():
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    on_the_site = {f"tests/book/test_{name}.py" for name in ("browser", "site")}  # built first
    guards = {guard.split()[0] for mutant in MUTANTS for guard in mutant.guards}
    assert files - guards - on_the_site == {"tests/test_mutants.py"}


def test_the_readme_counts_them():
    (told,) = re.findall(r"more than (\d+) breaks", (ROOT / "README.md").read_text())
    assert int(told) < len(MUTANTS) < int(told) + 50
