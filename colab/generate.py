"""The book for Colab: `python -m colab.generate` writes colab/*.ipynb from book/*.ipynb.

Nobody edits what it writes: to change a notebook here, change the one in book/.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from colab.citations import citations
from colab.labels import Chapter, Label, figure_name, labels
from colab.markdown import Page

ROOT = Path(__file__).parents[1]
METADATA = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "provenance": [], "toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebooks(root: Path = ROOT) -> dict[str, str]:
    """Every notebook for Colab: its file name, and the text of the file."""
    config = yaml.safe_load((root / "_config.yml").read_text())
    chapters = read_chapters(root)
    known = labels(chapters)
    sources = citations(root / "book" / "references.bib")
    titles = {chapter.document: chapter.title for chapter in chapters}
    for path in (root / "book").glob("*.md"):
        titles[f"book/{path.stem}"] = path.read_text().splitlines()[0].removeprefix("# ")
    found = {}
    for chapter in chapters:
        page = Page(chapter.document, config["html"]["baseurl"], known, titles, sources)
        notebook = translated(chapter, page, config["repository"]["url"])
        found[f"{Path(chapter.document).name}.ipynb"] = nbformat.writes(notebook) + "\n"
    return found


def read_chapters(root: Path) -> list[Chapter]:
    paths = sorted((root / "book").glob("[0-9]*.ipynb"))
    return [Chapter(f"book/{p.stem}", nbformat.read(p, as_version=4)) for p in paths]


def translated(chapter: Chapter, page: Page, repository: str) -> NotebookNode:
    """A chapter's notebook for Colab, without outputs."""
    cells = [install(chapter, page, repository)]
    for cell in chapter.notebook.cells:
        cells += cells_for(cell, page)
    return new_notebook(cells=cells, metadata=METADATA)


def install(chapter: Chapter, page: Page, repository: str) -> NotebookNode:
    """The cell that installs the library: without dependencies, as Colab's own torch has to stay.

    Triton comes with torch on Colab's GPU machines, and is left as it is there; on those without
    a GPU it is missing.
    """
    code = "\n".join(c.source for c in chapter.notebook.cells if c.cell_type == "code")
    triton = " triton" if re.search(r"^import triton$", code, re.MULTILINE) else ""
    lines = [
        f"# Chapter {chapter.number} of the book at {page.address(chapter.document)}",
        f"# (written by `make colab` from {chapter.document}.ipynb; edits are made there)",
        "# The library; everything else that the chapter needs is on Colab.",
        f"%pip install -q --no-deps git+{repository}{triton}",
    ]
    return new_code_cell("\n".join(lines), id="install")


def cells_for(cell: NotebookNode, page: Page) -> list[NotebookNode]:
    """A cell of the book as cells for Colab: a figure's caption becomes a cell of its own."""
    if cell.cell_type == "markdown":
        return [new_markdown_cell(plain(cell, cell.source, page), id=cell.id)]
    figure = page.labels.get(figure_name(cell))
    cells = [code_cell(cell, figure)]
    if figure:
        caption = plain(cell, cell.metadata.mystnb.figure.caption, page)
        cells.append(new_markdown_cell(f"**{figure.text}** {caption}", id=figure.anchor))
    return cells


def plain(cell: NotebookNode, markdown: str, page: Page) -> str:
    """Text of a cell in plain Markdown.

    Raises:
        ValueError: with the cell's place, when something in it cannot be said so.
    """
    try:
        return page.plain(markdown)
    except ValueError as error:
        raise ValueError(f"{page.document}.ipynb, cell {cell.id}: {error}") from None


def code_cell(cell: NotebookNode, figure: Label | None) -> NotebookNode:
    """A code cell; what the site hides behind a click, Colab hides behind a title."""
    if "hide-input" not in cell.metadata.get("tags", []):
        return new_code_cell(cell.source, id=cell.id)
    title = f"Code of {figure.text}" if figure else "Code"
    source = f"# @title {title}\n{cell.source}"
    return new_code_cell(source, id=cell.id, metadata={"cellView": "form"})


def write(folder: Path, texts: dict[str, str]) -> None:
    """Write the notebooks, and remove those that no chapter stands behind any more."""
    for path in folder.glob("*.ipynb"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    written = notebooks()
    write(ROOT / "colab", written)
    print(f"colab/: {len(written)} notebooks")
