"""What the library brings with it: licences, exact pins, and what workflows may do.

Known vulnerabilities are asked for by `make audit`, which needs the network.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.processes import AHEAD_OF_TIME

ROOT = Path(__file__).parents[1]
PERMISSIVE = re.compile(r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|BSL-1.0|LLVM-exception")
# PyTorch's CUDA build, which PyPI has for Linux, brings libraries under NVIDIA's own licence.
NVIDIAS = re.compile(r"nvidia-|cuda-toolkit$")
# MPL-2.0 asks for changes of its own files only, and tqdm's are not changed.
EXCEPTIONS = {"tqdm": "MPL-2.0 AND MIT"}
RESTRICTIVE = re.compile(r"GPL|General Public|MPL|Mozilla|EPL|CDDL|NVIDIA|Proprietary", re.I)


def licence(name: str) -> str:
    """What an installed package says of its licence, in the field that says it best."""
    metadata = distribution(name).metadata
    classifiers = metadata.get_all("Classifier", [])
    named = [x.rpartition("::")[2].strip() for x in classifiers if x.startswith("License ::")]
    return metadata.get("License-Expression") or "; ".join(named) or metadata.get("License") or ""


def brought(name: str, *extras: str) -> set[str]:
    """A package, and all that is installed of what it needs, and of what that needs."""
    found, todo = set(), [(name, extras)]
    while todo:
        name, extras = todo.pop()
        if name in found:
            continue
        try:
            needed = map(Requirement, distribution(name).requires or ())
        except PackageNotFoundError:  # a CUDA build's libraries, where another build is installed
            continue
        found.add(name)
        todo += [
            (x.name.lower(), tuple(x.extras))
            for x in needed
            if x.marker is None or any(x.marker.evaluate({"extra": e}) for e in ("", *extras))
        ]
    return found


def test_what_the_library_brings_has_permissive_licences() -> None:
    names = brought("assocmem", "triton", "book")
    assert {"torch", "numpy", "tqdm", "sympy"} <= names
    for name in (x for x in names if not NVIDIAS.match(x)):
        said = licence(name)
        if said != EXCEPTIONS.get(name):
            assert PERMISSIVE.search(said), f"{name}: {said!r}"
            assert not RESTRICTIVE.search(said), f"{name}: {said!r}"


def test_a_restrictive_licence_is_noticed() -> None:
    """One of a tool that checks the book, and reaches no user."""
    assert RESTRICTIVE.search(licence("codespell"))
    assert brought("codespell") == {"codespell"}


def test_the_library_imports_neither_triton_nor_the_compiler() -> None:
    """They take seconds, and are imported when they are needed."""
    late = "{'triton', 'torch._dynamo', 'matplotlib', 'IPython', 'scipy'}"
    code = f"import torch, assocmem, sys; print({late} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_a_gpu_is_measured_with_little_installed() -> None:
    """The README names what `make gpu` needs, and what draws figures or checks is not in it."""
    absent = ["matplotlib", "IPython", "scipy", "hypothesis", "yaml", "nbformat"]
    tests = {str(x.relative_to(ROOT)) for x in (ROOT / "tests/kernels").glob("test_*.py")}
    files = sorted({"benchmarks/gpu.py", *tests}.difference(AHEAD_OF_TIME))
    needed = [x.removesuffix(".py").replace("/", ".") for x in files]
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import {', '.join(needed)}"
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)


def pins(file: str) -> list[Requirement]:
    """What a file asks for on this Python, all of it in one exact version."""
    lines = (ROOT / file).read_text().splitlines()
    requirements = [Requirement(x) for x in lines if x and not x.startswith("#")]
    for x in requirements:
        assert re.fullmatch(r"==[\w.]+", str(x.specifier)), x
    return [x for x in requirements if x.marker is None or x.marker.evaluate()]


def test_all_that_builds_the_book_is_pinned() -> None:
    """What requirements.txt names, and what that needs: constraints.txt has what is installed."""
    pinned = {canonicalize_name(x.name): x.specifier for x in pins("constraints.txt")}
    names = set().union(*(brought(x.name, *x.extras) for x in pins("requirements.txt")))
    assert len(names) > 100
    for name in names:
        assert pinned[canonicalize_name(name)].contains(distribution(name).version), name


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=str)
def test_a_workflow_may_do_no_more_than_it_has_to(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    publishing = {"pages": "write", "id-token": "write"}  # what a site asks for
    for name, job in workflow["jobs"].items():
        if (path.stem, name) == ("pages", "publish"):
            assert job["permissions"] == publishing
            assert [step["uses"].partition("@")[0] for step in job["steps"]] == [
                "actions/deploy-pages"  # and nothing that was installed
            ]
        elif (path.stem, name) == ("ci", "pages"):  # the most that the workflow may hand on
            assert job["permissions"] == {"contents": "read", **publishing}
            assert job["needs"] == "test"
        else:
            assert "permissions" not in job
    assert "pull_request_target" not in workflow[True]  # YAML reads the word `on` as true
    assert "secrets." not in path.read_text()
