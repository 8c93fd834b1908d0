"""What the chapters are run against: the wheel is whole, and an edition has the book's outputs."""

from __future__ import annotations

import re
from pathlib import Path
from zipfile import ZipFile

import nbformat
import pytest

from tests.book.chapter import CHAPTERS, ROOT, Chapter
from tests.colab.elsewhere import with_outputs
from tests.wheel import wheel


def test_the_wheel_carries_everything(tmp_path: Path) -> None:
    roots = [ROOT / "src", ROOT / "kernels"]
    files = {str(p.relative_to(r)) for r in roots for p in r.rglob("*") if p.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    assert "assocmem/book/results/feed_forward.json" in files
    inside = ZipFile(wheel(tmp_path)).namelist()
    assert {name for name in inside if ".dist-info/" not in name} == files


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_an_edition_has_every_output_of_the_chapter(chapter: Chapter) -> None:
    edition = nbformat.read(ROOT / "colab" / f"{chapter.name}.ipynb", as_version=4)
    notebook = with_outputs(edition, chapter.notebook, Path("the.whl"))
    install, *cells, where = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "the.whl" in install.source
    assert "sys.prefix" in where.source
    theirs = [cell for cell in chapter.notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in cells] == [cell.outputs for cell in theirs]
    assert all(cell.execution_count for cell in (install, *cells, where))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_what_a_cell_shows_can_be_read_on_colab(chapter: Chapter) -> None:
    outputs = [output for cell in chapter.code for output in cell.outputs if "data" in output]
    shown = "".join(output.data.get("text/markdown", "") for output in outputs)
    assert re.findall(r"\{[\w:]+\}`", shown) == []
