"""The role {claim} and the table of all claims.

A statement of a chapter carries {claim}`some-id`, and a cell of the chapter calls
`claim("some-id", measured, …)`, which prints one line. The role becomes a small link to that
claim's row on the claims page. The directive `claims-table` reads the executed notebooks and lists
every claim with its statement, what was measured and what was expected, and links back.
"""

import re
from pathlib import Path

import nbformat
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective, SphinxRole

from assocmem.book.claims import PRINTED
from assocmem.book.table import in_one_piece

CLAIMS_PAGE = "book/claims"
ROLE = re.compile(r"\{claim\}`([^`]+)`")
FENCE = re.compile(r"^(:{3,}|`{3,})\{(prf:\w+)\}[ ]*(.*)$", re.MULTILINE)
LABEL = re.compile(r"^:label:[ ]*(\S+)$", re.MULTILINE)
NUMBER = re.compile(r"\$\$ \((eq-[\w-]+)\)$")
SENTENCE_END = re.compile(r"(?<=[.!?:])\s+(?=[A-Z$*(\[{])")


class ClaimRole(SphinxRole):
    """A small link from the place where a claim is stated to its row on the claims page."""

    def run(self):
        here, there = f"said-{self.text}", f"claim-{self.text}"
        # Known to the standard domain, so that the table's {ref} finds the way back.
        standard = self.env.get_domain("std")
        standard.anonlabels[here] = self.env.docname, here
        standard.labels[here] = self.env.docname, here, self.text
        page = self.env.app.builder.get_relative_uri(self.env.docname, CLAIMS_PAGE)
        link = nodes.reference(
            "", "✓", refuri=f"{page}#{there}", reftitle=f"measured: {self.text}", classes=["claim"]
        )
        return [nodes.inline("", "", link, ids=[here], classes=["claim-place"])], []


class ClaimsTable(SphinxDirective):
    """Every claim of a notebook, read from its text and its outputs."""

    required_arguments = 1

    def run(self):
        path = Path(self.env.srcdir, self.arguments[0])
        self.env.note_dependency(str(path))
        notebook = nbformat.read(path, as_version=4)
        source = StringList(table(notebook).splitlines(), source=str(path))
        node = nodes.container(classes=["claims"])
        self.state.nested_parse(source, self.content_offset, node)
        return node.children


def table(notebook) -> str:
    """The claims of a notebook as a MyST list-table, in the order in which they are stated."""
    results = printed(notebook)
    rows = []
    for name, statement in statements(notebook):
        measured, expected = results.get(name, ("not measured", ""))
        measured, expected = map(in_one_piece, (measured, expected.removeprefix("expected ")))
        rows += [
            f"* - (claim-{name})=\n    {{ref}}`{name} <said-{name}>`",
            f"  - {statement}",
            f"  - {measured}",
            f"  - {expected}",
        ]
    head = "* - Claim\n  - Statement\n  - Measured\n  - Expected"
    options = ":class: claims\n:header-rows: 1\n:widths: 18 50 14 18"
    return "\n".join(["````{list-table}", options, "", head, *rows, "````"])


def printed(notebook) -> dict[str, tuple[str, str]]:
    """What each claim measured and expected, from the printed lines in the outputs."""
    results = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for name, measured, expected in PRINTED.findall(output.get("text", "")):
                results[name] = measured, expected
    return results


def statements(notebook) -> list[tuple[str, str]]:
    """Each claim's id and statement: the theorem it stands in, or else its sentence."""
    found = []
    for cell in notebook.cells:
        parts = blocks(cell.source) if cell.cell_type == "markdown" else []
        for before, block, after in zip(["", *parts], parts, [*parts[1:], ""], strict=False):
            names = ROLE.findall(block)
            found += [(name, whole(before, statement(block, name), after)) for name in names]
    return found


def whole(before: str, said: str, after: str) -> str:
    """A statement with the number of the formula that it goes on from, or leads to."""
    if not said:
        return said
    if said[0].islower():
        number = NUMBER.search(before)
        said = f"{{eq}}`{number[1]}`, {said}" if number else f"… {said}"
    if said[-1] not in ".!?)" and (number := NUMBER.search(after)):
        said = f"{said.rstrip(':,')} {{eq}}`{number[1]}`."
    return said


def blocks(markdown: str) -> list[str]:
    """Markdown cut into paragraphs, with each theorem-like directive kept in one piece."""
    found, lines, fence = [], [], None
    for line in [*markdown.splitlines(), ""]:
        opening = FENCE.match(line)
        if fence is None and opening:
            fence = opening[1]
        closing = fence is not None and line.rstrip() == fence
        if fence is None and not line.strip():
            found.append("\n".join(lines))
            lines = []
            continue
        lines.append(line)
        if closing:
            fence = None
    return [block for block in [*found, "\n".join(lines)] if block]


def statement(block: str, name: str) -> str:
    """One line of Markdown that says what the claim says."""
    fence, label = FENCE.match(block), LABEL.search(block)
    if fence and label:
        title = f": {fence[3]}" if fence[3] else ""
        return f"{{prf:ref}}`{label[1]}`{title}"
    text = " ".join(line.strip().lstrip("-*>1234567890. ") for line in block.splitlines())
    said = ""
    for sentence in SENTENCE_END.split(text):
        words = ROLE.sub("", sentence).strip()
        said = words or said  # a role after the full stop belongs to the sentence before it
        if name in ROLE.findall(sentence):
            break
    if said.count("**") % 2:  # half of a bold heading
        said = said.replace("**", "")
    return re.sub(r"\s+([.,;:])", r"\1", said)


def keep_marks_in_line(_app, doctree) -> None:
    """No line ends before a mark: neither at the space there, nor behind a formula."""
    marks = [node for node in doctree.findall(nodes.inline) if "claim-place" in node["classes"]]
    for mark in marks:
        words, at = mark.parent, mark.parent.index(mark)
        before = words[at - 1] if at else None
        if not isinstance(before, nodes.Text) or not before[-1].isspace():
            continue
        words[at - 1] = nodes.Text(before.rstrip() + "\u202f")
        if before.isspace() and at > 1 and isinstance(words[at - 2], nodes.math):
            together = words[at - 2 : at + 1]
            words[at - 2 : at + 1] = [nodes.inline("", "", *together, classes=["marked"])]


def setup(app):
    app.connect("doctree-read", keep_marks_in_line)
    app.add_role("claim", ClaimRole())
    app.add_directive("claims-table", ClaimsTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
