"""What the API reference has to describe: public names, and Triton kernels."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import assocmem
from tests.book.chapter import ROOT

# What arguments have to be is said where they are taken; exercises show their checks themselves.
INTERNAL = ("assocmem.arguments", "assocmem.book.check")
ROOMS = [
    importlib.import_module(f"assocmem.{m.name}") for m in pkgutil.iter_modules(assocmem.__path__)
]


def exports(module: ModuleType) -> list[str]:
    """The full names of what a module hands on, without the rooms that it hands on."""
    names = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    rooms = [name for name, what in names.items() if isinstance(what, ModuleType)]
    return [f"{module.__name__}.{name}" for name in names if name not in rooms]


def public() -> list[str]:
    """Everything that `assocmem` and its rooms hand on."""
    names = [name for module in (assocmem, *ROOMS) for name in exports(module)]
    return [name for name in names if not name.startswith(INTERNAL)]


def kernels(path: Path) -> list[ast.FunctionDef]:
    """The Triton kernels of a file, with options or without."""
    functions = (n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef))
    return [f for f in functions if any(map(is_jit, f.decorator_list))]


def is_jit(decorator: ast.expr) -> bool:
    return ast.unparse(decorator).startswith("triton.jit")


KERNELS = {
    path: found for path in sorted((ROOT / "kernels").rglob("*.py")) if (found := kernels(path))
}
