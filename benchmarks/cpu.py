"""How fast the operators are on this CPU, as ratios within one run.

    python -m benchmarks.cpu            # print the table
    python -m benchmarks.cpu --store    # and store it, and write it into the README

B = 1, H = 8, K = V = 64, float32, causal; training is forward and backward. A time is that of the
fastest of several calls, as other processes only ever add to it. What is compared takes turns, so
that a machine which is slow for a while is slow for all of it; the calls also take turns through
several sets of inputs, so that no length finds its inputs in the cache by luck. Stored
beside each length is how long a message between two cores took before it (`benchmarks/cores.py`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize, scaled_dot_product_attention
from tqdm import tqdm

from assocmem import ops
from assocmem.book.recorded import provenance
from assocmem.ops.chunks import CHUNK
from assocmem.ops.delta_rule import CHUNK as DELTA_CHUNK
from benchmarks.cores import message_time
from benchmarks.gpu_tables import README, with_table
from benchmarks.processes import answer

STORED = Path(__file__).parent / "results" / "cpu.json"
SCAN_LENGTHS = (1024, 2048, 4096, 16384)
LENGTHS = {
    "linear_attention": SCAN_LENGTHS,
    "delta_rule": SCAN_LENGTHS,
    "deltaformer": SCAN_LENGTHS[:3],  # grows like T²
}
H, D = 8, 64
BYTES_IN_TURN = 400 * 2**20  # more than a last-level cache holds
CALLS = 25
SLOW = {"recurrent": 3, "attention": 3, "training": 5}  # calls
# Than the forward pass of the chunk form.
OTHERS = ("training", "head decay", "channel decay", "β to 2", "recurrent", "attention")
MEGABYTE = 2**20

# What an operator of PyTorch does, by the beginning of its name; everything else is "other".
KINDS = {
    "products": ("aten::bmm", "aten::baddbmm", "aten::mm", "aten::addmm"),
    "systems": ("aten::linalg_solve_triangular",),
    "copies": ("aten::copy_", "aten::cat", "aten::clone", "aten::_to_copy"),
}
PROFILED = 4096  # tokens


def flops(operator: str, T: int) -> int:
    """Operations a token and head.

    With the state 2 K V for a reading or a writing, with the chunk 2 C K for scores and 2 C V for
    what they weigh; twice attention with half of T tokens on average.
    """
    return {
        "linear_attention": 4 * D * D + 4 * CHUNK * D,
        "delta_rule": 6 * D * D + 8 * DELTA_CHUNK * D,
        "deltaformer": 4 * T * D,
    }[operator]


def arguments(operator: str, q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    """What an operator takes before its gate: for the delta rule keys of length 1, and β."""
    if operator == "linear_attention":
        return [q, k, v]
    return [q, normalize(k, dim=-1), v, v[..., 0].sigmoid()]


def variants(operator: str) -> dict[str, Callable[..., object]]:
    """The forms of an operator by name, and PyTorch's softmax attention."""
    function = getattr(ops, operator)

    def attention(q: Tensor, k: Tensor, v: Tensor, *_: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return scaled_dot_product_attention(q, k, v, is_causal=True)

    def steps(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> object:
        return function(q, k, v, 2 * beta, backend="chunk")  # in float64, in part

    decays = {
        "head decay": lambda *x: function(*x, logsigmoid(x[0][..., 0]), backend="chunk"),
        "channel decay": lambda *x: function(*x, logsigmoid(x[0]), backend="chunk"),
    }
    return {
        "chunk": lambda *x: function(*x, backend="chunk"),
        "training": lambda *x: train(operator, "chunk", x),
        **({} if operator == "deltaformer" else decays),
        **({"β to 2": steps} if operator == "delta_rule" else {}),
        "recurrent": lambda *x: function(*x, backend="recurrent"),
        "attention": attention,
    }


@torch.enable_grad()
def train(operator: str, backend: str, tokens: Sequence[Tensor]) -> None:
    """Forward and backward."""
    leaves = [x.detach().requires_grad_() for x in tokens]
    result = getattr(ops, operator)(*leaves, backend=backend)
    (result if isinstance(result, Tensor) else result[0]).sum().backward()


def seconds(variants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Time of each variant's fastest call, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(CALLS + 1):
        for name, call in variants.items():
            if turn <= SLOW.get(name, CALLS):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    return {name: min(warm) for name, (_, *warm) in times.items()}


@torch.no_grad()
def measure(operator: str) -> list[dict]:
    """One row a length."""
    rows = []
    for T in tqdm(LENGTHS[operator], desc=operator):
        generator = torch.Generator().manual_seed(T)
        sets = [
            arguments(operator, *(torch.randn(1, T, H, D, generator=generator) for _ in range(3)))
            for _ in range(max(2, BYTES_IN_TURN // (12 * T * H * D)))
        ]
        inputs, a = itertools.cycle(sets), torch.randn(2048, 2048, generator=generator)
        calls: dict = {
            name: lambda call=call, inputs=inputs: call(*next(inputs))
            for name, call in variants(operator).items()
        }
        message = message_time() if torch.get_num_threads() > 1 else None
        fastest = seconds({"matmul": lambda a=a: a @ a, **calls})
        rate = 2 * 2048**3 / fastest.pop("matmul")
        part = H * T * flops(operator, T) / fastest["chunk"] / rate
        row = {"operator": operator, "T": T, "message": message, **fastest}
        rows.append({**row, "of_matmul_rate": part})
    return rows


@torch.no_grad()
def profile(operator: str) -> dict[str, float]:
    """The part of the chunk form's time that each kind of operators takes (`torch.profiler`)."""
    call = variants(operator)["chunk"]
    inputs = arguments(operator, *(torch.randn(1, PROFILED, H, D) for _ in range(3)))
    call(*inputs)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(CALLS):
            call(*inputs)
    spent = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in profiler.key_averages():
        kind = next((k for k, names in KINDS.items() if event.key.startswith(names)), "other")
        spent[kind] += event.self_cpu_time_total
    return {kind: time / sum(spent.values()) for kind, time in spent.items()}


def training_memory(operator: str, backend: str, T: int) -> int:
    """Bytes by which forward and backward raise the peak memory of a process of their own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (operator, backend, T))


def _peak(operator: str, backend: str, T: int) -> int:
    inputs = arguments(operator, *(torch.randn(1, T, H, D) for _ in range(3)))
    return raised_peak(lambda: train(operator, backend, inputs))


def raised_peak(call: Callable[[], object]) -> int:
    """Bytes by which a call raises this process's memory at its peak (on Linux)."""
    # Not getrusage: what a process inherits there is the peak of the one that started it.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(what: str) -> int:
    """Bytes of memory that this process holds (VmRSS), or has held at its peak (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if what in line)


def ratio(row: dict, name: str) -> str:
    """How many times the chunk form's time a variant takes."""
    return f"{row[name] / row['chunk']:.1f}" if name in row else ""


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """A table of names and, on the right, numbers."""
    rule = "|---|" + "---:|" * (len(head) - 1)
    first, *others = (f"| {' | '.join(cells)} |" for cells in (head, *lines))
    return "\n".join([first, rule, *others])


def table(rows: list[dict]) -> str:
    """Times of the chunk forms, and those of the others as multiples, in Markdown."""
    lines = []
    for row in rows:
        chunk, part = f"{1e3 * row['chunk']:.1f}", f"{row['of_matmul_rate']:.0%}"
        others = (ratio(row, x) for x in OTHERS)
        lines.append([f"`{row['operator']}`", f"{row['T']:,}", chunk, *others, part])
    return markdown(["operator", "T", "ms", *OTHERS, "of the matmul rate"], lines)


def profiles(parts: dict[str, dict[str, float]]) -> str:
    """Where the time goes, in Markdown."""
    kinds = [*KINDS, "other"]
    lines = [[f"`{name}`", *(f"{spent[x]:.0%}" for x in kinds)] for name, spent in parts.items()]
    return markdown([f"at T = {PROFILED:,}, part of the time", *kinds], lines)


def show(rows: list[dict], memory: dict[str, dict[str, int]]) -> None:
    """Print the table, how times grow with T, and what training takes."""
    print(table(rows))
    if messages := [1e9 * row["message"] for row in rows if row["message"]]:
        print(f"a message between two cores took {min(messages):.0f} to {max(messages):.0f} ns")
    for operator, (*_, few, many) in LENGTHS.items():
        at = {row["T"]: row for row in rows if row["operator"] == operator}
        longer = {form: at[many][form] / at[few][form] for form in ("chunk", "training")}
        chunk, recurrent = (memory[operator][form] for form in ("chunk", "recurrent"))
        print(
            f"{operator}: {many} tokens take {longer['chunk']:.2f} × as long as {few}, training "
            f"{longer['training']:.2f} ×; peak memory of it at T = 1024: "
            f"{chunk / MEGABYTE:.0f} MB, recurrent form {recurrent / MEGABYTE:.0f} MB "
            f"({recurrent / chunk:.0f}×)"
        )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", action="store_true", help=f"write {STORED.name}")
    store = parser.parse_args().store
    rows = [row for operator in LENGTHS for row in measure(operator)]
    memory = {
        operator: {form: training_memory(operator, form, 1024) for form in ("chunk", "recurrent")}
        for operator in LENGTHS
    }
    parts = {operator: profile(operator) for operator in LENGTHS}
    show(rows, memory)
    print(profiles(parts))
    if store:
        commit = answer("git", "rev-parse", "HEAD")
        measured = {
            "commit": commit, "seconds": rows, "training_bytes": memory, "profile": parts,
        }  # fmt: skip
        stored = {**provenance("python -m benchmarks.cpu --store"), **measured}
        text = with_table(README.read_text(), table(rows))
        README.write_text(with_table(text, profiles(parts)))
        STORED.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
