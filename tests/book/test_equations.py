"""Equations that the code names are equations of the book."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.book.chapter import CHAPTERS, ROOT

LABEL = re.compile(r"\$\$ \((eq-[\w-]+)\)")
NAMED = re.compile(r"(?:chapter (\d+),\s+)?\b(eq-[a-z0-9-]+)")
LABELS = {int(c.name[:2]): set(LABEL.findall(c.text)) for c in CHAPTERS}
FILES = [path for room in ("src", "kernels") for path in sorted((ROOT / room).rglob("*.py"))]


def unknown(text: str) -> list[str]:
    """The equations that a text names, and that the chapter it names, or else no chapter, has."""
    found = []
    for chapter, label in NAMED.findall(text):
        known = LABELS.get(int(chapter), set()) if chapter else set().union(*LABELS.values())
        found += [f"chapter {chapter or '?'}, {label}"] if label not in known else []
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_equation_that_the_code_names_is_in_the_book(path: Path) -> None:
    assert unknown(path.read_text()) == []


def test_the_scans_name_their_equations() -> None:
    named = {
        path.relative_to(ROOT).parts[0]: set(NAMED.findall(path.read_text()))
        for path in FILES
        if path.name == "delta_rule.py"
    }
    assert ("6", "eq-delta-chunk") in named["src"]
    assert ("6", "eq-delta-chunk") in named["kernels"]


def test_labels_are_unique_in_the_book() -> None:
    everywhere = [label for c in CHAPTERS for label in LABEL.findall(c.text)]
    assert len(everywhere) == len(set(everywhere))


def test_a_wrong_name_is_noticed() -> None:
    assert unknown("(book, chapter 1, eq-chunk; eq-write)") == []
    assert unknown("(book, chapter 2, eq-chunk)") == ["chapter 2, eq-chunk"]
    assert unknown("(book, eq-nowhere)") == ["chapter ?, eq-nowhere"]
    assert unknown("(chapter 99, eq-chunk)") == ["chapter 99, eq-chunk"]
