"""The library's wheel, as tests need it that must not see the repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("src", "kernels", "pyproject.toml", "README.md", "LICENSE")


def wheel(folder: Path) -> Path:
    """The library's wheel, built from a copy: an older build's leavings would get into it."""
    for name in SOURCES:
        path = ROOT / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / "copy" / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder]
    subprocess.run([*command, folder / "copy"], check=True)
    (path,) = folder.glob("*.whl")
    return path
