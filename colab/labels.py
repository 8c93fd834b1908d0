"""What a reference to a numbered thing reads as, as Sphinx numbers them on the site."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nbformat import NotebookNode

from colab.myst import Directive, blocks

EQUATION = re.compile(r"\$\$(?P<tex>.*?)\$\$(?:[ ]*\((?P<label>[\w:.-]+)\))?", re.DOTALL)
SECTION = re.compile(r"^\((?P<label>[\w-]+)\)=\n+#+ (?P<title>.*)$", re.MULTILINE)
THEOREMS = {"theorem", "proposition", "lemma", "corollary", "definition", "example", "remark"}


@dataclass(frozen=True)
class Label:
    """A numbered thing: the words that refer to it, and its place on the site."""

    text: str
    document: str
    anchor: str


@dataclass(frozen=True)
class Chapter:
    """A notebook of the book: its place in the repository without the ending, and its contents."""

    document: str
    notebook: NotebookNode

    @property
    def number(self) -> int:
        """The chapter's number, with which its file name begins."""
        return int(self.document.split("/")[-1].split("_")[0])

    @property
    def title(self) -> str:
        """The heading of its first cell."""
        return self.notebook.cells[0].source.splitlines()[0].removeprefix("# ")


def labels(chapters: Iterable[Chapter]) -> dict[str, Label]:
    """Every label of the book.

    Raises:
        ValueError: when a label stands at two places.
    """
    found: dict[str, Label] = {}
    for chapter in chapters:
        for name, label in labels_of(chapter):
            if name in found:
                raise ValueError(f"label {name} stands twice, in {label.document} for the second")
            found[name] = label
    return found


def labels_of(chapter: Chapter) -> Iterator[tuple[str, Label]]:
    """The labels of a chapter; everything is counted by its kind, from 1."""
    counts: Counter[str] = Counter()
    for kind, name, anchor, form in numbered(chapter.notebook):
        counts[kind] += 1
        number = f"{chapter.number}.{counts[kind]}"
        yield name, Label(form.replace("#", number), chapter.document, anchor)


def numbered(notebook: NotebookNode) -> Iterator[tuple[str, str, str, str]]:
    """Of each labelled thing its kind, name and anchor, and its words with # for the number."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield from numbered_in(cell.source)
        elif name := figure_name(cell):
            yield "figure", name, name, "Fig. #"


def numbered_in(markdown: str) -> Iterator[tuple[str, str, str, str]]:
    for block in blocks(markdown):
        if isinstance(block, Directive):
            kind, label = block.name.removeprefix("prf:"), block.options.get("label")
            if label and (kind in THEOREMS or kind == "exercise"):
                yield kind, label, label, f"{kind.capitalize()} #"
            yield from numbered_in(block.body)
        elif isinstance(block, str):
            for match in EQUATION.finditer(block):
                if label := match["label"]:
                    yield "equation", label, f"equation-{label}", "(#)"
            for match in SECTION.finditer(block):
                yield "section", match["label"], match["label"], f"*{match['title']}*"


def figure_name(cell: NotebookNode) -> str:
    """The name of the figure that a code cell shows; empty when it shows none."""
    return cell.metadata.get("mystnb", {}).get("figure", {}).get("name", "")
