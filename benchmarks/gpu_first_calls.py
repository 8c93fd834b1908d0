"""The first call of everything that is to be compiled, each in a process of its own.

    python -m benchmarks.gpu_first_calls KEY     # one of them, in this process

What crashes or takes too long does so there, side by side with the others, and its rows are not
measured.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_cases import Case, Todo, forward_backward, implementations, inputs
from benchmarks.gpu_timing import forward, says
from benchmarks.processes import WORKERS, within


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
    """What each `key` of all that is to be measured took, or why it will not be."""
    deadline = time.monotonic() + seconds
    keys = compiled_first(todo)

    def one(numbered: tuple[int, str]) -> dict[str, Any]:
        log = logs / f"first_call_{numbered[0]}.log"
        command = [sys.executable, "-m", "benchmarks.gpu_first_calls", numbered[1]]
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


if __name__ == "__main__":
    try:
        took = first_call(sys.argv[1])
    except Exception as error:
        traceback.print_exc()  # whose last line may be advice that PyTorch adds
        took = {"failed": f"first call: {says(error)}"}
    print("first call:", json.dumps(took))
