"""Tables in Markdown of what `make gpu` has measured, and how it compares with its peers.

Files of one device are read together; of a row that stands in several, the one that was measured
last counts. What was not measured stays empty, and what is wrong is never compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from benchmarks.gpu_cases import PUBLISHED

README = Path(__file__).parents[1] / "README.md"
DECAYS = {"none": "none", "head": "per head", "channel": "per channel"}
WRONG = 0.05  # relative error of an output or gradient that no rounding to bfloat16 explains
PASSES = ("forward", "forward+backward")
SHAPE = ("B", "T", "H", "D")
TOLD = ("ms, forward", "ms, both passes", "error", "peak MB", "first call, s")
Row = dict[str, Any]


def gathered(files: list[Path]) -> dict[str, Any]:
    """The results of one device as one: provenance of the last file, rows of all."""
    results = sorted((json.loads(f.read_text()) for f in files), key=lambda r: r["date"])
    if len({r["gpu"] for r in results}) != 1:
        raise ValueError(f"files must be of one GPU, got {sorted({r['gpu'] for r in results})}")
    rows = {}
    for result in results:
        for row in result["rows"]:
            name = identity(row)
            if name not in rows or "forward" in row:
                rows[name] = row
    tests = next((r["tests"] for r in reversed(results) if r["tests"]), None)
    return {**results[-1], "tests": tests, "rows": list(rows.values())}


def identity(row: Row) -> tuple:
    """What a row measures."""
    return (*case(row), row["implementation"])


def case(row: Row) -> tuple:
    """What implementations are compared at."""
    return row["operator"], row["gate"], *shape(row)


def shape(row: Row) -> tuple[int, ...]:
    """B, T, H and D."""
    return tuple(row[name] for name in SHAPE)


def wrong(row: Row) -> bool:
    """Whether a measured row computes something else."""
    return not all(e <= WRONG for e in (row["errors"] or {}).values())


def sound(rows: list[Row]) -> dict[tuple, Row]:
    """The rows that were measured and are not wrong, by what they measure."""
    return {identity(row): row for row in rows if "forward" in row and not wrong(row)}


def ratios(rows: list[Row], what: str) -> Iterator[tuple[float, Row]]:
    """How many times our time fla takes, with our row."""
    there = sound(rows)
    for row in there.values():
        peer = there.get((*case(row), "fla"))
        if row["implementation"] == "assocmem" and peer and what in row and what in peer:
            yield peer[what]["ms"] / row[what]["ms"], row


def cells(row: Row | None) -> list[str]:
    """Times, with how many times their floor they are; the largest error; memory; first call."""
    if row is None:
        return [""] * len(TOLD)
    errors, first = row["errors"], row["first_call_s"]
    memory = max(row[what]["peak_bytes"] for what in PASSES if what in row)
    return [
        *(time_of(row.get(what)) for what in PASSES),
        f"{max(errors.values()):.1e}" if errors else "",
        f"{memory / 1e6:.0f}",
        "" if first is None else f"{first:.1f}",
    ]


def time_of(measured: Row | None) -> str:
    """Milliseconds of a pass, and how many times its floor they are; empty where it failed."""
    if measured is None:
        return ""
    over = measured["over_floor"]
    return f"{measured['ms']:.2f}" + (f" ({over:.1f}×)" if over else "")


def table(rows: list[Row], at: tuple[int, ...], told: slice = slice(None)) -> str:
    """What was measured of all operators at one shape, beside fla's: all of TOLD, or some."""
    there = sound(rows)
    variants = dict.fromkeys((r["operator"], r["gate"]) for r in rows if shape(r) == at)
    columns = [f"{what}{who}" for what in TOLD[told] for who in ("", " (fla)")]
    lines = [" | ".join(["operator", "gate", *columns]), "|".join(["---"] * (2 + len(columns)))]
    for variant in variants:
        own, peer = (
            next((there[x] for x in ((*variant, *at, who) for who in names) if x in there), None)
            for names in (("assocmem", "torch"), ("fla",))
        )
        both = zip(cells(own)[told], cells(peer)[told], strict=True)
        lines.append(" | ".join([*variant, *(x for pair in both for x in pair)]))
    return "\n".join(f"| {line} |" for line in lines)


def readme_table(rows: list[Row]) -> str:
    """Our times at the published shape, and in brackets how many times as long fla takes."""
    there = sound(rows)
    gated = {row["operator"] for row in rows if row["gate"] != "none"}
    lines = ["| operator | decay | forward | forward and backward |", "|---|---|---:|---:|"]
    for operator in ("linear_attention", "delta_rule", "deltaformer"):
        for gate, decay in DECAYS.items():
            at = (operator, gate, *PUBLISHED)
            if own := there.get((*at, "assocmem")):
                peer, decay = there.get((*at, "fla"), {}), decay if operator in gated else "–"
                lines.append(f"| `{operator}` | {decay} | {compared(own, peer)} |")
    if own := there.get(("softmax_attention", "none", *PUBLISHED, "torch")):
        times = " | ".join(f"{own[what]['ms']:.2f}" for what in PASSES)
        lines.append(f"| PyTorch's softmax attention | – | {times} |")
    return "\n".join(lines)


def compared(own: Row, peer: Row) -> str:
    """Cells with our times, and how many times as long a peer takes, where it does it at all."""
    return " | ".join(
        f"{own[what]['ms']:.2f} ({ratio_of(own, peer, what)})" if what in own else ""
        for what in PASSES
    )


def ratio_of(own: Row, peer: Row, what: str) -> str:
    """How many times our time a peer takes for a pass; a dash where it was not measured."""
    return f"{peer[what]['ms'] / own[what]['ms']:.2f}" if what in peer else "–"


def with_table(text: str, table: str) -> str:
    """A text in which a table with the same head is replaced."""
    start = text.index(table.partition("\n")[0])
    return text[:start] + table + text[text.index("\n\n", start) :]


def summary(result: dict[str, Any]) -> str:
    """What was run where, what passed, and how the times compare over the whole grid."""
    rows, tests = result["rows"], result["tests"]
    measured = [row for row in rows if "forward" in row]
    lines = [
        f"{result['gpu']}, driver {result['driver']}, torch {result['torch']}, "
        f"triton {result['triton']}, fla {result['fla']}, {result['dtype']}, {result['date']}, "
        f"commit {str(result['commit'])[:10]}, `{result['command']}`",
        f"{len(measured)} rows measured, {sum('failed' in row for row in rows)} failed, "
        f"{sum('skipped' in row for row in rows)} skipped, {sum(map(wrong, measured))} wrong, "
        f"{sum('backward_failed' in row for row in rows)} without a backward pass, "
        f"{sum(row['errors'] is None for row in measured)} without a reference, "
        f"{sum(bool(row['other_bits']) for row in measured)} not the same bits twice",
        f"tests: {tests['passed']} passed, {tests['failed'] + tests['error']} failed, "
        f"{tests['skipped']} skipped, {tests['not_run']} not run"
        if tests
        else "tests: not run",
    ]
    for what in PASSES:
        if found := list(ratios(rows, what)):
            mean = geometric_mean(x for x, _ in found)
            least, row = min(found, key=lambda pair: pair[0])
            lines.append(
                f"{what}: fla takes {mean:.2f}× our time (geometric mean of {len(found)} rows), "
                f"at least {least:.2f}× ({row['operator']}, {row['gate']}, {shape(row)})"
            )
        else:
            lines.append(f"{what}: not compared with fla")
    return "\n".join(f"- {line}" for line in lines)
