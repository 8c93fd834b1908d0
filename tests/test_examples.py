"""The examples in the docstrings give what they say; those in examples/ need no repository."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import sys
from pathlib import Path

import pytest

import assocmem
from tests.book.api import public

# The book's own rooms need what the library does not.
MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(assocmem.__path__, "assocmem.")
    if not found.name.startswith("assocmem.book")
]
PROJECTS = Path(__file__).parents[1] / "examples"
FINDER = doctest.DocTestFinder(exclude_empty=True)
EXAMPLES = [test for module in MODULES for test in FINDER.find(module) if test.examples]
# What functions return and layers hold, and what is only to be derived from.
PARTS = {
    "capacity.MonteCarlo",
    "distributed.Traffic",
    *(f"nn.{x}" for x in ("DeltaState", "KUCache", "KVCache", "Mixer", "Streaming")),
    *("rules.Formulas", "rules.Write", "similarity.Similarity"),
    *(f"tasks.{x}" for x in ("Copy", "Facts", "Reachability", "Recall", "States", "Swaps")),
}


def failures(test: doctest.DocTest) -> str:
    """What an example printed in place of what it says; nothing when it is right."""
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    return "".join(said)


def without() -> set[str]:
    """The public functions and classes of the library whose docstring has no example."""
    found = set()
    for name in public():
        module, _, attribute = name.rpartition(".")
        what = getattr(importlib.import_module(module), attribute)
        described = inspect.isclass(what) or inspect.isroutine(what)
        if described and ">>> " not in (inspect.getdoc(what) or ""):
            found.add(name.removeprefix("assocmem."))
    return {name for name in found if not name.startswith("book.")}


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_an_example_gives_what_it_says(test: doctest.DocTest) -> None:
    assert failures(test) == ""


def test_every_public_name_has_an_example_but_parts_of_those_that_have() -> None:
    assert without() == PARTS


def test_a_wrong_example_is_noticed() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert "Expected:\n    3\nGot:\n    2" in failures(test)


def imported(source: str) -> set[str]:
    """The first names of all that a file imports."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("folder", sorted(p.parent for p in PROJECTS.glob("*/README.md")), ids=str)
def test_a_project_imports_only_what_is_installed_with_the_library(folder: Path) -> None:
    """And pytest, for its tests, and its own files."""
    files = list(folder.glob("*.py"))
    allowed = {"assocmem", "torch", "numpy", "tqdm", "pytest", *(file.stem for file in files)}
    for file in files:
        assert imported(file.read_text()) <= allowed | sys.stdlib_module_names, file.name
