"""A browser for the tests of a module, skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.book.browser import MISSING, WHY, launched


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if MISSING:
        pytest.skip(WHY)
    with launched() as browser:
        yield browser
