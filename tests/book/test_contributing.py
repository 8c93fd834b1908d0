"""CONTRIBUTING.md names files, commands and tables that exist."""

from __future__ import annotations

import re
from pathlib import Path

from tests.book.chapter import ROOT

GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PATH = re.compile(r"(?<![\w/.])((?:book|src|kernels|tests|benchmarks)/[\w/.]+[\w/])")
ROOMS = ("src", "kernels", "tests", "benchmarks")
FILES = [p for room in ROOMS for p in (ROOT / room).rglob("*.py")]
FILES += (ROOT / "book").glob("*.ipynb")
SOURCES = "".join(path.read_text() for path in FILES if path.name != Path(__file__).name)


def missing(guide: str) -> list[str]:
    """What a guide names and the repository lacks."""
    paths = {path for path in PATH.findall(guide) if "NN_name" not in path}
    absent = sorted(path for path in paths if not (ROOT / path).exists())
    targets = [t for line in re.findall(r"\bmake ([a-z ]+)[`\n]", guide) for t in line.split()]
    absent += [t for t in targets if not re.search(rf"^{t}:", MAKEFILE, re.M)]
    names = re.findall(r"`([A-Z][A-Z_]{3,})`", guide)
    return absent + [name for name in names if name not in SOURCES]


def test_the_guide_names_what_exists() -> None:
    assert len(PATH.findall(GUIDE)) > 20
    assert missing(GUIDE) == []


def test_what_does_not_exist_is_noticed() -> None:
    guide = "`tests/test_gone.py`, `make gone`, `GONE_FOR_EVER`, `tests/test_rules.py`"
    assert missing(guide) == ["tests/test_gone.py", "gone", "GONE_FOR_EVER"]
