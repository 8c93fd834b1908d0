"""The built site, as files: nothing from outside, nothing missing, all that the sources say."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from functools import cache
from math import isfinite
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
import yaml
from bs4 import BeautifulSoup, Tag

from colab.generate import read_chapters
from colab.labels import labels
from tests.book.api import KERNELS, public
from tests.book.chapter import CHAPTERS, ROOT, Chapter, directives
from tests.book.site import DOCUMENTS, GENERATED, SITE, built, outside, page, source

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
REPOSITORY, ADDRESS = CONFIG["repository"]["url"], CONFIG["html"]["baseurl"]
FETCHED_LINKS = {"stylesheet", "icon", "shortcut", "preload", "prefetch", "modulepreload"}
WEIGHT = 1_500_000  # bytes
PROOFS = {"theorem", "proposition", "lemma", "corollary", "definition", "example", "remark"}


def fetched(soup: BeautifulSoup) -> list[str]:
    """The addresses that a browser fetches on its own when it shows a page."""
    found = [tag["src"] for tag in soup.select("script[src], img[src], iframe[src], source[src]")]
    found += [
        tag["href"]
        for tag in soup.select("link[href]")
        if FETCHED_LINKS & set(tag.get("rel") or ())
    ]
    inline = " ".join(tag.text for tag in soup.select("style"))
    return [str(address) for address in found] + re.findall(r"url\(['\"]?([^'\")]+)", inline)


def broken_links(document: str, soup: BeautifulSoup) -> list[str]:
    """The links of a page that lead nowhere within the site."""
    here = built(document)
    broken = []
    for link in soup.select("a[href]"):
        href = str(link["href"])
        if outside(href) or href.startswith(("mailto:", "javascript:")):
            continue
        path, _, anchor = href.partition("#")
        target = (here.parent / unquote(path.split("?")[0])).resolve() if path else here
        if target.is_dir():
            target /= "index.html"
        if not target.exists() or (anchor and unquote(anchor) not in anchors(target)):
            broken.append(href)
    return broken


@cache
def anchors(path: Path) -> set[str]:
    if path.suffix != ".html":
        return set()
    soup = page(str(path.relative_to(SITE).with_suffix("")))
    return {str(tag["id"]) for tag in soup.select("[id]")} | {"", "top"}


def twice(soup: BeautifulSoup) -> list[str]:
    """Ids that stand at two places of a page."""
    ids = Counter(str(tag["id"]) for tag in soup.select("[id]"))
    return [name for name, n in ids.items() if n > 1]


def nameless_pictures(soup: BeautifulSoup) -> list[Tag]:
    return [tag for tag in soup.select("img") if not str(tag.get("alt", "")).strip()]


@pytest.mark.parametrize("document", DOCUMENTS + GENERATED)
def test_nothing_comes_from_outside(document: str) -> None:
    assert [address for address in fetched(page(document)) if outside(address)] == []


@pytest.mark.parametrize("document", DOCUMENTS + GENERATED)
def test_what_a_page_needs_is_there(document: str) -> None:
    needed = [re.sub(r"[?#].*", "", address) for address in fetched(page(document))]
    folder = built(document).parent
    missing = [a for a in needed if not a.startswith("data:") and not (folder / a).exists()]
    assert missing == []


@cache
def transferred(path: Path) -> int:
    """The bytes of a file as a server sends it: compressed, which fonts are already."""
    data = path.read_bytes()
    return len(data if path.suffix in {".woff", ".woff2"} else gzip.compress(data))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_page_without_its_pictures_is_light(document: str) -> None:
    folder = built(document).parent
    files = {(folder / re.sub(r"[?#].*", "", a)).resolve() for a in fetched(page(document))}
    files = {file for file in files if file.suffix in {".js", ".css", ".woff2"}}
    files |= {built(document), *SITE.glob("_static/mathjax/output/**/*.woff")}
    assert sum(map(transferred, files)) < WEIGHT


def test_style_sheets_load_nothing_from_outside() -> None:
    loads = re.compile(r"(?:@import\s+|url\(\s*)['\"]?((?:https?:)?//[^'\")\s]+)")
    sheets = {path.name: loads.findall(path.read_text()) for path in SITE.rglob("*.css")}
    assert sheets
    assert {name: found for name, found in sheets.items() if found} == {}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_picture_says_what_it_shows(document: str) -> None:
    assert nameless_pictures(page(document)) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_ids_are_unique(document: str) -> None:
    assert twice(page(document)) == []


@pytest.mark.parametrize("document", DOCUMENTS + GENERATED)
def test_links_within_the_site_lead_somewhere(document: str) -> None:
    assert broken_links(document, page(document)) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_builder_left_no_complaint_in_the_page(document: str) -> None:
    assert [tag.text[:80] for tag in page(document).select(".system-message, .problematic")] == []
    article = page(document).select_one("article")
    assert article is not None
    code = {id(text) for tag in article.select("pre, code, .math") for text in tag.strings}
    prose = "".join(text for text in article.strings if id(text) not in code)
    assert re.findall(r":::\S*|\{(?:claim|eq|prf:ref|cite:[tp]|numref|ref|doc)\}", prose) == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_the_page_has_what_the_notebook_has(chapter: Chapter) -> None:
    soup = page(f"book/{chapter.name}")
    labels = re.findall(r"^\$\$ \((eq-[\w-]+)\)", chapter.text, flags=re.MULTILINE)
    equations = [tag["id"] for tag in soup.select("[id^='equation-eq-']")]
    assert equations == [f"equation-{label}" for label in labels]

    proofs = [d for d in chapter.directives if d.name.removeprefix("prf:") in PROOFS]
    assert len(soup.select(", ".join(f"div.proof.{kind}" for kind in PROOFS))) == len(proofs)

    figures = {c.metadata.mystnb.figure.name: c.metadata.mystnb.image.alt for c in chapter.figures}
    shown = {
        str(tag["id"]): str(tag.select("img")[0]["alt"])
        for tag in soup.select("figure[id^='fig-']")
    }
    assert {name: " ".join(alt.split()) for name, alt in shown.items()} == {
        name: " ".join(alt.split()) for name, alt in figures.items()
    }

    assert len(soup.select("div.exercise")) == len(chapter.named("exercise"))
    assert len(soup.select("div.solution.dropdown")) == len(chapter.named("solution"))
    assert [tag["id"] for tag in soup.select(".claim-place")] == [
        f"said-{n}" for n in chapter.roles
    ]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_numbers_of_figures_and_theorems_go_up(chapter: Chapter) -> None:
    soup = page(f"book/{chapter.name}")
    number = r"(\d+)\.(\d+)"
    for selector in ("figcaption .caption-number", "div.proof.theorem .caption-number"):
        found = [re.search(number, tag.text) for tag in soup.select(selector)]
        assert all(found), f"a number without its chapter among {selector}"
        counts = [int(match[2]) for match in found if match]
        assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_every_claim_is_listed_with_what_was_measured(chapter: Chapter) -> None:
    rows = {tag["id"]: tag.find_parent("tr") for tag in page("book/claims").select("td [id]")}
    for name in chapter.roles:
        row = rows[f"claim-{name}"]
        assert row is not None
        _, statement, measured, expected = (cell.text.strip() for cell in row.select("td"))
        assert len(statement) > 10, f"{name}: statement {statement!r}"
        assert isfinite(float(measured)), name
        assert expected, name


def test_a_claim_goes_on_from_a_formula_or_leads_to_one() -> None:
    said = {}
    for row in page("book/claims").select("tr:has(td)"):
        name, statement, *_ = (cell.get_text().strip() for cell in row.select("td"))
        said[name] = statement
    assert re.match(r"\(1\.\d+\), and that is early", said["lin-crossing"])
    settles = said["lin-decay-crosstalk"]
    assert re.search(r"so its relative crosstalk settles at \(1\.\d+\)\.$", settles)
    assert said["lin-overlap"] == "… a ratio of 0.685."
    assert not any("**" in statement for statement in said.values())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_buttons_lead_to_the_repository(document: str) -> None:
    links = {str(tag["href"]) for tag in page(document).select("a[href]")}
    suffix = ".ipynb" if (ROOT / f"{document}.ipynb").exists() else ".md"
    assert REPOSITORY in links
    assert f"{REPOSITORY}/edit/main/{document}{suffix}" in links
    assert any(link.startswith(f"{REPOSITORY}/issues/new") for link in links)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_chapter_opens_in_colab_as_what_was_written_for_it(document: str) -> None:
    links = [str(tag["href"]) for tag in page(document).select('a[href*="colab."]')]
    name = document.removeprefix("book/")
    if not (ROOT / "colab" / f"{name}.ipynb").exists():
        assert links == []
        return
    path = REPOSITORY.removeprefix("https://")
    path = path.replace(".com/", "/") + f"/blob/main/colab/{name}.ipynb"
    assert links == [f"https://colab.research.google.com/{path}"]


def test_every_chapter_can_be_opened_in_colab() -> None:
    assert [c.name for c in CHAPTERS if not (ROOT / "colab" / f"{c.name}.ipynb").exists()] == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_links_from_colab_lead_somewhere(chapter: Chapter) -> None:
    text = (ROOT / "colab" / f"{chapter.name}.ipynb").read_text()
    places = set(re.findall(rf"{re.escape(ADDRESS)}([\w/-]+)\.html(?:#([\w-]+))?", text))
    assert ("book/claims", f"claim-{chapter.roles[0]}") in places
    assert [f"{d}#{a}" for d, a in places if a not in anchors(built(d))] == []


def test_numbers_in_colab_are_the_numbers_of_the_site() -> None:
    for name, label in labels(read_chapters(ROOT)).items():
        place = page(label.document).find(id=label.anchor)
        # A section's anchor is an empty element before its heading.
        shown = place and (place if place.get_text() else place.find_next("h2"))
        assert shown is not None, name
        assert label.text.strip("*") in shown.get_text(), name


def test_the_reference_describes_every_public_name_and_kernel() -> None:
    reference = [page(document) for document in DOCUMENTS if document.startswith("book/api/")]
    described = {str(tag["id"]) for soup in reference for tag in soup.select("dt[id]")}
    names = [f"assocmem_kernels.{path.stem}.{k.name}" for path in KERNELS for k in KERNELS[path]]
    assert [name for name in [*public(), *names] if name not in described] == []


def test_names_in_the_reference_are_links() -> None:
    layers = page("book/api/layers")
    (link,) = {
        str(a["href"]) for a in layers.select("a:has(> code)") if a.text == "ops.deltaformer"
    }
    assert link == "operators.html#assocmem.ops.deltaformer"
    shapes = [code for code in layers.select("article code") if code.text == "[B, T, d_model]"]
    assert shapes
    assert not any(code.find_parent("a") for code in shapes)


def test_the_reference_has_the_numbers_of_equations_and_theorems() -> None:
    for document in (d for d in DOCUMENTS if d.startswith("book/api/")):
        prose = "".join(part.get_text() for part in page(document).select("article p"))
        assert not re.search(r"\b(eq|thm|prop|def|lem|cor)-[a-z]", prose)


def test_the_page_for_wrong_addresses_works_at_any_depth() -> None:
    """It is shown in place of a page in any folder, so its addresses begin at the host's root."""
    root, soup = urlparse(CONFIG["html"]["baseurl"]).path, page("404")
    addresses = fetched(soup) + [str(link["href"]) for link in soup.select("a[href]")]
    inside = [a for a in addresses if not outside(a) and not a.startswith("#")]
    assert len(inside) > 20
    assert [address for address in inside if not address.startswith(root)] == []
    files = {unquote(re.sub(r"[?#].*", "", a)).removeprefix(root) for a in inside}
    assert [file for file in files if not (SITE / file).exists()] == []


def test_the_search_index_knows_every_document() -> None:
    text = (SITE / "searchindex.js").read_text()
    index = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert set(DOCUMENTS) <= set(index["docnames"])
    assert "crosstalk" in index["terms"]


def test_the_site_map_lists_every_document() -> None:
    listed = (SITE / "sitemap.xml").read_text()
    assert [name for name in DOCUMENTS if f"/{name}.html<" not in listed] == []
    assert "404" not in listed


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_link_shared_elsewhere_has_a_preview(document: str) -> None:
    soup = page(document)
    for name in ("og:title", "og:description", "og:image", "og:url"):
        tag = soup.select_one(f'meta[property="{name}"]')
        assert tag is not None, name
        assert tag["content"], name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_directives_of_the_source_are_directives_of_the_page(document: str) -> None:
    admonitions = [d for d in directives(source(document)) if d.name in ("admonition", "note")]
    shown = page(document).select("div.admonition:not(.proof, .exercise, .solution, .seealso)")
    assert len(shown) >= len(admonitions)


BAD_PAGE = """
<html><head>
<link rel="stylesheet" href="https://cdn.example/x.css"><link rel="canonical" href="https://me/">
<style>body {background: url(//cdn.example/y.png)}</style></head>
<body id="a"><p id="a"></p><script src="https://cdn.example/z.js"></script>
<img src="_static/picture.svg" alt=" "><a href="#nowhere">x</a><a href="gone.html">y</a>
"""


def test_a_broken_page_is_noticed() -> None:
    soup = BeautifulSoup(BAD_PAGE, "html.parser")
    assert [address for address in fetched(soup) if outside(address)] == [
        "https://cdn.example/z.js",
        "https://cdn.example/x.css",
        "//cdn.example/y.png",
    ]
    assert twice(soup) == ["a"]
    assert len(nameless_pictures(soup)) == 1
    assert broken_links(DOCUMENTS[0], soup) == ["#nowhere", "gone.html"]
