"""How nbval compares a notebook with its committed outputs; loaded with `-p`.

nbval compares text exactly, passes cells that were never executed, cannot see pictures, and runs
cells without history, so that a last `;` does not silence a cell as it does in Jupyter. Here a `;`
does; a number with a decimal point or an exponent may deviate by RTOL, since other machines round
otherwise, while integers and all other text stay exact; a notebook with a cell that was never
executed is an error; and pictures are left to test_figures.py, SVG as well as PNG. The kernels have
no network (offline/sitecustomize.py).
"""

import math
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbval import plugin
from nbval.kernel import RunningKernel

NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")
RTOL, ATOL = 1e-3, 1e-6
OFFLINE = str(Path(__file__).parent / "offline")


def alike(a: str, b: str) -> bool:
    """Whether two outputs are the same text with nearly the same numbers."""
    if NUMBER.split(a) != NUMBER.split(b):
        return False
    pairs = zip(NUMBER.findall(a), NUMBER.findall(b), strict=True)
    return all(x == y or (is_float(x) and is_float(y) and near(x, y)) for x, y in pairs)


def is_float(number: str) -> bool:
    return any(sign in number for sign in ".eE")


def near(x: str, y: str) -> bool:
    return math.isclose(float(x), float(y), rel_tol=RTOL, abs_tol=ATOL)


class Output(str):
    """Text that is equal to text with nearly the same numbers."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and alike(str(self), str(other))

    def __ne__(self, other: object) -> bool:
        return not self == other


exact = plugin.IPyNbCell.sanitize


def sanitize(self: plugin.IPyNbCell, s: object) -> object:
    s = exact(self, s)
    return Output(s) if isinstance(s, str) else s


setattr(plugin.IPyNbCell, "sanitize", sanitize)  # noqa: B010


def execute(self: RunningKernel, cell_input: str, allow_stdin: bool | None = None) -> str:
    return self.kc.execute(
        cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False
    )


setattr(RunningKernel, "execute_cell_input", execute)  # noqa: B010


def pytest_configure() -> None:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (OFFLINE, before)))


def pytest_collectstart(collector: pytest.Collector) -> None:
    if not isinstance(collector, plugin.IPyNbFile):
        return
    setattr(collector, "skip_compare", (*collector.skip_compare, "image/svg+xml"))  # noqa: B010
    notebook = nbformat.read(collector.path, as_version=4)
    never = [
        number
        for number, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None
    ]
    if never:
        raise pytest.UsageError(
            f"{collector.path.name}: cells {never} were never executed, so nbval would pass them; "
            "run `make execute`"
        )
