"""Tables that a chapter computes: heads that a screen reader finds, and text that stays text."""

from __future__ import annotations

import pytest
from bs4 import BeautifulSoup

from assocmem.book.table import in_one_piece, table


def test_heads_and_cells() -> None:
    page = BeautifulSoup(table(["rule", "β < 2"], [["a<b>", 1], ["c", None]]).data, "html.parser")
    assert [th.text for th in page.select("thead th[scope=col]")] == ["rule", "β < 2"]
    assert [th.text for th in page.select("tbody th[scope=row]")] == ["a<b>", "c"]
    assert [td.text for td in page.select("tbody td")] == ["1", "None"]


def test_a_row_of_another_length_is_named() -> None:
    with pytest.raises(ValueError, match=r"rows must have 2 cells, got \['x'\]"):
        table(["a", "b"], [["x"]])


def test_no_line_ends_within_a_number() -> None:
    told = "| 1e-14 | -2.5e-07 ± 3e-9 | 1e5, one-sided |"
    kept = "| [1e-14]{.number} | [-2.5e-07]{.number} ± [3e-9]{.number} | 1e5, one-sided |"
    assert in_one_piece(told) == kept
