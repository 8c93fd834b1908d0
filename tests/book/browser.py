"""A browser for tests: Debian's chromium, or the one that CHROMIUM names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.book.chapter import BOOK

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
# In CI a missing browser is an error, elsewhere its tests are skipped.
MISSING = CHROMIUM is None and not os.environ.get("CI")
WHY = "no chromium here: install it or set CHROMIUM"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
]


PICTURE = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='40' height='20'/>"
STYLE = (BOOK / "_static" / "custom.css").read_text()
COLOURS = {"light": ("#fff", "#222"), "dark": ("#121212", "#ddd")}


def script(name: str) -> str:
    """One of the site's scripts."""
    return (BOOK / "_static" / f"{name}.js").read_text()


def with_figure(output: str, scripts: Sequence[str], theme: str) -> str:
    """A page as the site has it: a figure with its picture, and the output after it."""
    colours = COLOURS[theme]
    run = "".join(f"<script>{script}</script>" for script in scripts)
    return f"""<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8">
<title>A figure</title><style>{STYLE} body {{ background: {colours[0]}; color: {colours[1]};
--pst-color-text-base: {colours[1]}; --pst-color-border: #888; }}</style></head><body><main>
<h1>A page</h1><figure id="fig-x"><a href="#x"><img alt="The picture" src="{PICTURE}"></a>
<figcaption>The caption</figcaption></figure>{output}</main>{run}</body></html>"""


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser without a window, closed at the end."""
    assert CHROMIUM, "CI needs a browser: install chromium or set CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()
