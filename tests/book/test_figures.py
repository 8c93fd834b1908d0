"""Every picture has a name, a caption, a text that says what it shows, and one style."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from nbformat.v4 import new_output

from assocmem.book import figures
from tests.book.chapter import CHAPTERS, Chapter, pictures
from tests.book.miniature import miniature

WORDS = 12  # of an alt text, at least
HEAVY = 200_000  # bytes of SVG, at most
PAPER = "#fbfaf7"  # the panel that keeps a figure legible on a dark page


def broken_promises(chapter: Chapter) -> list[str]:
    """What the chapter's figures leave to be desired."""
    problems = []
    if not any("figures.use_style()" in cell.source for cell in chapter.code[:1]):
        problems.append("the first code cell does not call figures.use_style()")
    for cell in chapter.figures:
        mystnb = cell.metadata.get("mystnb", {})
        name = mystnb.get("figure", {}).get("name", "")
        alt = mystnb.get("image", {}).get("alt", "")
        problems += [f"{name}: {p}" for p in figure_problems(cell, mystnb, name, alt)]
    return problems


def figure_problems(cell, mystnb, name: str, alt: str) -> list[str]:
    problems = []
    if not re.fullmatch(r"fig(-[a-z0-9]+)+", name):
        problems.append(f"name must be fig-…, got {name!r}")
    if not mystnb.get("figure", {}).get("caption", "").strip():
        problems.append("no caption")
    if len(alt.split()) < WORDS:
        problems.append(f"alt text of {len(alt.split())} words")
    if not re.search(r"\d", alt):
        problems.append("alt text without a number")
    if not re.search(r"\bassert\b|\bclaim\(", cell.source):
        problems.append("what is plotted is not asserted")
    if len(cell.outputs) != 1:
        problems.append("the cell puts out more than the picture")
    for kind, data in pictures(cell):
        if kind == "image/svg+xml" and len(data.encode()) > HEAVY:
            problems.append(f"{len(data.encode())} bytes of SVG; make it PNG")
        if kind == "image/svg+xml" and "<dc:date>" in data:
            problems.append("an SVG with a date changes at every run")
        if kind == "image/svg+xml" and PAPER not in data:
            problems.append("an SVG without the book's background")
    return problems


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_every_picture_is_a_figure_of_the_book(chapter: Chapter) -> None:
    assert not broken_promises(chapter)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_every_figure_cell_shows_its_picture(chapter: Chapter) -> None:
    declared = [cell for cell in chapter.code if "figure" in cell.metadata.get("mystnb", {})]
    assert declared == chapter.figures


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_every_figure_is_referred_to(chapter: Chapter) -> None:
    names = [cell.metadata.mystnb.figure.name for cell in chapter.figures]
    assert [name for name in names if f"`{name}`" not in chapter.text] == []


def test_names_are_unique_in_the_book() -> None:
    names = Counter(
        cell.metadata.mystnb.figure.name for chapter in CHAPTERS for cell in chapter.figures
    )
    assert [name for name, n in names.items() if n > 1] == []


def no_name(cell) -> None:
    del cell.metadata["mystnb"]["figure"]["name"]


def no_caption(cell) -> None:
    cell.metadata["mystnb"]["figure"]["caption"] = " "


def short_alt(cell) -> None:
    cell.metadata["mystnb"]["image"]["alt"] = "Figure 1"


def alt_without_a_number(cell) -> None:
    cell.metadata["mystnb"]["image"]["alt"] = "word " * WORDS


def heavy(cell) -> None:
    cell.outputs[0].data["image/svg+xml"] += " " * HEAVY


def dated(cell) -> None:
    cell.outputs[0].data["image/svg+xml"] += "<dc:date>2026-11-24</dc:date>"


def another_style(cell) -> None:
    cell.outputs[0].data["image/svg+xml"] = "<svg/>"


def nothing_asserted(cell) -> None:
    cell.source = cell.source.replace("assert True;", "")


def prints_too(cell) -> None:
    cell.outputs.append(new_output("stream", name="stdout", text="claim …"))


BREAKS: dict[Callable[..., None], str] = {
    no_name: ": name must be fig-…, got ''",
    no_caption: "fig-mini: no caption",
    short_alt: "fig-mini: alt text of 2 words",
    alt_without_a_number: "fig-mini: alt text without a number",
    heavy: f"fig-mini: {HEAVY + 40} bytes of SVG; make it PNG",
    dated: "fig-mini: an SVG with a date changes at every run",
    another_style: "fig-mini: an SVG without the book's background",
    nothing_asserted: "fig-mini: what is plotted is not asserted",
    prints_too: "fig-mini: the cell puts out more than the picture",
}


@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
def test_a_broken_figure_is_noticed(damage: Callable[..., None]) -> None:
    chapter = miniature()
    assert not broken_promises(chapter)
    damage(chapter.notebook.cells[3])
    assert BREAKS[damage] in broken_promises(chapter)


def drawn() -> str:
    """An SVG in the book's style; ids are drawn by lot where no salt is set."""
    with mpl.rc_context():
        figures.use_style()
        _, (axes,) = figures.figure()
        axes.plot([0, 1])
        svg = io.StringIO()
        axes.figure.savefig(svg, format="svg", metadata={"Date": None})
        plt.close("all")
    return svg.getvalue()


def test_the_style_is_the_book_s_paper_and_the_same_file_every_time() -> None:
    assert PAPER in drawn()
    assert drawn() == drawn()


def test_a_chapter_without_the_style_is_noticed() -> None:
    chapter = miniature()
    chapter.notebook.cells[1].source = "from assocmem.book import claim"
    assert "the first code cell does not call figures.use_style()" in broken_promises(chapter)
