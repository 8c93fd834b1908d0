"""A chapter as the tests see it: its notebook, taken apart."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup, Tag
from nbformat import NotebookNode

from colab.myst import Directive, blocks

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
ROLE = re.compile(r"\{claim\}`([^`]+)`")
PICTURES = ("image/svg+xml", "image/png")
HIDDEN = {"hide-input", "remove-input", "hide-cell", "remove-cell"}


def directives(markdown: str) -> list[Directive]:
    """All directives of a text, those inside others included, in order."""
    found: list[Directive] = []
    for block in blocks(markdown):
        if isinstance(block, Directive):
            found += [block, *directives(block.body)]
    return found


@dataclass(frozen=True)
class Chapter:
    """One notebook of the book."""

    notebook: NotebookNode
    name: str
    size: int = 0

    @classmethod
    def read(cls, path: Path) -> Chapter:
        return cls(nbformat.read(path, as_version=4), path.stem, path.stat().st_size)

    def __str__(self) -> str:
        return self.name

    @cached_property
    def text(self) -> str:
        """The Markdown of all cells."""
        return "\n\n".join(c.source for c in self.notebook.cells if c.cell_type == "markdown")

    @cached_property
    def code(self) -> list[NotebookNode]:
        """The code cells that are not empty."""
        return [c for c in self.notebook.cells if c.cell_type == "code" and c.source.strip()]

    @cached_property
    def directives(self) -> list[Directive]:
        return directives(self.text)

    @cached_property
    def roles(self) -> list[str]:
        """The ids of the claims that the text makes, in order."""
        return ROLE.findall(self.text)

    @cached_property
    def claim_calls(self) -> list[str]:
        """The ids of the claims that the code checks, in order; "?" for one not written out."""
        return [
            str(node.args[0].value) if node.args and isinstance(node.args[0], ast.Constant) else "?"
            for cell in self.code
            for node in ast.walk(parse(cell))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "claim"
        ]

    @cached_property
    def figures(self) -> list[NotebookNode]:
        """The cells that show a picture."""
        return [cell for cell in self.code if pictures(cell)]

    @cached_property
    def interactives(self) -> list[Tag]:
        """The elements that the site turns into figures that move."""
        return self.players("interactive")

    @cached_property
    def workbenches(self) -> list[Tag]:
        """The elements that the site turns into memories to write into."""
        return self.players("workbench")

    def players(self, kind: str) -> list[Tag]:
        pages = [
            BeautifulSoup(output.data["text/html"], "html.parser")
            for cell in self.code
            for output in cell.outputs
            if "text/html" in output.get("data", {})
        ]
        return [tag for page in pages for tag in page.select(f"div.{kind}")]

    def named(self, *names: str) -> list[Directive]:
        """The directives with one of these names."""
        return [d for d in self.directives if d.name in names]

    @cached_property
    def printed(self) -> str:
        """Everything that the cells print."""
        return "\n".join(o.get("text", "") for cell in self.code for o in cell.outputs)


def pictures(cell: NotebookNode) -> list[tuple[str, str]]:
    """The pictures that a cell shows, as pairs of type and data: SVG where there is one."""
    found = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        found += [(kind, data[kind]) for kind in PICTURES if kind in data][:1]
    return found


def parse(cell: NotebookNode) -> ast.Module:
    """The syntax tree of a cell of plain Python."""
    return ast.parse(cell.source)


CHAPTERS = [Chapter.read(path) for path in sorted(BOOK.glob("[0-9]*.ipynb"))]
