"""The unified table: every rule by its key, and the table as a page shows it."""

from __future__ import annotations

from assocmem.rules import adding, attention, correcting, solving
from assocmem.rules.rule import Rule

RULES: dict[str, Rule] = {
    "linear_attention": adding.LINEAR_ATTENTION,
    "retnet": adding.RETNET,
    "mamba2": adding.MAMBA2,
    "gla": adding.GLA,
    "rwkv6": adding.RWKV6,
    "hgrn2": adding.HGRN2,
    "deltanet": correcting.DELTANET,
    "gated_deltanet": correcting.GATED_DELTANET,
    "kda": correcting.KDA,
    "comba": correcting.COMBA,
    "rwkv7": correcting.RWKV7,
    "deltaproduct": correcting.DELTAPRODUCT,
    "ttt_linear": correcting.TTT_LINEAR,
    "longhorn": solving.LONGHORN,
    "titans": solving.TITANS,
    "mesanet": solving.MESANET,
    "softmax_attention": attention.SOFTMAX_ATTENTION,
    "fox": attention.FOX,
    "deltaformer": attention.DELTAFORMER,
}

HEADINGS = {
    "objective": "objective",
    "step": "step",
    "recurrence": "next memory",
    "eigenvalue": "eigenvalue along the key",
    "limit": "largest stable β",
}


class Table(str):
    """Markdown that a notebook shows as a table."""

    def _repr_markdown_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"Table of {self.count(chr(10)) - 1} rules"


def table(*columns: str) -> Table:
    """All rules, one per row, as a Markdown table.

    Args:
        columns: which formulas to show, of "objective", "step", "recurrence", "eigenvalue" and
            "limit".

    Raises:
        ValueError: when a column is unknown, or none is given.

    Example:
        >>> from assocmem import rules
        >>> lines = rules.table("recurrence", "limit").splitlines()
        >>> len(lines) == 2 + len(rules.RULES)  # a head, a ruler, and a row for each
        True
    """
    # A list, as a dictionary would ask for a hash first.
    if not columns or any(column not in list(HEADINGS) for column in columns):
        raise ValueError(f"columns must be some of {list(HEADINGS)}, got {list(columns)}")
    rows = [["rule", *(HEADINGS[column] for column in columns)], ["---"] * (1 + len(columns))]
    for rule in RULES.values():
        name = f"[{rule.name}](https://arxiv.org/abs/{rule.source})"
        rows.append([name, *(getattr(rule.tex, column) for column in columns)])
    return Table("\n".join(f"| {' | '.join(row)} |" for row in rows))
