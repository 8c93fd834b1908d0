"""The kernels on this machine's GPU: their tests, then their speed, beside fla and PyTorch.

    make gpu                                  # everything, in less than ten minutes
    make gpu ARGS="--no-tests delta_rule"     # the rows of some operators, with all of the time

Writes `gpu_<device>.json`, or `gpu_<device>_<operators>.json`, and the tests' log beside it,
into the folder $OUT where that is set, else into `results/`. `benchmarks/gpu_report.py` makes
tables and figures of it.

Times are medians over CUDA events (`triton.testing.do_bench`, which clears the L2 cache before each
call), a short forward pass is replayed as a graph as well. Inputs are random bfloat16, β and log
decays float32. Beside each time stands the error against the chunk form in float64, for the last
heads of the last sequence, and the floor, which no kernel can pass. fla is timed where its wheel
`fla-core` is installed. What failed or found no time stays in the table, and says so. Tests and
first calls run side by side, in processes of their own; the rows one after the other, in a process
that is replaced where a row has crashed it, hung, or left an error of CUDA behind.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from functools import partial
from multiprocessing.connection import Connection
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton import testing

from assocmem.book.recorded import gpu_name, provenance
from benchmarks.gpu_cases import (
    DTYPE,
    OPERATORS,
    Case,
    cases,
    floors,
    forward_backward,
    implementations,
    inputs,
    reference,
    relative_error,
    version_of_fla,
)
from benchmarks.processes import WORKERS, answer, run_tests, within

RESULTS = Path(__file__).parent / "results"
SLOW = 200  # milliseconds from which on one call is all that is timed
CALLS = 5  # at least, below that
SHORT = 1  # milliseconds below which the launches may take longer than the kernels
PREPARED = 0.5  # of all the time is for tests and first calls: not enough for all of fla's
PATIENCE = 120  # seconds after which a row is taken to hang
CONTEXT: Any = multiprocessing.get_context("spawn")  # as CUDA does not survive a fork

Todo = list[tuple[Case, str]]  # cases, and the implementations that compute them


def samples(call: Callable[[], object]) -> list[float]:
    """Milliseconds of each timed call."""
    call()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    once = start.elapsed_time(end)
    if once > SLOW:
        return [once]
    milliseconds = max(60, CALLS * once)
    return testing.do_bench(call, warmup=10, rep=milliseconds, return_mode="all")  # pyright: ignore


def replayed(call: Callable[[], object]) -> float:
    """Milliseconds of a call within a CUDA graph, where nothing waits for Python."""
    return testing.do_bench_cudagraph(call, return_mode="median")  # pyright: ignore


def peak_bytes(call: Callable[[], object]) -> int:
    """GPU memory that a call takes at its peak, beyond what its inputs hold."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@torch.no_grad()
def forward(form: Callable[..., Tensor], x: dict[str, Tensor]) -> Tensor:
    """The output alone, nothing kept for gradients."""
    return form(**x)


def measure(
    form: Callable[..., Tensor],
    x: dict[str, Tensor],
    do: Tensor,
    expected: dict[str, Tensor] | None,
    floor: dict[str, float | None],
) -> dict[str, Any]:
    """Time and memory of both passes, errors, and what a second call gives in other bits.

    Where the backward pass fails, as fla's do that some versions of Triton compile wrongly, the
    forward pass still counts. PyTorch's attention sums some of its gradients in no fixed order,
    DeltaFormer's reading too.
    """
    alone = partial(forward, form, x)
    both: Callable[[], dict[str, Tensor]] = partial(forward_backward, form, x, do)
    row: dict[str, Any] = {"forward": timed(alone, floor["forward"])}
    try:
        row["forward+backward"] = timed(both, floor["forward+backward"])
    except Exception as error:
        row["backward_failed"] = says(error)

        def both() -> dict[str, Tensor]:
            return {"o": alone()}

    got, again = both(), both()
    row["errors"] = expected and {n: relative_error(y, expected[n]) for n, y in got.items()}
    row["other_bits"] = [n for n, y in got.items() if not torch.equal(y, again[n])]
    return row


def timed(call: Callable[[], object], floor: float | None) -> dict[str, Any]:
    """Time and memory of a call, beside the least time that it could take."""
    times = samples(call)
    middle = statistics.median(times)
    return {
        "ms": middle,
        "floor_ms": floor,
        "over_floor": floor and middle / floor,
        "peak_bytes": peak_bytes(call),
        "samples": [float(f"{t:.4g}") for t in times],
    }


def says(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0][:300]


def planned(selected: list[Case]) -> Todo:
    """All that is to be measured."""
    return [(case, name) for case in selected for name in implementations(case)]


def benchmark(
    todo: Todo, first: dict[str, dict[str, Any]], gpu: str, deadline: float
) -> Iterator[dict[str, Any]]:
    """A row for each case and implementation: measured, failed or skipped, and why."""
    for case, group in itertools.groupby(todo, itemgetter(0)):
        x, do, expected, floor, problem = {}, torch.empty(0), None, {}, None
        if time.monotonic() < deadline:
            try:
                torch.cuda.empty_cache()
                x, do = inputs(case)
                expected, floor = reference(case, x, do), floors(case, x, do, gpu)
            except Exception as error:
                problem = {"failed": f"inputs or reference: {says(error)}"}
        for _, name in group:
            form = implementations(case)[name]
            start, begun = time.monotonic(), first.get(key(case, name), {"first_call_s": None})
            row = {**asdict(case), "implementation": name}
            if start >= deadline:
                yield {**row, "skipped": "no time was left"}
            elif problem or "first_call_s" not in begun:
                yield {**row, **(problem or begun)}
            else:
                try:
                    row |= begun | measure(form, x, do, expected, floor)
                except Exception as error:
                    row["failed"] = says(error)
                yield {**row, "seconds": round(time.monotonic() - start, 2)}
        del x, do, expected


def usable() -> bool:
    """Whether no error of CUDA is left over, which would fail every later call."""
    try:
        torch.cuda.synchronize()
    except Exception:
        return False
    return True


def send_rows(pipe: Connection, *arguments: Any) -> None:
    """Send the rows of `benchmark`, up to one that leaves the GPU unusable here, and then None."""
    for row in benchmark(*arguments):
        pipe.send(row)
        if "failed" in row and not usable():
            break
    pipe.send(None)


def heard(pipe: Connection) -> dict[str, Any] | None:
    """What a process sends next; EOFError where it has ended, TimeoutError where it is silent."""
    if not pipe.poll(PATIENCE):
        raise TimeoutError
    return pipe.recv()


def isolated(
    todo: Todo, first: dict[str, dict[str, Any]], gpu: str, deadline: float
) -> Iterator[dict[str, Any]]:
    """The rows of `benchmark` from a process of its own, and from another where one is lost."""
    while todo:
        here, there = CONTEXT.Pipe(duplex=False)
        arguments = (there, todo, first, gpu, deadline)
        process = CONTEXT.Process(target=send_rows, args=arguments, daemon=True)
        process.start()
        there.close()
        lost = ""
        try:
            for row in iter(partial(heard, here), None):
                todo = todo[1:]
                yield row
        except EOFError:
            lost = "crashed"
        except TimeoutError:
            lost = f"took more than {PATIENCE} s"
        process.kill()
        process.join()
        if lost and todo:
            (case, name), *todo = todo
            yield {**asdict(case), "implementation": name, "failed": f"its process {lost}"}


def replay(rows: list[dict[str, Any]], deadline: float) -> None:
    """Add the time in a graph to short forward passes. Last: a capture that fails may harm more."""
    for row in rows:
        if "forward" in row and row["forward"]["ms"] < SHORT and time.monotonic() < deadline:
            case = Case(*(row[field.name] for field in fields(Case)))
            form = implementations(case)[row["implementation"]]
            try:
                row["forward"]["graph_ms"] = replayed(partial(forward, form, inputs(case)[0]))
            except Exception as error:
                row["forward"]["graph_failed"] = says(error)


def key(case: Case, name: str) -> str:
    """What is compiled once: everything but batch and length."""
    return json.dumps([asdict(replace(case, B=1, T=1024)), name])


def first_call(compiled: str) -> dict[str, Any]:
    """Seconds of the first forward and backward pass of this process, for a `key`."""
    of_case, name = json.loads(compiled)
    case = Case(**of_case)
    x, do = inputs(case)
    if name == "fla":
        importlib.import_module("fla.ops")  # takes seconds, which are not the call's
    form, row = implementations(case)[name], {}
    torch.cuda.synchronize()
    start = time.monotonic()
    forward(form, x)
    try:
        forward_backward(form, x, do)
    except Exception as error:
        row["backward_failed"] = says(error)
    torch.cuda.synchronize()
    return {"first_call_s": time.monotonic() - start, **row}


def compiled_first(todo: Todo) -> list[str]:
    """What is compiled, in the order in which it begins: all of the first shape, ours, fla's."""

    def turn(one: tuple[Case, str]) -> tuple[bool, bool]:
        case, name = one
        start = todo[0][0]
        return (case.H, case.D) != (start.H, start.D), name == "fla"

    return list(dict.fromkeys(key(*one) for one in sorted(todo, key=turn)))


def first_calls(todo: Todo, seconds: float, logs: Path) -> dict[str, dict[str, Any]]:
    """The first call of all that is to be compiled, each in a process of its own, side by side.

    What crashes or takes too long does so there, and its rows are not measured.
    """
    deadline = time.monotonic() + seconds
    keys = compiled_first(todo)

    def one(numbered: tuple[int, str]) -> dict[str, Any]:
        log = logs / f"first_call_{numbered[0]}.log"
        command = [sys.executable, "-m", "benchmarks.gpu", "--first-call", numbered[1]]
        # Nothing is compiled yet; and which of its configurations is best fla must find out again
        # when nothing else runs.
        alone = {"TRITON_CACHE_DIR": str(logs), "FLA_CACHE_RESULTS": "0"}
        code = within(command, deadline - time.monotonic(), log, **alone)
        if code is None:
            return {"skipped": f"its first call did not end within {seconds:.0f} s"}
        text = log.read_text().strip()
        if code == 0 and (took := re.search(r"^first call: (.*)$", text, re.M)):
            return json.loads(took[1])
        return {"failed": f"first call: {text.rpartition(chr(10))[2][:300]}"}

    with ThreadPoolExecutor(WORKERS) as pool:
        return dict(zip(keys, pool.map(one, enumerate(keys)), strict=True))


def save(path: Path, result: dict[str, Any]) -> None:
    """Write a result, one row a line, so that a run that is killed keeps what it had."""
    head = [f"{json.dumps(name)}: {json.dumps(x)}" for name, x in result.items() if name != "rows"]
    rows = ",\n".join(json.dumps(row) for row in result["rows"])
    unfinished = path.with_suffix(".part")
    unfinished.write_text("{\n" + ",\n".join([*head, f'"rows": [\n{rows}\n]']) + "\n}\n")
    unfinished.replace(path)


def line(row: dict[str, Any]) -> str:
    """A row as the log shows it."""
    shape = "×".join(str(row[name]) for name in "BTHD")
    name = f"{row['operator']:18}{row['gate']:8}{shape:16}{row['implementation']:9}"
    if "forward" not in row:
        return name + next(f"{why}: {row[why]}" for why in ("failed", "skipped") if why in row)
    passes = (row[what] for what in ("forward", "forward+backward") if what in row)
    times = "  ".join(
        f"{x['ms']:9.3f} ms" + (f" ({x['over_floor']:5.1f}× floor)" if x["over_floor"] else "")
        for x in passes
    )
    if "backward_failed" in row:
        times += f"  backward: {row['backward_failed']}"
    error = f"{max(row['errors'].values()):.1e}" if row["errors"] else "not known"
    return f"{name}{times}  error {error}  other bits: {', '.join(row['other_bits']) or 'none'}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("operators", nargs="*", metavar="operator", help=f"of {OPERATORS}; all")
    parser.add_argument("--no-tests", action="store_true", help="leave the tests out")
    parser.add_argument("--seconds", type=float, default=500, help="for everything (500)")
    parser.add_argument("--first-call", metavar="KEY", help="what this script calls itself with")
    arguments = parser.parse_args()
    if arguments.first_call:
        print("first call:", json.dumps(first_call(arguments.first_call)))
        return
    if unknown := set(arguments.operators) - set(OPERATORS):
        parser.error(f"operators must be of {OPERATORS}, got {sorted(unknown)}")
    if not torch.cuda.is_available():
        sys.exit("no GPU: torch.cuda.is_available() is False, and nothing can be measured here")

    deadline = time.monotonic() + arguments.seconds
    gpu, folder = torch.cuda.get_device_name(), Path(os.environ.get("OUT") or RESULTS)
    path = folder / ("_".join([gpu_name(gpu), *arguments.operators]) + ".json")
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        **provenance("make gpu" + f" ARGS={' '.join(sys.argv[1:])!r}" * (len(sys.argv) > 1)),
        "gpu": gpu,
        "driver": answer("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "fla": version_of_fla(),
        "commit": answer("git", "rev-parse", "HEAD"),
        "changed": answer("git", "status", "--porcelain"),
        "dtype": str(DTYPE).removeprefix("torch."),
        "tests": None,
        "rows": [],
    }  # fmt: skip
    print(json.dumps(result, indent=1), flush=True)
    selected = planned([c for c in cases() if c.operator in (arguments.operators or OPERATORS)])
    prepared = PREPARED * arguments.seconds
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cold,
        ThreadPoolExecutor(1) as aside,
    ):
        log = path.with_suffix(".log")
        running = None if arguments.no_tests else aside.submit(run_tests, prepared, log)
        first = first_calls(selected, prepared, Path(cold))
        result["tests"] = running and running.result()
        print("tests:", json.dumps(result["tests"], indent=1), flush=True)
        save(path, result)
        os.environ["TRITON_CACHE_DIR"] = cold
        for row in isolated(selected, first, gpu, deadline):
            result["rows"].append(row)
            print(line(row), flush=True)
            save(path, result)
        replay(result["rows"], deadline)
    save(path, result)
    print(f"written: {path}")
    tests = result["tests"] or {"exit_code": 0}
    ours = (row for row in result["rows"] if row["implementation"] == "assocmem")
    failed = [row for row in ours if {"failed", "backward_failed"} & row.keys()]
    sys.exit(f"tests or {len(failed)} rows failed" if tests["exit_code"] != 0 or failed else 0)


if __name__ == "__main__":
    main()
