"""Code given as text, run so that `inspect` finds its source: Triton reads that of a kernel."""

from __future__ import annotations

import ast
import hashlib
import linecache
from typing import Any


def run(source: str, namespace: dict[str, Any], kinds: tuple[type[ast.stmt], ...] = ()) -> None:
    """Execute a source, or of its statements those of some kinds only."""
    name = f"<{hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    module = ast.parse(source)
    if kinds:
        module.body = [node for node in module.body if isinstance(node, kinds)]
    exec(compile(module, name, "exec"), namespace)
