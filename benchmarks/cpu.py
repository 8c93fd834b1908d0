"""How fast linear attention is on this CPU, as ratios within one run.

    python benchmarks/cpu.py            # print the table
    python benchmarks/cpu.py --store    # and store it, with where it was measured

B = 1, H = 8, K = V = 64, float32, causal. Each time is the median over calls that take turns
through several sets of inputs, so that no length finds its inputs in the cache by luck.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, scaled_dot_product_attention
from tqdm import tqdm

from assocmem import ops
from assocmem.ops.chunks import CHUNK

STORED = Path(__file__).parent / "results" / "cpu.json"
LENGTHS = (1024, 2048, 4096, 16384)
H, D = 8, 64
BYTES_IN_TURN = 400 * 2**20  # more than a last-level cache holds
CALLS = {"recurrent": 3, "attention": 3}  # slow ones; 15 for the others


def chunk(q: Tensor, k: Tensor, v: Tensor) -> None:
    """The chunk form without a decay."""
    ops.linear_attention(q, k, v, backend="chunk")


def chunk_head(q: Tensor, k: Tensor, v: Tensor) -> None:
    """The chunk form with a decay a head."""
    ops.linear_attention(q, k, v, logsigmoid(q[..., 0]), backend="chunk")


def chunk_channel(q: Tensor, k: Tensor, v: Tensor) -> None:
    """The chunk form with a decay a channel."""
    ops.linear_attention(q, k, v, logsigmoid(q), backend="chunk")


def recurrent(q: Tensor, k: Tensor, v: Tensor) -> None:
    """The recurrent form without a decay."""
    ops.linear_attention(q, k, v, backend="recurrent")


def attention(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Softmax attention by PyTorch."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scaled_dot_product_attention(q, k, v, is_causal=True)


OPERATORS: tuple[Callable[..., None], ...] = (
    chunk, chunk_head, chunk_channel, recurrent, attention,
)  # fmt: skip


def seconds(call: Callable[[], object], calls: int) -> float:
    """Median time of a call, after one to warm up."""
    call()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matmul_rate() -> float:
    """FLOP a second of a large float32 matrix product on this machine."""
    a = torch.randn(2048, 2048)
    return 2 * 2048**3 / seconds(lambda: a @ a, 15)


def flops(T: int) -> int:
    """Of the chunk form without a decay: 4 K V + 2 C (K + V) a token and head."""
    return H * T * (4 * D * D + 4 * CHUNK * D)


@torch.no_grad()
def measure() -> list[dict]:
    """One row a length."""
    rows = []
    for T in LENGTHS:
        generator = torch.Generator().manual_seed(T)
        sets = [
            [torch.randn(1, T, H, D, generator=generator) for _ in range(3)]
            for _ in range(max(2, BYTES_IN_TURN // (12 * T * H * D)))
        ]
        row: dict = {"T": T}
        for operator in tqdm(OPERATORS, desc=f"T = {T}", unit="operator"):
            turn = itertools.cycle(sets)
            row[operator.__name__] = seconds(
                lambda operator=operator, turn=turn: operator(*next(turn)),
                CALLS.get(operator.__name__, 15),
            )
        row["of_matmul_rate"] = flops(T) / row["chunk"] / matmul_rate()
        rows.append(row)
    return rows


def show(rows: list[dict]) -> None:
    """Print the ratios."""
    print("     T  chunk ms  recurrent  attention  head decay  channel decay  of matmul rate")
    for row in rows:
        ratios = "".join(
            f"{row[name] / row['chunk']:{width}.1f}×"
            for name, width in (
                ("recurrent", 10), ("attention", 10), ("chunk_head", 11), ("chunk_channel", 14),
            )
        )  # fmt: skip
        print(f"{row['T']:6d}{1e3 * row['chunk']:10.2f}{ratios}{row['of_matmul_rate']:15.0%}")
    time_at = {row["T"]: row["chunk"] for row in rows}
    print(f"from 4096 to 16384 tokens: {time_at[16384] / time_at[4096] / 4:.2f} × linear growth")


def provenance() -> dict:
    """Where and how the figures came about."""
    model = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    return {
        "command": "python benchmarks/cpu.py --store",
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "cpu": model[0].partition(":")[2].strip() if model else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", action="store_true", help=f"write {STORED.name}")
    store = parser.parse_args().store
    rows = measure()
    show(rows)
    if store:
        STORED.write_text(json.dumps({**provenance(), "seconds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
