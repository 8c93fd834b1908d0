"""The page on using the library: its code runs as one program, and prints what it says."""

from __future__ import annotations

import contextlib
import io
import re

from tests.book.test_address import examples

SAID = re.compile(r"^print\(.*\)  # (.*)$", re.MULTILINE)


def test_the_code_prints_what_it_says() -> None:
    blocks, names = examples("book/using.md"), {}
    assert len(blocks) >= 7
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(block, names)
        assert SAID.findall(block), block
        assert printed.getvalue().splitlines() == SAID.findall(block)
