"""The repository's address stands in _config.yml, its copies agree, and the README's code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from book.address import COPIES, addresses, stamped
from tests.book.chapter import ROOT

ENDINGS = {".md", ".py", ".toml", ".yml", ".cff", ".bib", ".js", ".html"}
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
REPOSITORY, SITE = addresses()
OURS = [address.rpartition("/")[0] + "/" for address in (REPOSITORY, SITE)]
OTHERS = "https://github.com/some-one/another.book", "https://some-one.github.io/another.book"


def test_the_site_belongs_to_the_repository() -> None:
    assert CONFIG["html"]["baseurl"] == f"{SITE}/"
    assert CONFIG["sphinx"]["config"]["ogp_site_url"] == f"{SITE}/"


@pytest.mark.parametrize("copy", COPIES)
def test_every_copy_is_the_same_and_follows_a_change(copy: str) -> None:
    text = (ROOT / copy).read_text()
    assert REPOSITORY in text or SITE in text
    assert stamped(text, REPOSITORY, SITE) == text
    changed = stamped(text, *OTHERS)
    assert not any(place in changed for place in OURS)
    assert stamped(changed, REPOSITORY, SITE) == text


def test_no_copy_is_forgotten() -> None:
    folders = ("src", "kernels", "benchmarks", "book", "colab", "examples", ".github")
    texts = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in ENDINGS]
    texts += [p for p in ROOT.iterdir() if p.suffix in ENDINGS or p.name == "Makefile"]
    copies = {str(p.relative_to(ROOT)) for p in texts if any(x in p.read_text() for x in OURS)}
    assert copies == set(COPIES)


def examples(page: str) -> list[str]:
    """The blocks of Python in a page."""
    return re.findall(r"^```python\n(.*?)^```", Path(ROOT, page).read_text(), re.S | re.M)


def test_the_code_in_the_readme_runs_and_is_that_of_the_front_page() -> None:
    (code,) = examples("README.md")
    assert examples("book/index.md") == [code]
    assert len([line for line in code.splitlines() if line.strip()]) == 5
    names: dict = {}
    exec(code, names)
    assert list(names["o"].shape) == [1, 1024, 4, 128]
    assert list(names["S"].shape) == [1, 4, 64, 128]
