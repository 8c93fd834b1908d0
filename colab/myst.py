"""MyST Markdown, cut into directives, code, and the text between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

FENCE = re.compile(r"^(?P<fence>:{3,}|`{3,}|~{3,})(?:\{(?P<name>[\w:-]+)\})?[ ]*(?P<rest>.*)$")
OPTION = re.compile(r"^:([\w-]+):[ ]*(.*)$")


@dataclass(frozen=True)
class Code:
    """A fenced block of code, as it stands."""

    text: str


@dataclass(frozen=True)
class Directive:
    """A directive: its name, its argument, its options, and the Markdown inside."""

    name: str
    argument: str
    options: dict[str, str]
    body: str


def blocks(markdown: str) -> Iterator[str | Code | Directive]:
    """The blocks of a text, in order; a directive's body is still to be cut.

    Raises:
        ValueError: when a fence is not closed.
    """
    text: list[str] = []
    lines = iter(markdown.splitlines())
    for line in lines:
        opening = FENCE.match(line)
        if not opening:
            text.append(line)
            continue
        if text:
            yield "\n".join(text)
            text = []
        yield fenced(opening, lines)
    if text:
        yield "\n".join(text)


def fenced(opening: re.Match[str], lines: Iterator[str]) -> Code | Directive:
    """The block that a fence opens; takes its lines, the closing one included."""
    inside = []
    for line in lines:
        if line.rstrip() == opening["fence"]:
            break
        inside.append(line)
    else:
        raise ValueError(f"nothing closes {opening[0]!r}")
    if not opening["name"]:
        return Code("\n".join([opening[0], *inside, opening["fence"]]))
    options = {}
    while inside and (option := OPTION.match(inside[0])):
        options[option[1]] = option[2].strip()
        del inside[0]
    body = "\n".join(inside).strip()
    return Directive(opening["name"], opening["rest"].strip(), options, body)
