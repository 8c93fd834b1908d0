"""Code of the library on a page is the code of its file, today."""

from __future__ import annotations

import re

import pytest

from assocmem import capacity, ops
from assocmem.book.source import source
from tests.book.chapter import CHAPTERS, ROOT, Chapter

BLOCK = re.compile(r"^```python\n# ((?:src|kernels)/\S+\.py)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def shown(chapter: Chapter) -> list[tuple[str, str]]:
    """The blocks of code that cells put out, as pairs of a file and its code."""
    texts = [
        output.data["text/markdown"]
        for cell in chapter.code
        for output in cell.outputs
        if "text/markdown" in output.get("data", {})
    ]
    return [block for text in texts for block in BLOCK.findall(text)]


def stale(file: str, code: str) -> list[str]:
    """The functions of a block that do not stand like this in their file."""
    text = (ROOT / file).read_text()
    return [part for part in code.strip().split("\n\n\n") if part not in text]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_what_a_page_shows_is_in_the_file(chapter: Chapter) -> None:
    for file, code in shown(chapter):
        assert stale(file, code) == []


def test_chapter_6_shows_its_kernels() -> None:
    (chapter,) = (c for c in CHAPTERS if c.name == "06_gpu_scans")
    code = "\n".join(code for _, code in shown(chapter))
    for kernel in ("forward_kernel", "by_blocks", "delta_forward_kernel"):
        assert f"@triton.jit\ndef {kernel}(" in code


def test_a_function_with_its_file() -> None:
    ((file, code),) = BLOCK.findall(source(ops.backend_for, ops.backend.choose).data)
    assert file == "src/assocmem/ops/backend.py"
    assert stale(file, code) == []
    assert [line for line in code.splitlines() if line.startswith("def ")] == [
        "def backend_for(q: Tensor) -> str:",
        "def choose(backend: str, q: Tensor) -> str:",
    ]
    changed = code.replace("choose_without", "choose").replace("return", "return  ")
    assert len(stale(file, changed)) == 2


@pytest.mark.parametrize("functions", [(ops.backend_for, capacity.snr_linear), (re.compile,)])
def test_functions_of_elsewhere_are_refused(functions) -> None:
    with pytest.raises(ValueError, match="must come from one file of the library, got"):
        source(*functions)
