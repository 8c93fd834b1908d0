"""Docstrings are written to be read in a terminal; this makes them good reStructuredText too.

A block that is indented after a blank line is an equation, and stays as it is, line by line. A bar
is the mathematical |x|, not the start of a substitution. The fields of a named tuple are explained
in its docstring; what Python says of each, "Alias for field number 0", is left out.
"""


def lay_out(app, what, name, obj, options, lines):
    laid_out = []
    blank, indented = False, False  # the line before; the last line that was not blank
    equation = False
    for line in lines:
        if line.startswith("    "):
            if blank and not indented:
                equation = True
                laid_out += ["::", ""]
        elif line:
            equation = False
        laid_out.append(line if equation else escape_bars(line))
        blank, indented = not line, line.startswith("    ") if line else indented
    lines[:] = laid_out


def escape_bars(line):
    """Escape each | that is not in `code`."""
    parts = line.split("`")
    parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
    return "`".join(parts)


def leave_out(app, what, name, obj, skip, options):
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    app.connect("autodoc-skip-member", leave_out)
    app.connect("autodoc-process-docstring", lay_out, priority=100)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
