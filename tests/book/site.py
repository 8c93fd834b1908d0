"""The built site as the tests see it: its folder, and its pages by name."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import yaml
from bs4 import BeautifulSoup

from tests.book.chapter import ROOT

SITE = ROOT / "_build" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
LISTED = [chapter for part in TOC["parts"] for chapter in part["chapters"]]
DOCUMENTS = [
    TOC["root"],
    *(page["file"] for chapter in LISTED for page in (chapter, *chapter.get("sections", ()))),
]
# Pages that the theme adds to the documents.
GENERATED = ["genindex", "search"]


def built(document: str) -> Path:
    """The HTML file of a document."""
    path = SITE / f"{document}.html"
    assert path.exists(), f"{path} is missing: run `make site`"
    return path


@cache
def page(document: str) -> BeautifulSoup:
    """The parsed page of a document."""
    return BeautifulSoup(built(document).read_text(), "html.parser")


def source(document: str) -> str:
    """The Markdown of a document: a page's, or that of a notebook's cells."""
    from tests.book.chapter import Chapter

    path = ROOT / document
    if path.with_suffix(".md").exists():
        return path.with_suffix(".md").read_text()
    return Chapter.read(path.with_suffix(".ipynb")).text


def outside(address: str) -> bool:
    """Whether an address leads away from the site."""
    return bool(re.match(r"(?:https?:)?//", address))
