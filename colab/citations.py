"""How a source is cited: authors and year, from the book's bibliography."""

from __future__ import annotations

from pathlib import Path

from pybtex.database import Entry, Person, parse_file
from pybtex.richtext import Text


def citations(bibliography: Path) -> dict[str, tuple[str, str]]:
    """Of every source, by its key, the authors and the year."""
    entries = parse_file(str(bibliography)).entries
    return {key: (authors(entry), entry.fields["year"]) for key, entry in entries.items()}


def authors(entry: Entry) -> str:
    """The last names of one or two authors, or the first one's and "et al."."""
    names = [last_name(person) for person in entry.persons["author"]]
    if len(names) > 2 or names[-1] == "others":
        return f"{names[0]} et al."
    return " and ".join(names)


def last_name(person: Person) -> str:
    return str(Text.from_latex(" ".join([*person.prelast_names, *person.last_names])))
