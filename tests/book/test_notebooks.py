"""A notebook is executed from top to bottom, small, self-contained, and of a readable length."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Callable
from statistics import median, quantiles

import pytest
import yaml
from nbformat.v4 import new_output

from tests.book.chapter import BOOK, CHAPTERS, HIDDEN, ROOT, Chapter, parse
from tests.book.miniature import miniature

SIZE = 1_500_000  # bytes
WORDS = (2_500, 3_500)
LINES = (200, 300)
FIGURES = (6, 10)
EXERCISES = (5, 8)
SECONDS = 60  # from an empty kernel, on two cores
PACKAGES = {"assocmem", "assocmem_kernels", "torch", "triton", "numpy", "matplotlib"}
PACKAGES |= set(sys.stdlib_module_names)
# A place on somebody's machine, in code or in what it prints.
ABSOLUTE = re.compile(r"(?<![\w.])(?:/(?:home|root|tmp|usr|opt|work|Users|mnt|content)/|[A-Z]:\\)")


def broken_promises(chapter: Chapter) -> list[str]:
    """What is wrong with the notebook as a file that was run."""
    notebook = chapter.notebook
    problems = []
    if chapter.size >= SIZE:
        problems.append(f"{chapter.size} bytes, at most {SIZE}")
    if (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        problems.append(f"format {notebook.nbformat}.{notebook.nbformat_minor}, not 4.5")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        problems.append("the kernel is not python3")
    counts = [cell.execution_count for cell in chapter.code]
    if counts != list(range(1, len(counts) + 1)):
        problems.append("not executed once from top to bottom")
    for cell in chapter.code:
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(f"an error in the outputs: {output.ename}")
            if output.get("name") == "stderr":
                problems.append(f"a warning in the outputs: {output.text[:60]}")
        if ABSOLUTE.search(cell.source) or any(
            ABSOLUTE.search(o.get("text", "") + o.get("data", {}).get("text/plain", ""))
            for o in cell.outputs
        ):
            problems.append("a path of somebody's machine")
    foreign = imported(chapter) - PACKAGES
    problems += [f"imports {name}" for name in sorted(foreign)]
    if "sys.path" in "".join(cell.source for cell in chapter.code):
        problems.append("changes sys.path")
    return problems


def imported(chapter: Chapter) -> set[str]:
    """The top-level names of the packages that a chapter imports."""
    names = set()
    for cell in chapter.code:
        for node in ast.walk(parse(cell)):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or ".").split(".")[0])
    return names


def defined(chapter: Chapter) -> list[str]:
    """The functions and classes that a chapter defines, without the stubs of its exercises."""
    return [
        node.name
        for cell in chapter.code
        if "NotImplementedError" not in cell.source
        for node in parse(cell).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]


def words(chapter: Chapter) -> int:
    """Words of prose: no code, no display mathematics, no options, and no hidden solutions."""
    text = re.sub(r"^(:{3,}|`{3,})\{solution\}.*?^\1$", "", chapter.text, flags=re.S | re.M)
    text = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.S | re.M)
    text = re.sub(r"\$\$.*?\$\$( \(eq-[\w-]+\))?", "", text, flags=re.S)
    text = re.sub(r"\{claim\}`[^`]*`", "", text)
    text = re.sub(r"\{[\w:]+\}`[^`]*`", "x", text)  # a reference reads as a word
    text = re.sub(r"^:[\w-]+:.*$|^:{3,}.*$", "", text, flags=re.M)
    return len(re.findall(r"\w[\w'’-]*", re.sub(r"\$[^$]*\$", "x", text)))


def visible_lines(chapter: Chapter) -> list[int]:
    """Lines of code in each cell that a reader sees, blank lines not counted."""
    return [
        sum(1 for line in cell.source.splitlines() if line.strip())
        for cell in chapter.code
        if not HIDDEN & set(cell.metadata.get("tags", []))
    ]


def test_the_table_of_contents_lists_every_chapter() -> None:
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [c["file"] for part in contents["parts"] for c in part["chapters"]]
    assert [f for f in files if re.match(r"book/\d", f)] == [f"book/{c.name}" for c in CHAPTERS]
    home = (BOOK / "index.md").read_text()
    assert re.findall(r"^\| \{doc\}`(\d\w+)`", home, re.M) == [c.name for c in CHAPTERS]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_the_notebook_was_run_and_is_clean(chapter: Chapter) -> None:
    assert not broken_promises(chapter)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_its_length_is_readable(chapter: Chapter) -> None:
    lines = visible_lines(chapter)
    assert WORDS[0] <= words(chapter) <= WORDS[1]
    assert LINES[0] <= sum(lines) <= LINES[1]
    assert median(lines) <= 8
    assert quantiles(lines, n=10)[-1] <= 25


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_it_says_how_long_it_takes_and_where_that_was_measured(chapter: Chapter) -> None:
    box = next(d.body for d in chapter.named("admonition") if d.argument == "Run time and hardware")
    measured = re.match(r"(\d+) seconds on .*CPU.* \(.+\), measured from an empty kernel", box)
    assert measured, box
    assert 0 < int(measured[1]) <= SECONDS
    assert "GPU" in box


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_it_has_enough_to_see_and_to_do(chapter: Chapter) -> None:
    assert FIGURES[0] <= len(chapter.figures) <= FIGURES[1]
    assert EXERCISES[0] <= len(chapter.named("exercise")) <= EXERCISES[1]


def test_no_helper_is_defined_twice() -> None:
    names = Counter(name for chapter in CHAPTERS for name in set(defined(chapter)))
    assert [name for name, n in names.items() if n > 1] == []


def skipped_cell(chapter: Chapter) -> None:
    chapter.notebook.cells[2].execution_count = 7


def error(chapter: Chapter) -> None:
    output = new_output("error", ename="ValueError", evalue="", traceback=[])
    chapter.notebook.cells[2].outputs.append(output)


def warning(chapter: Chapter) -> None:
    output = new_output("stream", name="stderr", text="UserWarning")
    chapter.notebook.cells[2].outputs.append(output)


def path_in_the_code(chapter: Chapter) -> None:
    chapter.notebook.cells[2].source += '\nopen("/home/me/data")'


def path_in_an_output(chapter: Chapter) -> None:
    chapter.notebook.cells[2].outputs[0].text += "/tmp/x"


def foreign_import(chapter: Chapter) -> None:
    chapter.notebook.cells[2].source += "\nimport pandas.io"


def another_kernel(chapter: Chapter) -> None:
    chapter.notebook.metadata.kernelspec.name = "mine"


BREAKS: dict[Callable[[Chapter], None], str] = {
    skipped_cell: "not executed once from top to bottom",
    error: "an error in the outputs: ValueError",
    warning: "a warning in the outputs: UserWarning",
    path_in_the_code: "a path of somebody's machine",
    path_in_an_output: "a path of somebody's machine",
    foreign_import: "imports pandas",
    another_kernel: "the kernel is not python3",
}


@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
def test_a_broken_notebook_is_noticed(damage: Callable[[Chapter], None]) -> None:
    chapter = miniature()
    assert not broken_promises(chapter)
    damage(chapter)
    assert BREAKS[damage] in broken_promises(chapter)


def test_length_counts_what_is_read() -> None:
    chapter = miniature()
    assert words(chapter) == 16
    assert visible_lines(chapter) == [2, 2, 3, 3]
    assert sorted(defined(chapter)) == []
