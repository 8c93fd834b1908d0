"""Run notebooks from an empty kernel and store their outputs: `python book/execute.py FILES`.

A notebook whose outputs come out as they were is left untouched, so that only real changes show
up in a diff.
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

CELL_TIMEOUT = 120  # seconds, as in the tests


def outputs(notebook) -> list:
    """What a reader sees: of each code cell its number and its outputs."""
    return [
        (cell.execution_count, cell.outputs) for cell in notebook.cells if cell.cell_type == "code"
    ]


def execute(path: Path) -> str:
    """Run one notebook, store it if its outputs changed, and say which."""
    notebook = nbformat.read(path, as_version=4)
    before = outputs(nbformat.read(path, as_version=4))
    NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_TIMEOUT,
        record_timing=False,
        coalesce_streams=True,  # lines that one cell prints, however they arrive
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=lambda cell, cell_index: print(
            f"\r{path.name}: cell {cell_index + 1} of {len(notebook.cells)} ", end="", flush=True
        ),
    ).execute()
    if outputs(notebook) == before:
        return "unchanged"
    notebook.metadata.language_info = {"name": "python"}  # without this machine's Python version
    nbformat.write(notebook, path)
    return "outputs stored"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        start = time.perf_counter()
        verdict = execute(Path(name))
        print(f"\r{Path(name).name}: {verdict}, {time.perf_counter() - start:.0f} s" + " " * 20)
