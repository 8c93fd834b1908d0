"""Write the repository's address into every file that says it: `python -m book.address`.

It stands in _config.yml. The address of the site follows from it: GitHub publishes it there.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
COPIES = (
    "_config.yml",
    "README.md",
    "CITATION.cff",
    "pyproject.toml",
    "book/index.md",
    "book/using.md",
    "examples/hybrid/README.md",
    "examples/split_sequences/README.md",
)
# Whatever owner and name there are: these files speak of no other repository.
REPOSITORY = re.compile(r"https://github\.com/[\w-]+/[\w.-]*[\w-]")
SITE = re.compile(r"https://[\w-]+\.github\.io/[\w.-]*[\w-]")


def addresses() -> tuple[str, str]:
    """The address of the repository, and of its site."""
    repository = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    if not REPOSITORY.fullmatch(repository) or repository.endswith(".git"):
        raise ValueError(f"url must be https://github.com/owner/name, got {repository!r}")
    owner, name = repository.removeprefix("https://github.com/").split("/")
    return repository, f"https://{owner}.github.io/{name}"


def stamped(text: str, repository: str, site: str) -> str:
    """A text with these addresses in place of those that it has."""
    return SITE.sub(site, REPOSITORY.sub(repository, text))


def main() -> None:
    """The command."""
    repository, site = addresses()
    for path in (ROOT / copy for copy in COPIES):
        text = path.read_text()
        if (new := stamped(text, repository, site)) != text:
            path.write_text(new)
            print(f"{path.relative_to(ROOT)}: changed")


if __name__ == "__main__":
    main()
