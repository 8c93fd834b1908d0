"""MyST Markdown, written in the plain Markdown that Colab understands.

Directives and roles that are not known here raise an error, so that none is ever left in a
notebook. Boxes are HTML elements with blank lines inside: Markdown and mathematics between them
are still read, while a display equation behind the ">" of a Markdown quotation is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from colab.labels import EQUATION, THEOREMS, Label
from colab.myst import Code, Directive, blocks

Known = TypeVar("Known")

ADMONITIONS = {"note", "tip", "hint", "important", "warning", "caution"}
OPTIONS = {"label", "class"}
ROLE = re.compile(r"\{([a-zA-Z][\w:+-]*)\}`([^`]*)`")
TITLED = re.compile(r"(?P<title>.*?)\s*<(?P<target>[^>]*)>")
TARGET = re.compile(r"^\([\w-]+\)=\n+", re.MULTILINE)
NO_PROSE = re.compile(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`", re.DOTALL)
# A directive that is indented, a footnote, a link to a file.
LEFT_OVER = re.compile(r":{3,}.*|\[\^.*|\]\((?!https?://)[^)]*\)")


@dataclass(frozen=True)
class Page:
    """A document of the book, and what it takes to resolve its references.

    Args:
        document: its place in the repository, without the ending.
        site: the address of the site, which ends with a slash.
        labels: every label of the book.
        titles: the title of every document that can be referred to.
        citations: of every source, by its key, the authors and the year.
    """

    document: str
    site: str
    labels: dict[str, Label]
    titles: dict[str, str]
    citations: dict[str, tuple[str, str]]

    def plain(self, markdown: str) -> str:
        """The text in plain Markdown.

        Raises:
            ValueError: when a directive, an option, a role or its target is not known.
        """
        parts = [self.block(block).strip("\n") for block in blocks(markdown)]
        return "\n\n".join(part for part in parts if part)

    def block(self, block: str | Code | Directive) -> str:
        if isinstance(block, Code):
            return block.text
        return self.directive(block) if isinstance(block, Directive) else self.text(block)

    def text(self, text: str) -> str:
        """Text without directives: targets go, equations get their numbers, roles are written."""
        text = EQUATION.sub(self.equation, TARGET.sub("", text))
        text = ROLE.sub(lambda role: self.role(role[1], role[2]), text)
        if left := LEFT_OVER.search(NO_PROSE.sub("", text)):
            raise ValueError(f"cannot be said in plain Markdown: {left[0]}")
        return text

    def equation(self, match: re.Match[str]) -> str:
        if not match["label"]:
            return match[0]
        number = look_up(self.labels, match["label"]).text.strip("()")
        return f"$$\n{match['tex'].strip()} \\tag{{{number}}}\n$$"

    # Directives

    def directive(self, block: Directive) -> str:
        """A directive as text, in a box where the site shows one."""
        unknown = set(block.options) - OPTIONS
        if unknown:
            raise ValueError(f"options {sorted(unknown)} of {{{block.name}}} are not known")
        if block.name in ADMONITIONS:
            return boxed(block.name.capitalize(), self.plain(f"{block.argument}\n{block.body}"))
        write = DIRECTIVES.get(block.name)
        if not write:
            known = sorted([*DIRECTIVES, *ADMONITIONS])
            raise ValueError(f"directive {{{block.name}}} is not among those known: {known}")
        return write(self, block)

    def admonition(self, block: Directive) -> str:
        return boxed(self.text(block.argument), self.plain(block.body))

    def theorem(self, block: Directive) -> str:
        return boxed(self.heading(block), self.plain(block.body))

    def proof(self, block: Directive) -> str:
        return f"**Proof**\n\n{self.plain(block.body)} ∎"

    def exercise(self, block: Directive) -> str:
        return f"### {self.heading(block)}\n\n{self.plain(block.body)}"

    def solution(self, block: Directive) -> str:
        summary = f"Solution to {look_up(self.labels, block.argument).text}"
        return f"<details>\n<summary>{summary}</summary>\n\n{self.plain(block.body)}\n\n</details>"

    def heading(self, block: Directive) -> str:
        """Kind and number, and in parentheses the title; without a label there is no number."""
        if "label" not in block.options:
            raise ValueError(f"{{{block.name}}} {block.argument} has no label to count")
        title = f" ({self.text(block.argument)})" if block.argument else ""
        return look_up(self.labels, block.options["label"]).text + title

    # Roles

    def role(self, name: str, content: str) -> str:
        """A role as a number, or as a link to the site."""
        write = ROLES.get(name)
        if not write:
            raise ValueError(f"role {{{name}}} is not among those known: {sorted(ROLES)}")
        return write(self, content)

    def number(self, name: str) -> str:
        """A number as text; when it is another chapter's, as a link to it."""
        label = look_up(self.labels, name)
        if label.document == self.document:
            return label.text
        return f"[{label.text}]({self.address(label.document, label.anchor)})"

    def reference(self, content: str) -> str:
        titled = TITLED.fullmatch(content)
        if not titled:
            return self.number(content)
        label = look_up(self.labels, titled["target"])
        return f"[{titled['title']}]({self.address(label.document, label.anchor)})"

    def page(self, content: str) -> str:
        titled = TITLED.fullmatch(content)
        name = titled["target"] if titled else content
        document = name.removeprefix("/") if name.startswith("/") else f"book/{name}"
        title = look_up(self.titles, document)
        return f"[{titled['title'] if titled else title}]({self.address(document)})"

    def claim(self, name: str) -> str:
        return f"[✓]({self.address('book/claims', f'claim-{name}')})"

    def cite_in_text(self, keys: str) -> str:
        return ", ".join(self.source(key, "{} ({})") for key in keys.split(","))

    def cite_in_parentheses(self, keys: str) -> str:
        return f"({', '.join(self.source(key, '{}, {}') for key in keys.split(','))})"

    def source(self, key: str, form: str) -> str:
        key = key.strip()
        address = self.address("book/bibliography", f"cite-{key}")
        return f"[{form.format(*look_up(self.citations, key))}]({address})"

    def address(self, document: str, anchor: str = "") -> str:
        """The address of a document of the site, or of a place in it."""
        return f"{self.site}{document}.html" + (f"#{anchor}" if anchor else "")


def look_up(known: dict[str, Known], name: str) -> Known:
    """What a reference refers to."""
    if name not in known:
        raise ValueError(f"a reference to {name}, which is nowhere")
    return known[name]


def boxed(title: str, body: str) -> str:
    return f"<blockquote>\n\n**{title}**\n\n{body}\n\n</blockquote>"


DIRECTIVES: dict[str, Callable[[Page, Directive], str]] = {
    "admonition": Page.admonition,
    "exercise": Page.exercise,
    "prf:proof": Page.proof,
    "solution": Page.solution,
    **{f"prf:{kind}": Page.theorem for kind in THEOREMS},
}

ROLES: dict[str, Callable[[Page, str], str]] = {
    "cite:p": Page.cite_in_parentheses,
    "cite:t": Page.cite_in_text,
    "claim": Page.claim,
    "doc": Page.page,
    "eq": Page.number,
    "numref": Page.number,
    "prf:ref": Page.number,
    "ref": Page.reference,
}
