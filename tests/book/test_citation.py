"""What can be copied to cite the book is what CITATION.cff says."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest
import yaml

import assocmem
from tests.book.chapter import BOOK, ROOT

ENTRY = re.compile(r"^```bibtex\n@(\w+)\{(\w+),\n(.*?)^\}\n```", re.DOTALL | re.MULTILINE)
FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.*)\},$", re.MULTILINE)
CFF = yaml.safe_load((ROOT / "CITATION.cff").read_text())
HOME, README = (BOOK / "index.md").read_text(), (ROOT / "README.md").read_text()


def entries(markdown: str) -> dict[str, dict[str, str]]:
    """The BibTeX entries of a page by their keys, each with its kind and fields."""
    return {
        key: {"kind": kind, **dict(FIELD.findall(body))}
        for kind, key, body in ENTRY.findall(markdown)
    }


def bibtex(work: dict) -> dict[str, str]:
    """What BibTeX says of a work of CITATION.cff."""
    if work["type"] == "software":
        (author,) = work["authors"]
        fields = {name: str(work[name]) for name in ("title", "version", "license", "url")}
        return {"kind": "software", "author": f"{{{author['name']}}}", **fields}
    (identifier,) = work["identifiers"]
    archive, number = identifier["value"].split(":")
    authors = (f"{a['family-names']}, {a['given-names']}" for a in work["authors"])
    return {
        "kind": "misc",
        "author": " and ".join(authors),
        "title": work["title"],
        "year": str(work["year"]),
        "eprint": number,
        "archiveprefix": archive,
    }


def test_the_home_page_cites_the_book_and_the_paper() -> None:
    (paper,) = CFF["references"]
    assert entries(HOME) == {"zhong2025": bibtex(paper), "assocmem": bibtex(CFF)}


def test_the_readme_cites_the_paper_in_the_same_words() -> None:
    assert entries(README)["zhong2025"] == entries(HOME)["zhong2025"]


def test_the_version_is_the_package_s() -> None:
    assert CFF["version"] == assocmem.__version__ == version("assocmem")


@pytest.mark.parametrize(
    ("old", "new"), [("0.1.0", "0.2.0"), ("Xu, Mingyu", "Xu, M."), ("@software", "@misc")]
)
def test_another_citation_is_noticed(old: str, new: str) -> None:
    assert old in HOME
    assert entries(HOME.replace(old, new)) != entries(HOME)
