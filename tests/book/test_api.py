"""The API reference has every name that a user can import, and every kernel."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

from tests.book.api import KERNELS, ROOMS, exports, public
from tests.book.chapter import BOOK

AUTO = re.compile(r"^\.\. auto(\w+):: (assocmem\S*)\n((?:   :.*\n)*)", re.MULTILINE)
DATA = re.compile(r"^\.\. py:data:: (\w+)\n   :module: (\S+)$", re.MULTILINE)
SHOWN = re.compile(r"^```\{kernels\} (\S+)$", re.MULTILINE)
PAGE = "\n".join(path.read_text() for path in sorted((BOOK / "api").glob("*.md")))


def documented(page: str) -> set[str]:
    """The full names of what a page describes."""
    found = {f"{module}.{name}" for name, module in DATA.findall(page)}
    for directive, name, options in AUTO.findall(page):
        if directive != "module":
            found.add(name)
        elif ":members:" in options:
            module = importlib.import_module(name)
            left_out = re.findall(r":exclude-members: (.*)", options)
            out = {f"{name}.{x.strip()}" for line in left_out for x in line.split(",")}
            # Of data there is nothing to read a docstring from: it is described by hand.
            found |= {x for x in exports(module) if has_docstring(x)} - out
    return found


def has_docstring(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    what = getattr(importlib.import_module(module), attribute)
    return (inspect.isclass(what) or inspect.isroutine(what)) and bool(what.__doc__)


def test_every_room_says_what_it_hands_on() -> None:
    silent = [m.__name__ for m in ROOMS if not hasattr(m, "__all__")]
    assert set(silent) <= {"assocmem.arguments", "assocmem.memory"}


@pytest.mark.parametrize("name", public())
def test_a_public_name_is_on_the_page(name: str) -> None:
    assert name in documented(PAGE)


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_every_kernel_is_on_the_page_with_a_docstring(path: Path) -> None:
    shown = SHOWN.findall(PAGE)
    assert path.name in shown, "book/api/kernels.md shows a file with the directive {kernels}"
    assert [kernel.name for kernel in KERNELS[path] if not ast.get_docstring(kernel)] == []


def test_what_is_missing_is_noticed() -> None:
    assert {"assocmem.ops.delta_rule", "assocmem.rules.RULES"} <= documented(PAGE)
    hidden = PAGE.replace("automodule:: assocmem.ops\n   :members:", "automodule:: assocmem.ops")
    assert "assocmem.ops.delta_rule" not in documented(hidden)
    hidden = PAGE.replace(
        "assocmem.ops\n   :members:", "assocmem.ops\n   :members:\n   :exclude-members: delta_rule"
    )
    assert "assocmem.ops.delta_rule" not in documented(hidden)
    assert "assocmem.rules.RULES" not in documented(PAGE.replace("py:data:: RULES", ""))
