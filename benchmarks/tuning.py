"""Which launches of an operator's kernels are fastest on this GPU: rows for `launch.py`.

    python -m benchmarks.tuning delta_rule head          # in bfloat16, with heads of 128
    python -m benchmarks.tuning delta_rule head --D 64 --seconds 500

Every launch of a grid is given to all kernels of the operator at once; tokens a chunk stay what
they are. First both passes run small, side by side, each in a process of its own, to compile; then
at the shape that others have published, one after the other, in a process that is replaced where a
launch has ended it. A launch that gives other numbers than the present one counts for none. The
fastest of each kernel is printed as a row of `launch.py`, beside its time and that of the present
launch. All times go into `tuning_gpu_<device>_<operator>_<gate>_<D>.json`, in the folder $OUT where
that is set, else in `results/`.

A grid of launches compiled ahead of time, by what the compiler says of them: `resources.py`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from assocmem_kernels import launch
from torch.profiler import ProfilerActivity, profile

from assocmem.book.recorded import gpu_name, provenance
from benchmarks.gpu import RESULTS
from benchmarks.gpu_cases import (
    DEVICE,
    PUBLISHED,
    Case,
    forward_backward,
    implementations,
    inputs,
    part,
    relative_error,
)
from benchmarks.gpu_timing import says
from benchmarks.processes import WORKERS, within
from benchmarks.resources import KERNELS

Launch = tuple[int, int, int]  # columns of a tile, warps, pipeline stages
GRID: tuple[Launch, ...] = tuple(itertools.product((64, 32, 128, 16), (4, 2, 8, 1), (3, 2, 1)))
PRESENT = -1  # the number of what `launch.py` has, beside those of the grid
FILES = {  # of the kernels
    "linear_attention": {"linear_attention", "linear_attention_backward"},
    "delta_rule": {"triangles", "delta_rule_forward", "delta_rule_backward"},
    "deltaformer": {"erase", "deltaformer", "deltaformer_backward"},
}
KINDS = {"none": "half", "head": "half, head", "channel": "half, channel"}
SAME = 0.01  # relative difference of outputs and gradients that an order of sums explains
CALLS = 3
COMPILED = 0.6  # of the time, at most


def kernels(operator: str, gate: str) -> list[str]:
    """What an operator launches for a sequence of many tokens."""
    files = FILES[operator] | ({"channel_decay"} if gate == "channel" else set())
    return [name for name, file in KERNELS.items() if file.__name__.rpartition(".")[2] in files]


@contextmanager
def launched(names: list[str], number: int) -> Iterator[None]:
    """Give kernels a launch of the grid, by its number, or leave them the present one."""
    present = launch.listed

    def listed(kernel: str, *rest: Any) -> launch.Config:
        cfg = present(kernel, *rest)
        if number == PRESENT or kernel not in names:
            return cfg
        columns, warps, stages = GRID[number]
        return replace(cfg, BV=columns, num_warps=warps, num_stages=stages)

    launch.listed = listed
    try:
        yield
    finally:
        launch.listed = present


def effective(kernel: str, gate: str, arch: str, number: int) -> launch.Config:
    """How a kernel is launched when given a launch of the grid, of which `launch.py` may differ."""
    with launched([kernel], number):
        return launch.config(kernel, arch, torch.bfloat16, list(KINDS).index(gate))


def distinct(operator: str, gate: str, arch: str) -> list[int]:
    """The launches, of those that come to the same for every kernel of an operator the first."""
    numbers: dict[tuple[launch.Config, ...], int] = {}
    for number in (PRESENT, *range(len(GRID))):
        names = kernels(operator, gate)
        numbers.setdefault(tuple(effective(x, gate, arch, number) for x in names), number)
    return list(numbers.values())


def microseconds(call: Callable[[], object]) -> dict[str, float]:
    """Time of each of our kernels in a call, on a GPU."""
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(CALLS):
            call()
        torch.cuda.synchronize()
    events = {event.key: event for event in seen.key_averages()}
    return {x: events[x].device_time_total / CALLS for x in KERNELS if x in events}


def measure(case: Case, numbers: list[int]) -> Iterator[dict[str, Any]]:
    """A row for each launch: the time of every kernel, and how far its results are from ours."""
    x, do = inputs(case)
    call = partial(forward_backward, implementations(case)["assocmem"], x, do)
    names = kernels(case.operator, case.gate)
    expected = {name: part(y).double() for name, y in call().items()}
    for number in numbers:
        row: dict[str, Any] = {"number": number}
        try:
            with launched(names, number):
                got = call()
                differs = max(relative_error(y, expected[n]) for n, y in got.items())
                row |= {"differs": differs, "microseconds": microseconds(call)}
        except Exception as error:
            row["failed"] = says(error)
        yield row


def fastest(rows: list[dict[str, Any]], kernel: str) -> dict[str, Any] | None:
    """The row in which a kernel took least, of those that give the same numbers."""
    there = [r for r in rows if r.get("differs", 1) <= SAME and kernel in r["microseconds"]]
    return min(there, key=lambda row: row["microseconds"][kernel], default=None)


def told(rows: list[dict[str, Any]], case: Case, arch: str) -> Iterator[str]:
    """The fastest launch of each kernel as a row of `launch.py`, with times in milliseconds."""
    present = next((row for row in rows if row["number"] == PRESENT), {}).get("microseconds", {})
    for kernel in kernels(case.operator, case.gate):
        best = fastest(rows, kernel)
        if best is None:
            continue
        chosen = astuple(effective(kernel, case.gate, arch, best["number"]))
        before = f"{present[kernel] / 1e3:.3f}" if kernel in present else "not known"
        took = f"{best['microseconds'][kernel] / 1e3:.3f} ms, present {before}"
        yield f'("{arch}", "{kernel}", "{KINDS[case.gate]}"): {chosen},  # {took}'


def compiled(command: list[str], numbers: list[int], seconds: float, logs: Path) -> list[int]:
    """The launches that run at all, each compiled and run small in a process of its own."""
    deadline = time.monotonic() + seconds

    def runs(number: int) -> bool:
        log = logs / f"compile_{number}.log"
        return within([*command, "--compile", str(number)], deadline - time.monotonic(), log) == 0

    with ThreadPoolExecutor(WORKERS) as pool:
        return [n for n, ran in zip(numbers, pool.map(runs, numbers), strict=True) if ran]


def timed(command: list[str], numbers: list[int], seconds: float, logs: Path) -> list[dict]:
    """The rows of `measure`, from a process that is replaced where a launch has ended it."""
    deadline, rows = time.monotonic() + seconds, []
    while numbers and time.monotonic() < deadline:
        log = logs / f"time_{numbers[0]}.log"
        asked = f"--time={','.join(map(str, numbers))}"  # the first is negative
        within([*command, asked], deadline - time.monotonic(), log)
        found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        rows += found
        lost = numbers[len(found) :]
        if lost and time.monotonic() < deadline:
            rows.append({"number": lost[0], "failed": "its process ended"})
        numbers = lost[1:]
    return rows


def compile_one(case: Case, number: int) -> None:
    """Run both passes small with a launch, which leaves its kernels in Triton's cache."""
    small = replace(case, B=1, T=256)
    with launched(kernels(case.operator, case.gate), number):
        forward_backward(implementations(small)["assocmem"], *inputs(small))
        torch.cuda.synchronize()


def tune(case: Case, seconds: float) -> None:
    """All launches of the grid; print the fastest, and write what was measured."""
    start = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.tuning", case.operator, case.gate]
    command += ["--D", str(case.D)]
    arch = launch.architecture(torch.empty(0, device=DEVICE))
    candidates = distinct(case.operator, case.gate, arch)
    with tempfile.TemporaryDirectory() as logs:
        numbers = compiled(command, candidates, COMPILED * seconds, Path(logs))
        rows = timed(command, numbers, seconds - (time.monotonic() - start), Path(logs))
    gpu, folder = torch.cuda.get_device_name(), Path(os.environ.get("OUT") or RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"tuning_{gpu_name(gpu)}_{case.operator}_{case.gate}_{case.D}.json"
    measured = {"gpu": gpu, "triton": triton.__version__, "grid": GRID, "rows": rows}
    asked = provenance("python -m benchmarks.tuning " + " ".join(sys.argv[1:]))
    path.write_text(json.dumps({**asked, **measured}, indent=1) + "\n")
    print(f"{len(numbers)} of {len(candidates)} launches run, {len(rows)} tried")
    for line in told(rows, case, arch):
        print(line)
    print(f"written: {path}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("operator", choices=FILES)
    parser.add_argument("gate", choices=KINDS)
    parser.add_argument("--D", type=int, default=128, choices=(64, 128), help="size of a head")
    parser.add_argument("--seconds", type=float, default=500, help="for everything (500)")
    parser.add_argument("--compile", type=int, metavar="NUMBER", help="what this calls itself with")
    parser.add_argument("--time", metavar="NUMBERS", help="what this calls itself with")
    chosen = parser.parse_args()
    if chosen.operator == "deltaformer" and chosen.gate != "none":
        parser.error("deltaformer has no decay: its gate must be none")
    if not torch.cuda.is_available():
        sys.exit("no GPU: torch.cuda.is_available() is False, and nothing can be measured here")
    case = Case(chosen.operator, chosen.gate, *PUBLISHED[:3], chosen.D)
    if chosen.compile is not None:
        compile_one(case, chosen.compile)
    elif chosen.time:
        for row in measure(case, [int(number) for number in chosen.time.split(",")]):
            print(json.dumps(row), flush=True)
    else:
        tune(case, chosen.seconds)


if __name__ == "__main__":
    main()
