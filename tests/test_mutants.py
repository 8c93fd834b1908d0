"""Every mutant still has its place, and guards that exist; `make mutants` then breaks them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants import MUTANTS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_mutant_has_one_place_to_break(mutant):
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert all((ROOT / guard.split()[0]).exists() for guard in mutant.guards)
