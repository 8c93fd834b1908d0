"""A chapter in miniature that keeps every promise, for tests that break one promise each."""

from __future__ import annotations

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.book.chapter import Chapter

TEXT = """\
# A chapter

The sum of one and one is two {claim}`mini-sum`.

:::{prf:theorem} Order does not matter
:label: thm-mini

$a + b = b + a$ {claim}`mini-order`
:::

$$
a + b = b + a
$$ (eq-mini)
"""

EXERCISE = """\
:::{exercise} Add
:label: ch1-ex1

★ (2 minutes) Add two numbers.
:::

:::{solution} ch1-ex1
:class: dropdown

```python
def add(a, b):
    return a + b
```
:::
"""

SETUP = """\
from assocmem.book import check, claim, figures

figures.use_style()"""

STUB = """\
def add(a, b):
    raise NotImplementedError


check.ch1_ex1(add);"""

ALT = "A straight line rises from the origin to the point (1, 1) and shows nothing else."
SVG = '<svg><path style="fill: #fbfaf7"/></svg>'
CLAIMS = 'claim("mini-sum", 1 + 1, 2, atol=0)\nclaim("mini-order", 1 + 2, 2 + 1, atol=0)'
HOLDS = """\
claim mini-sum: measured 2, expected 2 ± 0: holds
claim mini-order: measured 3, expected 3 ± 0: holds
"""


def miniature() -> Chapter:
    """A fresh copy, to be broken."""
    printed = new_output("stream", name="stdout", text=HOLDS)
    picture = new_output("display_data", data={"image/svg+xml": SVG, "text/plain": "<Figure>"})
    figure = {
        "mystnb": {"figure": {"name": "fig-mini", "caption": "A line."}, "image": {"alt": ALT}}
    }
    unsolved = new_output("stream", name="stdout", text="ch1_ex1: not solved yet\n")
    cells = [
        new_markdown_cell(TEXT),
        new_code_cell(SETUP, execution_count=1),
        new_code_cell(CLAIMS, execution_count=2, outputs=[printed]),
        new_code_cell(
            "fig, (ax,) = figures.figure()\nax.plot([0, 1], [0, 1])\nassert True;",
            execution_count=3,
            outputs=[picture],
            metadata=figure,
        ),
        new_markdown_cell(EXERCISE),
        new_code_cell(STUB, execution_count=4, outputs=[unsolved]),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return Chapter(new_notebook(cells=cells, metadata={"kernelspec": kernel}), "miniature")
