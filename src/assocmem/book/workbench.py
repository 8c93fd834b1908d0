"""A small memory to write into: the reader chooses a rule and its gates, and writes pairs.

As with `interactive`, an ordinary figure comes first, and stays where no JavaScript runs. Elsewhere
book/_static/workbench.js puts the workbench in its place. What it shows depends on the reader, so
there the numbers are computed in JavaScript; tests/book/test_workbench.py holds them against RULES.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from IPython.display import HTML

from assocmem.book.interactive import stand_in
from assocmem.rules import RULES

# The gates of a write that each rule on the workbench has.
GATES: dict[str, tuple[str, ...]] = {
    "linear_attention": (),
    "retnet": ("decay",),
    "deltanet": ("beta",),
    "gated_deltanet": ("beta", "decay"),
    "longhorn": ("beta",),
    "mesanet": ("decay",),
}
RIDGE = 1e-6  # of MesaNet: too small to be seen, and large enough to solve by


@dataclass(frozen=True)
class Pair:
    """A pair that the reader can write.

    Args:
        key: the name of its key; pairs with the same name share it.
        k: the key, two numbers.
        v: the value, two numbers.
    """

    key: str
    k: tuple[float, float]
    v: tuple[float, float]


def workbench(figure: str, pairs: Sequence[Pair], written: Sequence[int], start: str) -> HTML:
    """A memory of size 2 × 2 for the figure of that name, as an output that the site makes live.

    Args:
        figure: the name of the static figure, as in its cell's metadata.
        pairs: what can be written.
        written: positions in pairs of what is written at first, in order.
        start: the rule that is chosen at first, a key of GATES.

    Raises:
        ValueError: when pairs of one name have different keys, a position is none of a pair, or
            start is not a rule of the workbench.
    """
    keys: dict[str, tuple[float, float]] = {}
    for pair in pairs:
        if keys.setdefault(pair.key, pair.k) != pair.k:
            raise ValueError(f"pairs named {pair.key!r} must share a key, got {pair.k}")
    if not set(written) <= set(range(len(pairs))):
        raise ValueError(f"written must be positions among {len(pairs)} pairs, got {list(written)}")
    if start not in GATES:
        raise ValueError(f"start must be one of {list(GATES)}, got {start!r}")
    data = {
        "rules": [
            {"name": name, "label": RULES[name].name, "gates": gates}
            for name, gates in GATES.items()
        ],
        "ridge": RIDGE,
        "pairs": [{"key": pair.key, "k": pair.k, "v": pair.v} for pair in pairs],
        "written": list(written),
        "start": start,
    }
    return stand_in("workbench", figure, data)
