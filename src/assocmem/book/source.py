"""Code of the library on a page, as it stands in its file today."""

from __future__ import annotations

import inspect
from typing import Any

from IPython.display import Markdown

FOLDERS = {"assocmem": "src", "assocmem_kernels": "kernels"}


def source(*functions: Any) -> Markdown:
    """Functions or Triton kernels of one file, as a block of code that begins with the file's name.

    Args:
        *functions: functions, classes or kernels (their decorators are shown as well).

    Raises:
        ValueError: when they do not all come from one file of the library.
    """
    plain = [getattr(f, "fn", f) for f in functions]  # what @triton.jit wraps
    modules = sorted({f.__module__ for f in plain})
    folder = FOLDERS.get(modules[0].partition(".")[0]) if len(modules) == 1 else None
    if folder is None:
        raise ValueError(f"functions must come from one file of the library, got {modules}")
    code = "\n\n\n".join(inspect.getsource(f).rstrip() for f in plain)
    return Markdown(f"```python\n# {folder}/{modules[0].replace('.', '/')}.py\n\n{code}\n```")
