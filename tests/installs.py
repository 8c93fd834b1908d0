"""Install the library's wheel beside other versions of torch, without Triton, and test it there.

    python -m tests.installs                 every version of torch in VERSIONS
    python -m tests.installs 2.6.0 2.14.1    these

Each version gets an environment of its own (in .venv/installs, where it is found again), with the
oldest NumPy and tqdm that pyproject.toml allows where torch is the oldest, too. The wheel is
installed there with `--no-deps`, Triton is not installed or taken away, and the tests run from a
folder that has no source of the library. It downloads torch, and so is no part of `make test`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.wheel import ROOT, wheel

ENVIRONMENTS = ROOT / ".venv" / "installs"
OLDEST = {"torch": "2.6.0", "numpy": "1.26.4", "tqdm": "4.60.0"}  # pyproject.toml's lower bounds
VERSIONS = (OLDEST["torch"], "2.13.0", "2.14.1")
SELECTION = (
    "tests/ops",
    "tests/nn",
    "tests/test_constructions.py",
    "tests/test_hopfield.py",
    "tests/test_memory.py",
    "tests/test_rules.py",
    "tests/test_similarity.py",
    "tests/test_tasks.py",
    "tests/test_train.py",
    "examples/hybrid",
    "examples/one_import",
)
IMPORT = """
import sys, time
import torch
start = time.perf_counter()
import assocmem
seconds = time.perf_counter() - start
assert assocmem.__file__.startswith(sys.prefix), assocmem.__file__
assert not {"triton", "torch._dynamo"} & sys.modules.keys()
from assocmem import ops
assert ops.backend_for(torch.zeros(1, 8, 2, 16)) == "chunk"
try:
    ops.linear_attention(*[torch.zeros(1, 8, 2, 16)] * 3, backend="triton")
except RuntimeError as error:
    assert "triton is not installed" in str(error), error
import numpy
assert seconds < 1, seconds
print(sys.version.split()[0], torch.__version__, numpy.__version__, f"{seconds:.2f}")
"""


def run(*command: object, folder: Path) -> str:
    """What a command prints; its whole output when it fails."""
    done = subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def environment(version: str) -> Path:
    """The Python of an environment with a version of torch, and what the tests need."""
    folder = ENVIRONMENTS / f"torch-{version}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        old = [f"{name}=={OLDEST[name]}" for name in ("numpy", "tqdm")]
        packages = old if version == OLDEST["torch"] else ["numpy", "tqdm"]
        install = (python, "-m", "pip", "install", "-q", f"torch=={version}")
        run(*install, *packages, "pytest", "hypothesis", folder=folder)
        (folder / "ready").touch()
    return python


def row(version: str) -> tuple[str, int]:
    """A line of the table, and how many tests failed."""
    python = environment(version)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        built = wheel(folder)
        run(python, "-m", "pip", "uninstall", "-q", "-y", "triton", "assocmem", folder=folder)
        run(python, "-m", "pip", "install", "-q", "--no-deps", built, folder=folder)
        found = run(python, "-c", IMPORT, folder=folder).split()
        for part in ("tests", "examples", "benchmarks"):
            shutil.copytree(ROOT / part, folder / part)
        (folder / "pytest.ini").write_text(
            "[pytest]\naddopts = --import-mode=importlib\npythonpath = .\n"
        )
        tests = (python, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *SELECTION)
        done = subprocess.run(tests, cwd=folder, capture_output=True, text=True, check=False)
    last = done.stdout.strip().splitlines()[-1]
    if done.returncode:
        print(done.stdout)
    counts = {
        what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last)
    }
    failed = sum(n for what, n in counts.items() if what not in ("passed", "skipped"))
    if done.returncode:  # also where pytest itself came to an end
        failed = max(failed, 1)
    return f"| {' | '.join(found)} | {counts.get('passed', 0)} | {failed} |", failed


def main(versions: list[str]) -> int:
    """The table, a row a version; 1 when a test failed."""
    print("| Python | torch | NumPy | seconds to import, after torch | passed | failed |")
    print("|---|---|---|---|---|---|", flush=True)
    failures = 0
    for version in versions or VERSIONS:
        line, failed = row(version)
        print(line, flush=True)
        failures += failed
    return int(failures > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("versions", nargs="*", help=f"of torch; {', '.join(VERSIONS)}")
    sys.exit(main(parser.parse_args().versions))
