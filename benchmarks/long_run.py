"""A million tokens in pieces: how far the memory in float32 drifts from that in float64.

    python -m benchmarks.long_run                 # print the table
    python -m benchmarks.long_run --store         # and store it, with where it was measured

The chunk form takes the pieces in both precisions, and hands its two states from one piece to the
next. (In float64 it is the definition up to 2e-13, which `tests/ops` holds.) An error is the
relative norm of the difference: of the outputs of a tenth of the sequence, and of the state at its
end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize
from tqdm import tqdm

from assocmem import ops
from assocmem.book.recorded import provenance

STORED = Path(__file__).parent / "results" / "long_run.json"
T, PIECE = 1_000_000, 4000
K, V = 32, 16


@dataclass(frozen=True)
class Case:
    """A scan and its inputs: Gaussian keys, of length 1 for the delta rule, or always the same."""

    operator: str
    gate: str  # "none", "head" or "channel", of mean log decay near -1/1000
    keys: str = "random"
    beta: tuple[float, float] = (0.0, 2.0)
    bound: float = 2e-6  # of every error


# The past fades, and what was rounded with it.
FADING = (
    Case("linear_attention", "head"),
    Case("linear_attention", "channel"),
    Case("delta_rule", "none"),
    Case("delta_rule", "head"),
    Case("delta_rule", "channel"),
    Case("delta_rule", "none", beta=(0.0, 1.0)),  # all of it in float32
    Case("delta_rule", "channel", beta=(0.0, 1.0)),
)
# Something stays: everything; or what was rounded in the directions that the only key leaves alone;
# or both. Errors add up in any form with a state in float32.
KEEPING = (
    Case("linear_attention", "none", bound=4e-6),
    Case("delta_rule", "none", "one", (0.0, 1.0), bound=1e-4),
    Case("delta_rule", "none", "one", (1.9, 2.0), bound=1e-4),
    Case("delta_rule", "none", "one", (2.0, 2.0), bound=4e-3),
)


def pieces(case: Case, tokens: int, piece: int) -> Iterator[dict[str, Tensor]]:
    """The arguments by name, piece by piece, in float32."""
    generator = torch.Generator().manual_seed(0)
    same = normalize(torch.randn(K, generator=generator), dim=-1)
    for _ in range(0, tokens, piece):
        q, k, v = (torch.randn(1, piece, 1, D, generator=generator) for D in (K, K, V))
        x = {"q": q, "k": k, "v": v}
        if case.operator == "delta_rule":
            low, high = case.beta
            x["k"] = same.expand_as(k) if case.keys == "one" else normalize(k, dim=-1)
            x["beta"] = low + (high - low) * torch.rand(1, piece, 1, generator=generator)
        if case.gate != "none":
            last = (K,) * (case.gate == "channel")
            x["g"] = logsigmoid(7 + torch.randn(1, piece, 1, *last, generator=generator))
        yield x


def relative_error(x: Tensor, expected: Tensor) -> float:
    """‖x − expected‖ / ‖expected‖ in float64."""
    return float((x.double() - expected).norm() / expected.norm())


def measure(case: Case, tokens: int = T, piece: int = PIECE, parts: int = 10) -> list[dict]:
    """The errors of every part of the sequence: of its outputs, and of the state at its end."""
    scan = partial(getattr(ops, case.operator), output_final_state=True, backend="chunk")
    rows, outputs, S, exact = [], [], None, None
    for n, x in enumerate(pieces(case, tokens, piece), start=1):
        o, S = scan(**x, initial_state=S)
        expected, exact = scan(**{name: y.double() for name, y in x.items()}, initial_state=exact)
        outputs.append((o, expected))
        if n * piece % (tokens // parts) == 0:
            o, expected = (torch.cat(x, 1) for x in zip(*outputs, strict=True))
            errors = {"o": relative_error(o, expected), "S": relative_error(S, exact)}
            rows.append({"tokens": n * piece, **errors})
            outputs.clear()
    return rows


def worst(rows: list[dict]) -> float:
    """The largest error, of outputs and states."""
    return max(max(row["o"], row["S"]) for row in rows)


def exceeded(rows: list[dict], bound: float) -> bool:
    """Whether an error is beyond its bound."""
    return worst(rows) > bound


def show(case: Case, rows: list[dict]) -> None:
    """Print the errors of the outputs in the first tenth and the last, and the worst of all."""
    steps = f", beta in {list(case.beta)}" if case.operator == "delta_rule" else ""
    first, last = rows[0]["o"], rows[-1]["o"]
    print(f"{case.operator}, decay: {case.gate}, keys: {case.keys}{steps}")
    bound = f"at most {case.bound:.0e}" + (": EXCEEDED" if exceeded(rows, case.bound) else "")
    print(f"    outputs {first:.1e} to {last:.1e}, worst {worst(rows):.1e}, {bound}", flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", action="store_true", help=f"write {STORED.name}")
    store = parser.parse_args().store
    found = []
    for case in tqdm((*FADING, *KEEPING), disable=None):
        rows = measure(case)
        show(case, rows)
        found.append({**vars(case), "rows": rows})
    if store:
        sizes = {"T": T, "piece": PIECE, "K": K, "V": V}
        stored = {**provenance("python -m benchmarks.long_run --store"), **sizes, "cases": found}
        STORED.write_text(json.dumps(stored, indent=1) + "\n")
    if any(exceeded(case["rows"], case["bound"]) for case in found):
        sys.exit("errors exceed their bounds")


if __name__ == "__main__":
    main()
