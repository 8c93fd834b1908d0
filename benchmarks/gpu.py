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
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from functools import partial
from multiprocessing.connection import Connection
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
import triton

from assocmem.book.recorded import gpu_name, provenance
from benchmarks.gpu_cases import (
    DTYPE,
    OPERATORS,
    Case,
    Todo,
    cases,
    floors,
    implementations,
    inputs,
    planned,
    reference,
    version_of_fla,
)
from benchmarks.gpu_first_calls import first_calls, key
from benchmarks.gpu_timing import forward, measure, replayed, says
from benchmarks.processes import answer, run_tests

RESULTS = Path(__file__).parent / "results"
SHORT = 1  # milliseconds below which the launches may take longer than the kernels
PREPARED = 0.5  # of all the time is for tests and first calls: not enough for all of fla's
PATIENCE = 120  # seconds after which a row is taken to hang;
LATE = 40  # or this many seconds after the deadline
CONTEXT: Any = multiprocessing.get_context("spawn")  # as CUDA does not survive a fork


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


def heard(pipe: Connection, deadline: float) -> dict[str, Any] | None:
    """What a process sends next; EOFError where it has ended, TimeoutError where it is silent."""
    patience = min(PATIENCE, deadline + LATE - time.monotonic())
    if not pipe.poll(max(patience, 0)):
        raise TimeoutError
    return pipe.recv()


def isolated(
    todo: Todo, first: dict[str, dict[str, Any]], gpu: str, deadline: float
) -> Iterator[dict[str, Any]]:
    """The rows of `benchmark` from a process of its own, and from another where one is lost."""
    while todo and time.monotonic() < deadline:
        here, there = CONTEXT.Pipe(duplex=False)
        arguments = (there, todo, first, gpu, deadline)
        process = CONTEXT.Process(target=send_rows, args=arguments, daemon=True)
        process.start()
        there.close()
        lost = ""
        try:
            for row in iter(partial(heard, here, deadline), None):
                todo = todo[1:]
                yield row
        except EOFError:
            lost = "crashed"
        except TimeoutError:
            lost = "hung"
        process.kill()
        process.join()
        if lost and todo:
            (case, name), *todo = todo
            yield {**asdict(case), "implementation": name, "failed": f"its process {lost}"}
    yield from benchmark(todo, first, gpu, deadline)  # none is measured any more: all are skipped


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
    arguments = parser.parse_args()
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
