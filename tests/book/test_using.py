"""The page on using the library: its code runs as one program, and prints what it says."""

from __future__ import annotations

import contextlib
import io
import re

from tests.book.chapter import BOOK

CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SAID = re.compile(r"^print\(.*\)  # (.*)$", re.MULTILINE)


def test_the_code_prints_what_it_says() -> None:
    blocks, names = CODE.findall((BOOK / "using.md").read_text()), {}
    assert len(blocks) >= 7
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(block, names)
        assert SAID.findall(block), block
        assert printed.getvalue().splitlines() == SAID.findall(block)
