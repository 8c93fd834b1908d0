"""Every symbol of the notation has a meaning, a shape and a name that the code knows."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.book.chapter import BOOK, ROOT

CODE = re.compile(r"`([^`]+)`")
SHAPE = re.compile(r"number|\$[^$]+\$|`\[[^`]+\]`|[a-z]+")
LETTERS = {"B", "T", "H", "K", "V", "N", "m", "...", "V + 1"}


def rows(markdown: str) -> list[list[str]]:
    """The rows of all tables of four columns, without heads and rulers."""
    tables = re.findall(r"^\|.*\|$", markdown, flags=re.MULTILINE)
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in tables]
    return [row for row in cells if row[0].strip() != "symbol" and not row[0].startswith("---")]


NOTATION = rows((BOOK / "notation.md").read_text())
SOURCES = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))


def broken_promises(row: list[str]) -> list[str]:
    """What a row leaves to be desired."""
    if len(row) != 4 or not all(row):
        return [f"a row of {len(row)} cells: {row}"]
    symbol, _, shape, code = row
    problems = []
    if not all(re.fullmatch(r"\$[^$]+\$", part) for part in re.split(r", (?=\$)", symbol)):
        problems.append(f"{symbol} is no mathematics")
    for array in re.findall(r"`\[(.+?)\]`", shape):
        unknown = set(array.split(", ")) - LETTERS
        problems += [f"{symbol}: unknown size {size}" for size in sorted(unknown)]
    for name in CODE.findall(code):
        words = re.findall(r"\w+", name)
        if not all(re.search(rf"\b{word}\b", SOURCES) for word in words):
            problems.append(f"{symbol}: {name} does not occur in the library")
    if not CODE.findall(code):
        problems.append(f"{symbol}: no name in code")
    return problems


def test_there_are_symbols() -> None:
    assert len(NOTATION) >= 20


@pytest.mark.parametrize("row", NOTATION, ids=lambda row: row[0])
def test_a_symbol_is_explained(row: list[str]) -> None:
    assert not broken_promises(row)


def test_symbols_are_unique() -> None:
    symbols = Counter(symbol for row in NOTATION for symbol in re.split(r", (?=\$)", row[0]))
    assert [symbol for symbol, n in symbols.items() if n > 1] == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("| $x$ | a thing | number |", "a row of 3 cells"),
        ("| x | a thing | number | `q` |", "x is no mathematics"),
        ("| $x$ | a thing | `[B, X]` | `q` |", "$x$: unknown size X"),
        ("| $x$ | a thing | number | `qqq` |", "$x$: qqq does not occur in the library"),
        ("| $x$ | a thing | number | q |", "$x$: no name in code"),
    ],
)
def test_a_broken_row_is_noticed(row: str, problem: str) -> None:
    assert any(found.startswith(problem) for found in broken_promises(*rows(row)))
