"""The page of the book on what `make gpu` has measured: targets, tables, figure, what is missing.

python -m benchmarks.gpu_report FILE --store     # writes it
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from statistics import geometric_mean

from assocmem.book.table import in_one_piece
from benchmarks.gpu_cases import PUBLISHED
from benchmarks.gpu_tables import Row, identity, ratios, shape, sound, summary, table

BOOK = Path(__file__).parents[1] / "book"
PAGE, FIGURE = BOOK / "gpu.md", BOOK / "_static" / "gpu.svg"

DELTA_RULE = ("delta_rule", "head", *PUBLISHED)
MILLISECONDS = {"forward": 1.0, "forward+backward": 5.0}  # at most
DELTAFORMER, MEAN, LEAST = 3.0, 1.5, 1.0  # how many times our time fla should take, or more

TIMES, OTHERS = slice(0, 2), slice(2, None)  # of what a table tells

FIGURE_OF = """```{{figure}} _static/gpu.svg
:name: fig-gpu
:alt: Time over length on double logarithmic axes, one line for each operator and decay, at a \
constant number of tokens. Softmax attention and DeltaFormer rise with length, all others are \
nearly level up to 16,384 tokens, and those that were measured beyond rise a little there.

Forward and backward on an {gpu}: milliseconds for 65,536 tokens in all, 32 heads of size 128. \
none, head, channel: no decay, one per head, one per channel of the key. Open marks, dashed: \
flash-linear-attention, where its backward pass ran.
```"""
OF_OTHERS = """The largest relative errors of these, their memory (of the forward pass, where no
backward pass ran), and first calls:"""
HEAD = """# Measured on a GPU

What `make gpu` has measured on one device, as it was recorded. Nothing here is predicted, and
`benchmarks/gpu_report.py` has written all of it. Times are medians in milliseconds, in brackets how
many times the floor that is, the least time that the bytes or the operations would take. Operators
are those of `assocmem.ops`; beside them stand those of flash-linear-attention (fla). Of its
DeltaFormer it is the kernel for the corrections, with PyTorch's attention to read them, as its
public function needs a package that was not there; ours erases by its queries, as fla's. What
has changed since that commit has no times yet.
"""


def page(result: Row) -> str:
    """The page, in Markdown."""
    rows = result["rows"]
    parts = [
        HEAD,
        summary(result),
        "## Beside the targets",
        targets(rows),
        "## Over length",
        FIGURE_OF.format(gpu=result["gpu"]),
        "## All that was measured",
        *tables(rows),
        "## Not measured",
        missing(rows),
        "## What a second call gave in other bits",
        unsteady(rows),
        "DeltaFormer reads by PyTorch's attention, whose backward pass adds up in no fixed order. "
        "Every other number was the same twice.",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def targets(rows: list[Row]) -> str:
    """What was aimed at, what came, and whether that is enough."""
    lines = ["| aim | measured | so it is |", "|---|---:|---|"]
    lines += [
        f"| {aim} | {came:.2f} | {'reached' if reached else 'missed'} |"
        for aim, came, reached in aims(rows)
    ]
    return "\n".join(lines)


def aims(rows: list[Row]) -> Iterator[tuple[str, float, bool]]:
    """Every aim in words, what came, and whether it was reached."""
    own = sound(rows).get((*DELTA_RULE, "assocmem"), {})
    for what, most in MILLISECONDS.items():
        passes = what.replace("+", " and ")
        if what in own:
            came = own[what]["ms"]
            yield f"delta rule, a decay per head, {passes}: at most {most} ms", came, came <= most
        found = list(ratios(rows, what))
        times = [x for x, _ in found]
        former = [
            x for x, row in found if row["operator"] == "deltaformer" and shape(row) == PUBLISHED
        ]
        for name, least, came in (
            ("DeltaFormer", DELTAFORMER, former),
            ("geometric mean of all shapes", MEAN, [geometric_mean(times)] if times else []),
            ("the least of all shapes", LEAST, [min(times)] if times else []),
        ):
            aim = f"{name}, {passes}: fla takes at least {least} times as long"
            yield from ((aim, x, x >= least) for x in came)


def tables(rows: list[Row]) -> Iterator[str]:
    """A table for every shape of which anything was measured."""
    measured = [row for row in rows if "forward" in row]
    for at in dict.fromkeys(map(shape, measured)):
        B, T, H, D = at
        yield f"### {B} sequences of {T:,} tokens, {H} heads of size {D}"
        yield table(measured, at, TIMES)
        if at == PUBLISHED:
            yield OF_OTHERS
            yield in_one_piece(table(measured, at, OTHERS))


def missing(rows: list[Row]) -> str:
    """The rows that failed, were skipped or gave wrong numbers, by shape."""
    there = sound(rows)
    lines = []
    for at in dict.fromkeys(map(shape, rows)):
        own = [row for row in rows if shape(row) == at]
        lost = [row for row in own if identity(row) not in there]
        if lost:
            B, T, H, D = at
            names = dict.fromkeys(map(named, lost))
            told = "everything" if len(lost) == len(own) else ", ".join(names)
            lines.append(f"- {B} × {T:,} × {H} × {D}: {told}")
    return "\n".join(lines) if lines else "Nothing is missing."


def unsteady(rows: list[Row]) -> str:
    """The outputs and gradients that were not the same twice, by operator and implementation."""
    found: dict[str, list[list[str]]] = {}
    for row in rows:
        if row.get("other_bits"):
            found.setdefault(named(row), []).append(row["other_bits"])
    lines = [
        f"- {name}: {', '.join(dict.fromkeys(chain(*what)))} in {len(what)} rows"
        for name, what in found.items()
    ]
    return "\n".join(lines) if lines else "Nothing changed."


def named(row: Row) -> str:
    """Operator, gate and implementation of a row."""
    operator = row["operator"].replace("_", " ")
    return f"{operator} ({row['gate']}, {row['implementation']})"
