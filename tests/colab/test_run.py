"""The notebooks for Colab run where nothing of the repository is but the library's wheel.

Each runs in an empty folder and in an environment of its own, which has the packages of this one
but not the library. The notebook's first cell installs that, from a wheel where it says GitHub.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from assocmem.book.claims import PRINTED
from tests.book.chapter import CHAPTERS, ROOT, Chapter
from tests.book.test_address import REPOSITORY

CELL_TIMEOUT = 120  # seconds, as for the book
SOURCES = ("src", "kernels", "pyproject.toml", "README.md", "LICENSE")
WHERE = """
import assocmem
import assocmem_kernels
print(assocmem.__file__, *assocmem_kernels.__path__)
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library's wheel, built from a copy: an older build's leavings would get into it."""
    copy, built = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        path = ROOT / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", built, copy]
    subprocess.run(command, check=True)
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The Python of an environment with all packages that are installed here, but the library."""
    venv.create(tmp_path, symlinks=True)
    target = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path)}))
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "assocmem" not in path.name:
            (target / path.name).symlink_to(path)
    return tmp_path / "bin" / "python"


def executed(notebook: nbformat.NotebookNode, python: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook, run in a folder by an environment's Python."""
    kernel = AsyncKernelManager()
    spec = kernel.kernel_spec
    assert spec is not None
    spec.argv[0] = str(python)
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, km=kernel, timeout=CELL_TIMEOUT, resources=place)
    return client.execute(cleanup_kc=True)  # else a kernel that was given lives on


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_the_wheel_carries_everything(wheel: Path) -> None:
    roots = [ROOT / "src", ROOT / "kernels"]
    files = {str(p.relative_to(r)) for r in roots for p in r.rglob("*") if p.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    assert "assocmem/book/results/feed_forward.json" in files
    assert {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name} == files


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_it_runs_from_an_empty_folder(
    chapter: Chapter, wheel: Path, elsewhere: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    notebook = nbformat.read(ROOT / "colab" / f"{chapter.name}.ipynb", as_version=4)
    first = notebook.cells[0]
    assert f"git+{REPOSITORY}" in first.source
    first.source = first.source.replace(f"git+{REPOSITORY}", str(wheel))
    notebook.cells.append(new_code_cell(WHERE))
    folder = tmp_path_factory.mktemp("empty")
    *cells, last = [
        cell for cell in executed(notebook, elsewhere, folder).cells if cell.cell_type == "code"
    ]
    assert all(path.startswith(str(elsewhere.parents[1])) for path in printed(last).split())
    claims = PRINTED.findall("\n".join(map(printed, cells)))
    assert [name for name, *_ in claims] == [name for name, *_ in PRINTED.findall(chapter.printed)]
    outputs = [o for cell in cells for o in cell.outputs if "data" in o]
    shown = "".join(o.data.get("text/markdown", "") for o in outputs)
    assert re.findall(r"\{[\w:]+\}`", shown) == []
