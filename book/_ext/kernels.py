"""The directive {kernels}: every Triton kernel of a file, with signature, docstring and code.

Autodoc sees no functions in what @triton.jit makes of them, and importing them needs Triton. Here
they are read from the source.
"""

import ast
from pathlib import Path

from docstrings import LABEL, link
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

FOLDER = "kernels/assocmem_kernels"


class Kernels(SphinxDirective):
    """Every kernel of one file of `assocmem_kernels`."""

    required_arguments = 1

    def run(self):
        path = Path(self.env.srcdir, FOLDER, self.arguments[0])
        self.env.note_dependency(str(path))
        text = "\n\n".join(entry(path.name, kernel) for kernel in kernels(path.read_text()))
        source = StringList(f"````{{eval-rst}}\n{text}\n````".splitlines(), source=str(path))
        node = nodes.container()
        self.state.nested_parse(source, self.content_offset, node)
        return node.children


def kernels(source: str) -> list[ast.FunctionDef]:
    """The functions of a source that carry @triton.jit, in order."""
    return [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and any(map(is_jit, node.decorator_list))
    ]


def is_jit(decorator: ast.expr) -> bool:
    """Whether a decorator is @triton.jit, with options or without."""
    return ast.unparse(decorator).startswith("triton.jit")


def entry(file: str, kernel: ast.FunctionDef) -> str:
    """The description of one kernel, in reStructuredText."""
    module = f"{Path(FOLDER).name}.{Path(file).stem}"
    docstring = LABEL.sub(link, (ast.get_docstring(kernel) or "").replace("|", "\\|"))
    code = f".. literalinclude:: /{FOLDER}/{file}\n   :pyobject: {kernel.name}"
    body = "\n".join(f"   {line}" for line in f"{docstring}\n\n{code}".splitlines())
    arguments = ", ".join(argument.arg for argument in kernel.args.args)
    head = f".. py:function:: {kernel.name}({arguments})\n   :module: {module}"
    return f"{head}\n\n{body}"


def setup(app):
    app.add_directive("kernels", Kernels)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
