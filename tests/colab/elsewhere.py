"""Every chapter as Colab runs it: `python -m tests.colab.elsewhere FOLDER` prepares the runs.

A chapter gets a folder with nothing in it but its notebook for Colab, and an environment that has
the packages of this one but not the library. The notebook's first cell installs that, from a wheel
where it says GitHub, and its last cell asks where it came from. The cells between, which are those
of the book, have the outputs that are committed there: nbval compares the two.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from book.address import addresses
from tests.book.chapter import CHAPTERS, ROOT, Chapter
from tests.wheel import wheel

MARK = "prepared"  # a file in the folder
WHERE = """
import sys
import assocmem, assocmem_kernels
for path in (assocmem.__file__, *assocmem_kernels.__path__):
    assert path.startswith(sys.prefix), path
"""


def environment(folder: Path) -> Path:
    """The Python of a new environment that has all packages of this one but the library."""
    venv.create(folder, symlinks=True)
    target = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "assocmem" not in path.name:
            (target / path.name).symlink_to(path)
    return folder / "bin" / "python"


def kernel(python: Path, name: str, folder: Path) -> None:
    """The description of a kernel that a Python runs, for JUPYTER_PATH=`folder`."""
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    place = folder / "kernels" / name / "kernel.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"argv": command, "display_name": name, "language": "python"}))


def with_outputs(edition: NotebookNode, chapter: NotebookNode, library: Path) -> NotebookNode:
    """A notebook for Colab that installs `library` and has the outputs of the book's notebook."""
    first, *cells = (cell for cell in edition.cells if cell.cell_type == "code")
    repository, _ = addresses()
    assert f"git+{repository}" in first.source
    first.source = first.source.replace(f"git+{repository}", f'"{library}"')
    first.execution_count = 1
    first.metadata.tags = ["nbval-ignore-output"]  # pip's
    code = [cell for cell in chapter.cells if cell.cell_type == "code"]
    for ours, theirs in zip(cells, code, strict=True):
        ours.outputs, ours.execution_count = theirs.outputs, theirs.execution_count
        ours.metadata.tags = theirs.metadata.get("tags", [])
    edition.cells.append(new_code_cell(WHERE, execution_count=1))
    return edition


def prepare(chapter: Chapter, library: Path, folder: Path) -> None:
    """The chapter's notebook, alone in its folder, and the kernel of its own that runs it."""
    kernel(environment(folder / "environments" / chapter.name), chapter.name, folder / "jupyter")
    edition = nbformat.read(ROOT / "colab" / f"{chapter.name}.ipynb", as_version=4)
    notebook = with_outputs(edition, chapter.notebook, library)
    notebook.metadata.kernelspec = {"name": chapter.name, "display_name": chapter.name}
    place = folder / "notebooks" / chapter.name / f"{chapter.name}.ipynb"
    place.parent.mkdir(parents=True)
    nbformat.write(notebook, place)


def empty(folder: Path) -> None:
    """Make the folder, or remove what an earlier call has put there, and nothing else."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        sys.exit(f"{folder} holds what this command has not written; name a folder of its own")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


def main(folder: Path) -> None:
    empty(folder)
    library = wheel(folder)
    for chapter in CHAPTERS:
        prepare(chapter, library, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where; what an earlier call left there goes")
    main(parser.parse_args().folder.resolve())
