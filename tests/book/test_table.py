"""Tables that a chapter computes: heads that a screen reader finds, and text that stays text."""

from __future__ import annotations

import pytest
from bs4 import BeautifulSoup

from assocmem.book.table import table


def test_heads_and_cells() -> None:
    page = BeautifulSoup(table(["rule", "β < 2"], [["a<b>", 1], ["c", None]]).data, "html.parser")
    assert [th.text for th in page.select("thead th[scope=col]")] == ["rule", "β < 2"]
    assert [th.text for th in page.select("tbody th[scope=row]")] == ["a<b>", "c"]
    assert [td.text for td in page.select("tbody td")] == ["1", "None"]


def test_a_row_of_another_length_is_named() -> None:
    with pytest.raises(ValueError, match=r"rows must have 2 cells, got \['x'\]"):
        table(["a", "b"], [["x"]])
