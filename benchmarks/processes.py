"""Commands in processes of their own, where what crashes or hangs harms nothing else."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORKERS = max(1, (os.cpu_count() or 1) - 2)
# Many run side by side, each with one thread.
ALONE = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
# Tests that compile for other GPUs than the one that is there, and so run without the interpreter.
AHEAD_OF_TIME = ("tests/kernels/test_resources.py", "tests/kernels/test_ptx.py")
# How pytest reports a test, with and without its plugin xdist.
OUTCOME = re.compile(r"(?:\[gw\d+\] \[ *\d+%\] ([A-Z]+) )?(\S+\.py::\S+)(?: ([A-Z]+))?")


def within(command: list[str], seconds: float, log: Path, **environment: str) -> int | None:
    """Run a command, its output into a log; its exit code, or None when its time ran out."""
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT,
            env={**os.environ, **ALONE, **environment}, start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return None
        finally:  # also where it is interrupted: the session of its own does not hear of it
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def run_tests(seconds: float, log: Path, *chosen: str) -> dict[str, Any]:
    """Run the tests of the kernels, in parallel, and count outcomes as far as they got."""
    command = [
        sys.executable, "-m", "pytest", *(chosen or ("tests/kernels",)), "-v", "--tb=short", "-rN",
        *(f"--ignore={file}" for file in AHEAD_OF_TIME),
        *(("-n", str(WORKERS)) if importlib.util.find_spec("xdist") else ()),
    ]  # fmt: skip
    start = time.monotonic()
    code = within(command, seconds, log)
    counts = outcomes(log.read_text())
    return {"exit_code": code, "seconds": round(time.monotonic() - start, 1), **counts}


def outcomes(log: str) -> dict[str, Any]:
    """How many tests ended how, from pytest's log, which may break off anywhere."""
    found = {}
    for line in log.splitlines():
        if match := OUTCOME.match(line):
            before, test, after = match.groups()
            if before or after:
                found[test] = (before or after).lower()
    there = re.search(r"(\d+) items?\b", log)
    return {
        **{x: list(found.values()).count(x) for x in ("passed", "failed", "error", "skipped")},
        "not_run": int(there[1]) - len(found) if there else None,
        "failures": sorted(test for test, x in found.items() if x in ("failed", "error")),
    }


def answer(*command: str) -> str | None:
    """What a command prints, None where there is no such command or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
