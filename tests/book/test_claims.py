"""No claim without a check, no check without a claim."""

from __future__ import annotations

from collections import Counter

import pytest

from assocmem.book.claims import PRINTED
from tests.book.chapter import BOOK, CHAPTERS, ROLE, Chapter
from tests.book.miniature import miniature

PREFIXES = {
    "01_linear_attention": "lin-",
    "02_memory_capacity": "cap-",
    "03_kernel_view": "ker-",
    "04_feed_forward_memory": "ffn-",
    "05_update_rules": "upd-",
    "06_gpu_scans": "scan-",
    "07_expressivity": "lim-",
    "08_infinite_context": "inf-",
    "09_choosing": "cho-",
}
STATEMENTS = ("prf:theorem", "prf:proposition", "prf:lemma", "prf:corollary")


def broken_promises(chapter: Chapter) -> list[str]:
    """What the chapter's claims leave to be desired."""
    said, checked = Counter(chapter.roles), Counter(chapter.claim_calls)
    printed = [name for name, _, _ in PRINTED.findall(chapter.printed)]
    problems = [f"{name} is stated {n} times" for name, n in said.items() if n > 1]
    problems += [f"{name} is checked {n} times" for name, n in checked.items() if n > 1]
    problems += [f"{name} is stated and never checked" for name in said - checked]
    problems += [f"{name} is checked and never stated" for name in checked - said]
    problems += [
        f"{name} is checked by the code and missing in the outputs"
        for name in checked
        if name not in printed
    ]
    problems += [f"{name} is in the outputs only" for name in printed if name not in checked]
    for statement in chapter.named(*STATEMENTS):
        title = f"{statement.name} {statement.argument!r}"
        if "label" not in statement.options:
            problems.append(f"{title} has no label")
        if not ROLE.search(statement.body):
            problems.append(f"{title} carries no claim")
    return problems


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_every_claim_is_checked_and_every_check_is_claimed(chapter: Chapter) -> None:
    assert chapter.roles, "a chapter without claims"
    assert not broken_promises(chapter)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_ids_carry_the_prefix_of_their_chapter(chapter: Chapter) -> None:
    prefix = PREFIXES[chapter.name]
    assert [name for name in chapter.roles if not name.startswith(prefix)] == []


def test_ids_are_unique_in_the_book() -> None:
    everywhere = Counter(name for chapter in CHAPTERS for name in chapter.roles)
    assert [name for name, n in everywhere.items() if n > 1] == []


def test_every_chapter_is_on_the_claims_page() -> None:
    page = (BOOK / "claims.md").read_text()
    assert [c.name for c in CHAPTERS if f"{{claims-table}} book/{c.name}.ipynb" not in page] == []


BREAKS = {
    "a claim in the text loses its check": (
        2,
        'claim("mini-sum", 1 + 1, 2, atol=0)\n',
        "",
        "mini-sum is stated and never checked",
    ),
    "a check loses its claim": (
        0,
        " {claim}`mini-sum`",
        "",
        "mini-sum is checked and never stated",
    ),
    "a claim is stated twice": (
        0,
        "{claim}`mini-sum`",
        "{claim}`mini-sum` {claim}`mini-sum`",
        "mini-sum is stated 2 times",
    ),
    "an id is put together by code": (
        2,
        '"mini-sum"',
        'f"mini-{1}"',
        "mini-sum is stated and never checked",
    ),
    "a theorem loses its claim": (
        0,
        " {claim}`mini-order`",
        "",
        "prf:theorem 'Order does not matter' carries no claim",
    ),
    "a theorem loses its label": (
        0,
        ":label: thm-mini\n",
        "",
        "prf:theorem 'Order does not matter' has no label",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_chapter_is_noticed(name: str) -> None:
    cell, old, new, problem = BREAKS[name]
    chapter = miniature()
    assert not broken_promises(chapter)
    chapter = miniature()
    source = chapter.notebook.cells[cell].source
    assert old in source
    chapter.notebook.cells[cell].source = source.replace(old, new)
    assert problem in broken_promises(chapter)


def test_outputs_of_another_run_are_noticed() -> None:
    chapter = miniature()
    output = chapter.notebook.cells[2].outputs[0]
    output.text = output.text.replace("claim mini-sum: measured 2", "claim mini-other: measured 2")
    assert broken_promises(chapter) == [
        "mini-sum is checked by the code and missing in the outputs",
        "mini-other is in the outputs only",
    ]
