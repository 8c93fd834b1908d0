"""Docstrings are written to be read in a terminal; this makes them good reStructuredText too.

A block that is indented after a blank line is an equation, and stays as it is, line by line. A bar
is the mathematical |x|, not the start of a substitution. Where a docstring names an equation or a
theorem of the book by its label, as in "(book, eq-snr)", the page has a link with its number;
behind an equation it follows in a line of its own. The fields of a named tuple are explained in its
docstring; what Python says of each, "Alias for field number 0", is left out. What stands between
single backticks is code, and a link where it is the name of something that the reference has.
"""

import re

from docutils import nodes
from sphinx.domains.python import PyXRefRole
from sphinx.util.nodes import make_refnode

LABEL = re.compile(r"(?:\bbook, |(?<=\())((eq|thm|prop|def|lem|cor)-[\w-]+)")


def lay_out(app, what, name, obj, options, lines):
    laid_out, named = [], []  # labels that stand behind the equation at hand
    blank, indented = False, False  # the line before; the last line that was not blank
    equation = False
    for line in [*lines, ""]:
        if line.startswith("    "):
            if blank and not indented:
                equation = True
                laid_out += ["::", ""]
        elif line:
            if named:
                laid_out += ["".join(named), ""]
            equation, named = False, []
        if equation:
            named += [f"({link(label)})" for label in LABEL.finditer(line)]
            laid_out.append(LABEL.sub("", line).removesuffix("()").rstrip())
        else:
            laid_out.append(LABEL.sub(link, escape_bars(line)))
        blank, indented = not line, line.startswith("    ") if line else indented
    lines[:] = [*laid_out, "".join(named)]


def link(label):
    """A reference to an equation or a theorem, from what LABEL has found."""
    kind = ":eq:" if label[2] == "eq" else ":prf:ref:"
    return f"book, {kind}`{label[1]}`"


def escape_bars(line):
    """Escape each | that is not in `code`."""
    parts = line.split("`")
    parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
    return "`".join(parts)


def leave_out(app, what, name, obj, skip, options):
    return True if type(obj).__name__ == "_tuplegetter" else None


def name_or_code(app, env, node, content):
    """What Sphinx does not find under a name: `ops.deltaformer`, or code that names nothing."""
    if node.get("reftype") != "name":
        return None
    name = f"assocmem.{node['reftarget']}"
    if found := env.get_domain("py").objects.get(name):
        return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, content)
    return nodes.literal("", node.astext())


def setup(app):
    app.add_role_to_domain("py", "name", PyXRefRole())
    app.connect("missing-reference", name_or_code)
    app.connect("autodoc-skip-member", leave_out)
    app.connect("autodoc-process-docstring", lay_out, priority=100)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
