"""A million tokens in pieces: how far the memory in float32 drifts from the definition in float64.

    python -m benchmarks.long_run                 # print the table
    python -m benchmarks.long_run --store         # and store it, with where it was measured

The chunk form takes the pieces in float32 and hands its state from one to the next. The definition
goes through the same numbers token by token, in float64, and once more in float32, to tell what the
form adds to what the precision costs. An error is the relative norm of the difference: of the
outputs of a tenth of the sequence, and of the state at its end.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize
from tqdm import tqdm

from assocmem import ops
from assocmem.book.recorded import provenance

STORED = Path(__file__).parent / "results" / "long_run.json"
BOUND = 2e-6
T, PIECE = 1_000_000, 4000
K, V = 32, 16


@dataclass(frozen=True)
class Case:
    """A scan and its inputs: Gaussian keys, of length 1 for the delta rule, or always the same."""

    operator: str
    gate: str  # "none", "head" or "channel", of mean log decay near -1/1000
    keys: str = "random"
    beta: tuple[float, float] = (0.0, 2.0)


# The past fades, and what was rounded with it.
FADING = (
    Case("linear_attention", "head"),
    Case("linear_attention", "channel"),
    Case("delta_rule", "none"),
    Case("delta_rule", "head"),
    Case("delta_rule", "channel"),
)
# Something stays: everything; or what was rounded in the directions that the only key leaves alone;
# or both. Errors add up like the square root of T in any form with a state in float32.
KEEPING = (
    Case("linear_attention", "none"),
    Case("delta_rule", "none", "one", (1.9, 2.0)),
    Case("delta_rule", "none", "one", (2.0, 2.0)),
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


def definition(S: np.ndarray, x: dict[str, Tensor]) -> np.ndarray:
    """S_t = Diag(exp g_t) S_{t-1} + k_t u_tᵀ, o_t = S_tᵀ q_t / √K, in S's dtype; S is changed.

    u_t is v_t, or β_t (v_t − Sᵀ k_t) with the decayed S.
    """
    numbers = {name: y[0, :, 0].numpy().astype(S.dtype) for name, y in x.items()}
    q, k, u = numbers["q"], numbers["k"], numbers["v"]
    beta, g = numbers.get("beta"), numbers.get("g")
    o = np.empty_like(u)
    for t in range(len(o)):
        if g is not None:
            S *= np.exp(g[t])[..., None]
        u_t = u[t] if beta is None else beta[t] * (u[t] - k[t] @ S)
        S += k[t][:, None] * u_t
        o[t] = q[t] @ S
    return o / S.dtype.type(K**0.5)


def relative_error(x: np.ndarray, expected: np.ndarray) -> float:
    """‖x − expected‖ / ‖expected‖ in float64."""
    return float(np.linalg.norm(x - expected) / np.linalg.norm(expected))


def measure(case: Case, tokens: int = T, piece: int = PIECE, parts: int = 10) -> list[dict]:
    """The errors of every part of the sequence, of the chunk form and of the recurrence."""
    operator, S = getattr(ops, case.operator), None
    exact, rounded, rows = np.zeros((K, V)), np.zeros((K, V), np.float32), []
    outputs: list[np.ndarray] = []
    for n, x in enumerate(pieces(case, tokens, piece), start=1):
        o, S = operator(**x, initial_state=S, output_final_state=True, backend="chunk")
        outputs.append(np.stack((definition(exact, x), o[0, :, 0].numpy(), definition(rounded, x))))
        if n * piece % (tokens // parts) == 0:
            expected, chunk, recurrence = np.concatenate(outputs, 1)
            row: dict = {"tokens": n * piece}
            for form, y, end in (
                ("chunk", chunk, S[0, 0].numpy()),
                ("recurrence", recurrence, rounded),
            ):
                row[form] = {"o": relative_error(y, expected), "S": relative_error(end, exact)}
            rows.append(row)
            outputs.clear()
    return rows


def worst(rows: list[dict], form: str) -> float:
    """The largest error of a form, of outputs and states."""
    return max(max(row[form].values()) for row in rows)


def show(case: Case, rows: list[dict]) -> None:
    """Print the errors of the outputs in the first tenth and the last, and the worst of all."""
    keys = f", the same key, beta in {list(case.beta)}" if case.keys == "one" else ""
    print(f"{case.operator}, decay: {case.gate}{keys}")
    for form in ("chunk", "recurrence"):
        first, last = rows[0][form]["o"], rows[-1][form]["o"]
        print(
            f"    {form:10s} {first:.1e} to {last:.1e}, worst {worst(rows, form):.1e}", flush=True
        )


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
        sizes = {"T": T, "piece": PIECE, "K": K, "V": V, "bound": BOUND}
        stored = {**provenance("python -m benchmarks.long_run --store"), **sizes, "cases": found}
        STORED.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
