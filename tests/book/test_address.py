"""The repository's address stands in _config.yml, its copies agree, and the README's code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.book.chapter import ROOT

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
REPOSITORY = CONFIG["repository"]["url"]
SITE = CONFIG["html"]["baseurl"]
OWNER, NAME = REPOSITORY.removeprefix("https://github.com/").split("/")
COPIES = [
    "README.md",
    "CITATION.cff",
    "pyproject.toml",
    "book/index.md",
    "book/using.md",
    "_config.yml",
]
ADDRESS = re.compile(
    r"(?:https://|git\+https://)(?:github\.com/[\w-]+/[\w-]+|[\w-]+\.github\.io/[\w-]+)"
)


def addresses(text: str) -> set[str]:
    """Every address of a repository or of its site in a text."""
    return {found.removeprefix("git+") for found in ADDRESS.findall(text)}


def test_the_site_belongs_to_the_repository() -> None:
    assert f"https://{OWNER}.github.io/{NAME}/" == SITE
    assert CONFIG["sphinx"]["config"]["ogp_site_url"] == SITE


@pytest.mark.parametrize("copy", COPIES)
def test_every_copy_of_the_address_is_the_same(copy: str) -> None:
    found = addresses((ROOT / copy).read_text())
    assert found
    assert found <= {REPOSITORY, SITE.rstrip("/")}


def test_no_copy_is_forgotten() -> None:
    text = [ROOT / name for name in ("CHANGELOG.md", "Makefile")]
    text += [*(ROOT / "src").rglob("*.py"), *(ROOT / "book").glob("*.md")]
    copies = {str(p.relative_to(ROOT)) for p in text if REPOSITORY in p.read_text()}
    assert copies <= set(COPIES)


def test_another_address_is_noticed() -> None:
    assert addresses("pip install git+https://github.com/someone/else") - {REPOSITORY}


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
