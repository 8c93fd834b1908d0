"""Break the library in many ways, one at a time, and see that tests and chapters turn red.

    python -m tests.run_mutants                  all of tests/mutants.py
    python -m tests.run_mutants similarity.py    those with the word in name, file or guards

All guards run on the sound tree first, and then those of each mutant on a copy of the tree that has
it; the tree itself is never touched. A test that fails kills a mutant, and so does a chapter that
stops, mostly at a claim that does not hold: what a chapter prints is not compared. A guard that
stays green has been survived, and one that could not run has no verdict, since a test that cannot
be imported is not one that fails. Either makes the command fail. The table is _build/mutants.md.

Each guard runs in a fork of this process, which has imported torch and pytest once, and nothing of
the tree: that, a fork imports from its copy.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.processes import AHEAD_OF_TIME
from tests.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "_build" / "mutants.md"
OURS = {"assocmem", "assocmem_kernels", "benchmarks", "colab", "tests"}
SLOW_TO_IMPORT = ("hypothesis", "matplotlib.pyplot", "nbval.plugin", "scipy.stats", "torch")
WORKERS = 2
TIMEOUT = 900  # seconds for one guard
CHAPTER = ("-p", "tests.book.nbval_policy", "--nbval-lax", "--nbval-current-env")
# A test that fails so has not looked at what the library computes.
NO_FAILURE = ("ImportError", "ModuleNotFoundError", "NameError", "SyntaxError")
HEAD = ("| file | mutant | guard | verdict | s | reason |", "|---|---|---|---|---|---|")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Job:
    """A guard to run on a copy of the tree, with a mutant or sound."""

    guard: str
    mutant: Mutant | None = None


@dataclass(frozen=True)
class Row:
    """What came of running a guard: killed, survived or no verdict."""

    job: Job
    verdict: str
    seconds: float
    reason: str

    def __str__(self) -> str:
        mutant, reason = self.job.mutant, self.reason.replace("|", "\\|")
        broken = (mutant.file, mutant.what) if mutant else ("", "nothing is broken")
        cells = *broken, self.job.guard, self.verdict, f"{self.seconds:.0f}", reason
        return f"| {' | '.join(cells)} |"


class FirstFailure:
    """A plugin of pytest that keeps the first error, as one line, and whether a test raised it."""

    def __init__(self) -> None:
        self.line, self.in_a_test = "", False

    def pytest_exception_interact(
        self, node: pytest.Item | pytest.Collector, call: pytest.CallInfo
    ) -> None:
        if self.line or call.excinfo is None:
            return
        error = call.excinfo
        of_a_cell = getattr(error.value, "inner_traceback", None)  # of a notebook
        lines = COLOURS.sub("", of_a_cell or error.exconly()).strip().splitlines()
        what = lines[-1] if of_a_cell else lines[0]
        self.line = f"{node.name}: {what}"
        self.in_a_test = isinstance(node, pytest.Item) and not what.startswith(NO_FAILURE)


@cache
def files() -> list[str]:
    """All files of the tree that git has or would take."""
    git = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return list(filter(None, names.split("\0")))


def copy_of_the_tree(folder: Path, mutant: Mutant | None) -> None:
    for name in files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    if mutant:
        path = folder / mutant.file
        source = path.read_text()
        assert source.count(mutant.old) == 1, f"{mutant.file} does not have one place to break"
        path.write_text(source.replace(mutant.old, mutant.new))


def move_into(folder: Path, guard: str) -> None:
    """Make this process one that was started in a copy of the tree."""
    sources = [str(folder / part) for part in ("src", "kernels")]
    os.chdir(folder)
    sys.path[:] = [*sources, *(path for path in sys.path if path not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(sources)
    if guard.split()[0] not in AHEAD_OF_TIME:
        os.environ["TRITON_INTERPRET"] = "1"


def strangers(folder: Path) -> list[str]:
    """The modules of the tree that were not imported from its copy."""
    files = {
        name: module.__file__
        for name, module in sys.modules.items()
        if name.split(".")[0] in OURS and getattr(module, "__file__", None)
    }
    return [name for name, file in files.items() if not Path(file).is_relative_to(folder)]


def run(job: Job, folder: Path) -> tuple[str, str]:
    """A guard's verdict and its reason; what pytest says goes to a file in `folder`."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    copy_of_the_tree(folder, job.mutant)
    move_into(folder, job.guard)
    first = FirstFailure()
    command = ["-q", "-x", "-p", "no:cacheprovider", *job.guard.split()]
    code = pytest.main([*command, *(CHAPTER if ".ipynb" in job.guard else ())], plugins=[first])
    if strange := strangers(folder):
        return "no verdict", f"not of the copy: {', '.join(strange)}"
    if code == pytest.ExitCode.OK:
        return "survived", ""
    return ("killed" if first.in_a_test else "no verdict"), first.line or repr(code)


def fork(job: Job, folder: Path) -> int:
    """The id of a process that runs a guard and leaves verdict and reason in `folder`."""
    if pid := os.fork():
        return pid
    signal.alarm(TIMEOUT)  # ends the process
    try:
        answer = run(job, folder)
    except BaseException as error:
        answer = "no verdict", repr(error)
    (folder / "answer").write_text("\n".join(answer))
    os._exit(0)


def rows(jobs: Iterable[Job]) -> Iterator[Row]:
    """Run guards, as many at a time as there are workers, and yield what came of each."""
    waiting, running = iter(jobs), {}
    while True:
        for job in islice(waiting, WORKERS - len(running)):
            folder = tempfile.TemporaryDirectory()
            running[fork(job, Path(folder.name).resolve())] = job, folder, time.perf_counter()
        if not running:
            return
        pid, status = os.wait()
        job, folder, start = running.pop(pid)
        with folder as name:
            answer = Path(name) / "answer"
            verdict, reason = (
                answer.read_text().split("\n", 1)
                if status == 0
                else ("no verdict", f"ended by signal {status} (14: after {TIMEOUT} s)")
            )
        yield Row(job, verdict, time.perf_counter() - start, reason.replace(name, ""))


def run_all(jobs: Iterable[Job]) -> list[Row]:
    done = []
    for row in rows(jobs):
        print(row, flush=True)
        done.append(row)
    return done


def main(words: list[str]) -> int:
    chosen = [
        m
        for m in MUTANTS
        if not words or any(word in " ".join((m.what, m.file, *m.guards)) for word in words)
    ]
    if not chosen:
        print(f"no mutant has any of the words {words} in its name, file or guards")
        return 1
    guards = sorted({guard for mutant in chosen for guard in mutant.guards})
    print(f"{len(chosen)} mutants, {len(guards)} guards; first, all guards on the sound tree")
    files()  # once, and not in every fork
    for module in SLOW_TO_IMPORT:
        importlib.import_module(module)
    start = time.perf_counter()
    if any(row.verdict != "survived" for row in run_all(Job(guard) for guard in guards)):
        print("a guard that is red before anything is broken says nothing")
        return 1
    table = run_all(Job(guard, mutant) for mutant in chosen for guard in mutant.guards)
    counts, minutes = Counter(row.verdict for row in table), (time.perf_counter() - start) / 60
    summary = ", ".join(f"{name} {counts[name]}" for name in ("killed", "survived", "no verdict"))
    summary = f"{summary}, of {len(table)} pairs of a mutant and a guard; {minutes:.0f} minutes"
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join((*HEAD, *map(str, table), "", summary, "")))
    print(f"{summary}\n{REPORT}")
    return 0 if counts["killed"] == len(table) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", help="in a mutant's name, file or guards; all mutants")
    sys.exit(main(parser.parse_args().words))
