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
from assocmem import capacity, nn, ops, similarity

# The book's own rooms need what the library does not.
MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(assocmem.__path__, "assocmem.")
    if not found.name.startswith("assocmem.book")
]
PROJECTS = Path(__file__).parents[1] / "examples"
FINDER = doctest.DocTestFinder(exclude_empty=True)
EXAMPLES = [test for module in MODULES for test in FINDER.find(module) if test.examples]
PLAIN = (similarity.Similarity, similarity.DotProduct, similarity.Featured)  # to be derived from


def failures(test: doctest.DocTest) -> str:
    """What an example printed in place of what it says; nothing when it is right."""
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    return "".join(said)


def most_used() -> list[object]:
    """The operators, the kernel functions, the closed forms, and the layers that mix tokens."""
    classes = [getattr(similarity, name) for name in similarity.__all__]
    classes = [c for c in classes if inspect.isclass(c) and c not in PLAIN]
    forms = [getattr(capacity, name) for name in capacity.__all__ if name.startswith("snr_")]
    layers = [
        layer
        for layer in map(nn.__dict__.get, nn.__all__)
        if inspect.isclass(layer) and issubclass(layer, nn.Mixer) and layer is not nn.Mixer
    ]
    operators = [getattr(ops, name) for name in ops.__all__]
    return [*operators, *classes, *forms, *layers, capacity.retrieval_snr]


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_an_example_gives_what_it_says(test: doctest.DocTest) -> None:
    assert failures(test) == ""


def test_what_is_used_most_has_an_example() -> None:
    assert [x for x in most_used() if ">>> " not in (inspect.getdoc(x) or "")] == []


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
