"""Tables that a chapter computes, as the site and a notebook show them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from IPython.display import HTML

EXPONENT = re.compile(r"-?\d[\d.]*e-\d+")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> HTML:
    """A table: the first cell of each row says what the row is about.

    Args:
        head: what stands above each column.
        rows: cells, written as `str` writes them.

    Raises:
        ValueError: when a row has more or fewer cells than the head.

    Example:
        >>> from assocmem.book.table import table
        >>> print(table(["memory", "bytes"], [["state", 4096]]).data)
        <table class="table">
        <thead><tr><th scope="col">memory</th><th scope="col">bytes</th></tr></thead>
        <tbody>
        <tr><th scope="row">state</th><td>4096</td></tr>
        </tbody>
        </table>
    """
    lines = []
    for first, *others in rows:
        if len(others) + 1 != len(head):
            raise ValueError(f"rows must have {len(head)} cells, got {[first, *others]}")
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{escape(str(first))}</th>{cells}</tr>')
    above = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return HTML(
        "\n".join(
            (
                '<table class="table">',
                f"<thead><tr>{above}</tr></thead>",
                "<tbody>",
                *lines,
                "</tbody>",
                "</table>",
            )
        )
    )


def in_one_piece(markdown: str) -> str:
    """Numbers like 1e-14 in a class of their own, so that no line ends at their minus."""
    return EXPONENT.sub(r"[\g<0>]{.number}", markdown)
