"""A browser for tests: Debian's chromium, or the one that CHROMIUM names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

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


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser without a window, closed at the end."""
    assert CHROMIUM, "CI needs a browser: install chromium or set CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()
