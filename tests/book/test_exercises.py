"""Every exercise has a solution that its check accepts, and a stub that it does not."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

import pytest
from nbformat import NotebookNode

from assocmem.book import check
from colab.myst import Directive
from tests.book.chapter import CHAPTERS, Chapter, parse
from tests.book.code import run
from tests.book.miniature import miniature

DIFFICULTY = re.compile(r"(?<!★)★{1,3}(?!★)")
TIME = re.compile(r"\b\d+\s+minutes?\b")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Exercise:
    """An exercise with its solution, and the cell in which a reader works on it."""

    chapter: Chapter
    task: Directive
    solution: Directive | None
    stub: NotebookNode | None

    @property
    def label(self) -> str:
        return self.task.options.get("label", "?")

    @property
    def check_name(self) -> str:
        return self.label.replace("-", "_")

    def __str__(self) -> str:
        return self.check_name

    def judge(self, answer: str) -> bool:
        """The verdict on an answer, given as code in place of the stub."""
        namespace = definitions(self.chapter, before=self.stub)
        run(answer, namespace)
        call = check_call(self.stub, self.check_name)
        return eval(compile(ast.Expression(call), "<check>", "eval"), namespace)

    def stub_definitions(self) -> str:
        """The stub without the call of the check."""
        assert self.stub is not None
        module = parse(self.stub)
        kept = [node for node in module.body if not calls_check(node)]
        return ast.unparse(ast.Module(kept, []))


def definitions(chapter: Chapter, before: NotebookNode | None) -> dict[str, Any]:
    """What imports and definitions earlier in a chapter leave for an exercise to use."""
    namespace: dict[str, Any] = {}
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    for cell in chapter.code:
        if cell is before:
            break
        if "import triton" in cell.source:
            pytest.importorskip("triton", reason="triton is missing")
        run(cell.source, namespace, kinds)
    return namespace


def calls_check(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and ast.unparse(node).startswith("check.")


def check_call(stub: NotebookNode | None, name: str) -> ast.expr:
    """The expression `check.name(…)` in a stub."""
    assert stub is not None
    for node in parse(stub).body:
        if isinstance(node, ast.Expr) and ast.unparse(node).startswith(f"check.{name}("):
            return node.value
    raise AssertionError(f"{name}: its cell never calls check.{name}(…)")


def exercises(chapter: Chapter) -> list[Exercise]:
    """The exercises of a chapter, in order."""
    solutions = {d.argument: d for d in chapter.named("solution")}
    found = []
    for task in chapter.named("exercise"):
        label = task.options.get("label", "?")
        call = f"check.{label.replace('-', '_')}("
        stub = next((cell for cell in chapter.code if call in cell.source), None)
        found.append(Exercise(chapter, task, solutions.get(label), stub))
    return found


def broken_promises(exercise: Exercise) -> list[str]:
    """What an exercise leaves to be desired."""
    task, solution, problems = exercise.task, exercise.solution, []
    if not re.fullmatch(r"ch\d+-ex\d+", exercise.label):
        problems.append(f"label must be ch1-ex1 or alike, got {exercise.label}")
    if not DIFFICULTY.search(task.argument + task.body):
        problems.append("no difficulty of one to three stars")
    if not TIME.search(task.body):
        problems.append("no estimate of the time in minutes")
    if solution is None:
        problems.append("no solution")
    elif "dropdown" not in solution.options.get("class", ""):
        problems.append("the solution is not hidden")
    elif len(PYTHON.findall(solution.body)) != 1:
        problems.append("the solution has not exactly one block of Python")
    if exercise.stub is None:
        problems.append("no cell to work in")
    elif "NotImplementedError" not in exercise.stub.source:
        problems.append("the stub does not raise NotImplementedError")
    elif f"{exercise.check_name}: not solved yet" not in str(exercise.stub.outputs):
        problems.append("the stub's output does not say: not solved yet")
    return problems


ALL = [exercise for chapter in CHAPTERS for exercise in exercises(chapter)]


@pytest.mark.parametrize("exercise", ALL, ids=str)
def test_an_exercise_is_complete(exercise: Exercise) -> None:
    assert not broken_promises(exercise)


@pytest.mark.parametrize("exercise", ALL, ids=str)
def test_the_solution_passes_its_check(exercise: Exercise) -> None:
    assert exercise.solution is not None
    (answer,) = PYTHON.findall(exercise.solution.body)
    assert exercise.judge(answer) is True


@pytest.mark.parametrize("exercise", ALL, ids=str)
def test_the_stub_does_not_pass(exercise: Exercise, capsys: pytest.CaptureFixture[str]) -> None:
    assert exercise.judge(exercise.stub_definitions()) is False
    assert "not solved yet" in capsys.readouterr().out


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_no_solution_is_without_its_exercise(chapter: Chapter) -> None:
    labels = [exercise.label for exercise in exercises(chapter)]
    assert [d.argument for d in chapter.named("solution")] == labels


def test_every_check_has_its_exercise() -> None:
    checks = {name for name in dir(check) if re.fullmatch(r"ch\d+_ex\d+", name)}
    assert checks == {exercise.check_name for exercise in ALL}


BREAKS = {
    "label": (4, ":label: ch1-ex1\n", "", "label must be ch1-ex1 or alike, got ?"),
    "stars": (4, "★ ", "", "no difficulty of one to three stars"),
    "time": (4, "(2 minutes) ", "", "no estimate of the time in minutes"),
    "solution": (4, "{solution} ch1-ex1", "{solution} ch1-ex2", "no solution"),
    "hidden": (4, ":class: dropdown\n", "", "the solution is not hidden"),
    "python": (4, "```python", "```text", "the solution has not exactly one block of Python"),
    "stub": (5, "check.ch1_ex1(add);", "", "no cell to work in"),
    "solved": (
        5,
        "raise NotImplementedError",
        "return a + b",
        "the stub does not raise NotImplementedError",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_exercise_is_noticed(name: str) -> None:
    cell, old, new, problem = BREAKS[name]
    (exercise,) = exercises(miniature())
    assert not broken_promises(exercise)
    chapter = miniature()
    source = chapter.notebook.cells[cell].source
    assert old in source
    chapter.notebook.cells[cell].source = source.replace(old, new)
    (exercise,) = exercises(chapter)
    assert problem in broken_promises(exercise)
