"""The notebooks for Colab are fresh, plain, and say what the chapters say."""

from __future__ import annotations

import re

import nbformat
import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from book import address
from colab.citations import authors
from colab.generate import notebooks, translated, write
from colab.labels import Chapter as Source
from colab.labels import labels
from colab.markdown import THEOREMS, Page
from tests.book.chapter import CHAPTERS, ROOT, Chapter

REPOSITORY, SITE = address.addresses()
FRESH = notebooks()
COMMITTED = {path.name: path.read_text() for path in sorted((ROOT / "colab").glob("*.ipynb"))}
EDITIONS = {name: nbformat.reads(text, as_version=4) for name, text in COMMITTED.items()}
MYST = re.compile(r":::.*|\{[\w:+-]+\}`.*|^`{3,}\{.*|^\([\w-]+\)=$", re.MULTILINE)
PLAIN = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin)


def edition(chapter: Chapter) -> NotebookNode:
    return EDITIONS[f"{chapter.name}.ipynb"]


def markdown(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_they_are_what_the_command_writes_today() -> None:
    assert list(COMMITTED) == list(FRESH) == [f"{chapter.name}.ipynb" for chapter in CHAPTERS]
    stale = [name for name in FRESH if COMMITTED[name] != FRESH[name]]
    assert not stale, f"{stale} are not what the book says today: run `make colab`"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_nothing_of_myst_is_left(chapter: Chapter) -> None:
    assert MYST.findall(markdown(edition(chapter))) == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_it_is_a_clean_notebook_that_asks_for_a_gpu(chapter: Chapter) -> None:
    notebook = edition(chapter)
    nbformat.validate(notebook)
    assert notebook.metadata.accelerator == "GPU"
    assert notebook.metadata.colab.gpuType == "T4"
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in cells if cell.outputs or cell.execution_count is not None] == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_the_first_cell_installs_the_library_and_leaves_torch_alone(chapter: Chapter) -> None:
    first = edition(chapter).cells[0]
    assert first.cell_type == "code"
    (line,) = [line for line in first.source.splitlines() if not line.startswith("#")]
    triton = " triton" if "import triton\n" in "\n".join(code(chapter.notebook)) else ""
    assert line == f"%pip install -q --no-deps git+{REPOSITORY}{triton}"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_the_code_is_the_chapter_s(chapter: Chapter) -> None:
    ours = [re.sub(r"\A# @title .*\n", "", source) for source in code(edition(chapter))[1:]]
    assert ours == code(chapter.notebook)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_every_address_is_the_repository_s_or_the_site_s(chapter: Chapter) -> None:
    text = FRESH[f"{chapter.name}.ipynb"]
    found = {*address.REPOSITORY.findall(text), *address.SITE.findall(text)}
    name = REPOSITORY.rpartition("/")[2]
    assert {one for one in found if f"/{name}" in one} == {REPOSITORY, SITE}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_a_plain_reader_sees_everything(chapter: Chapter) -> None:
    text = markdown(edition(chapter))
    tokens = PLAIN.parse(text)
    html = "".join(token.content for token in tokens if token.type == "html_block")
    theorems = chapter.named(*(f"prf:{kind}" for kind in THEOREMS))
    assert html.count("<details>") == html.count("</details>") == len(chapter.named("solution"))
    boxes = len(theorems) + len(chapter.named("admonition"))
    assert html.count("<blockquote>") == html.count("</blockquote>") == boxes
    assert text.count("**Proof**") == text.count("∎") == len(chapter.named("prf:proof"))

    equations = [token.content for token in tokens if token.type == "math_block"]
    assert len(equations) == chapter.text.count("$$") / 2
    tags = [tag for tex in equations for tag in re.findall(r"\\tag\{(.*?)\}", tex)]
    labelled = re.findall(r"^.*\$\$ \((eq-[\w-]+)\)", chapter.text, flags=re.MULTILINE)
    number = int(chapter.name[:2])
    assert tags == [f"{number}.{n}" for n in range(1, len(labelled) + 1)]

    assert len(re.findall(r"\[✓\]\(", text)) == len(chapter.roles)
    captions = re.findall(r"^\*\*Fig\. (\S+)\*\* \S", text, flags=re.MULTILINE)
    assert captions == [f"{number}.{n}" for n in range(1, len(chapter.figures) + 1)]


TEXT = """\
# Title

(a-place)=
## Section

See {numref}`fig-a`, {eq}`eq-far`, {prf:ref}`thm-a`, {ref}`a-place` and {doc}`claims`.

$$ x[^2](3) $$

$$
y
$$ (eq-near)

:::{prf:theorem} A name with {eq}`eq-near`
:label: thm-a
It holds {claim}`some-id`.
:::
As {cite:t}`one` said {cite:p}`one,two`.

```python
f"{x}`y` ::: {{}}"
```
"""

PLAIN_TEXT = """\
# Title

## Section

See Fig. 1.1, [(2.1)](https://site/book/02_b.html#equation-eq-far), Theorem 1.1, *Section* and \
[The claims](https://site/book/claims.html).

$$ x[^2](3) $$

$$
y \\tag{1.1}
$$

<blockquote>

**Theorem 1.1 (A name with (1.1))**

It holds [✓](https://site/book/claims.html#claim-some-id).

</blockquote>

As [Ho (2001)](https://site/book/bibliography.html#cite-one) said \
([Ho, 2001](https://site/book/bibliography.html#cite-one), \
[Li et al., 2002](https://site/book/bibliography.html#cite-two)).

```python
f"{x}`y` ::: {{}}"
```"""


def sources(text: str) -> list[Source]:
    figure = {"mystnb": {"figure": {"name": "fig-a", "caption": "A figure."}}}
    cells = [new_markdown_cell(text, id="text"), new_code_cell("1", id="code", metadata=figure)]
    other = [new_markdown_cell("# Other\n\n$$ z $$ (eq-far)")]
    return [
        Source("book/01_a", new_notebook(cells=cells)),
        Source("book/02_b", new_notebook(cells=other)),
    ]


def small(text: str) -> NotebookNode:
    chapters = sources(text)
    cited = {"one": ("Ho", "2001"), "two": ("Li et al.", "2002")}
    titles = {"book/claims": "The claims"}
    page = Page("book/01_a", "https://site/", labels(chapters), titles, cited)
    return translated(chapters[0], page, "https://repository")


def test_a_small_chapter_reads_as_it_should() -> None:
    _, text, _, caption = small(TEXT).cells
    assert text.source == PLAIN_TEXT
    assert caption.source == "**Fig. 1.1** A figure."


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (":::{tabs}\n:::", r"directive \{tabs\} is not among those known: \['admonition'"),
        (":::{note}\n:color: red\n:::", r"options \['color'\] of \{note\} are not known"),
        (":::{prf:lemma}\nx\n:::", r"\{prf:lemma\}  has no label to count"),
        (":::{note}\nopen", "nothing closes ':::{note}'"),
        ("  :::{note}\n  x\n  :::", "cannot be said in plain Markdown: :::"),
        ("{term}`x`", r"role \{term\} is not among those known: \['cite:p'"),
        ("{eq}`eq-gone`", "a reference to eq-gone, which is nowhere"),
        ("{cite:t}`three`", "a reference to three, which is nowhere"),
        ("{doc}`gone`", "a reference to book/gone, which is nowhere"),
        (":::{solution} gone\n:::", "a reference to gone, which is nowhere"),
        ("[here](notation.md)", r"cannot be said in plain Markdown: \]\(notation.md\)"),
        ("word[^1]", r"cannot be said in plain Markdown: \[\^1"),
        ("$$ x $$ (eq-far)", "eq-far stands twice"),
    ],
)
def test_what_cannot_be_said_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        small(f"# Title\n\n{text}")


def test_the_complaint_names_the_cell() -> None:
    with pytest.raises(ValueError, match=r"^book/01_a\.ipynb, cell text: role"):
        small("# Title\n\n{term}`x`")


def test_authors_are_named_as_on_the_site() -> None:
    from pybtex.database import Entry, Person

    def cited(*names: str) -> str:
        return authors(Entry("misc", persons={"author": [Person(name) for name in names]}))

    assert cited("Hebb, Donald") == "Hebb"
    assert cited("Van Loan, Charles", "Ho, A") == "Van Loan and Ho"
    assert cited(r"M{\'e}zard, Marc", "Ho, A", "Li, B") == "Mézard et al."
    assert cited("von Oswald, J.", "others") == "von Oswald et al."


def test_a_notebook_without_a_chapter_goes(tmp_path) -> None:
    (tmp_path / "09_gone.ipynb").write_text("{}")
    (tmp_path / "generate.py").write_text("")
    write(tmp_path, {"01_a.ipynb": "new"})
    assert {p.name for p in tmp_path.iterdir()} == {"01_a.ipynb", "generate.py"}
