"""Results of experiments that are too long for a chapter: stored once, with where they come from.

A result is a JSON file in `results/` beside this file, written by a script in `benchmarks/`. It
holds the command that repeats it, the date, the machine and the versions.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import platform
import re
import tokenize
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def provenance(command: str) -> dict[str, Any]:
    """Where and how a result comes about: the command, the time, the processor, the versions.

    Processors with other vector instructions sum in another order, and training adds that up.
    """
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "command": command,
        "date": datetime.datetime.now().isoformat(" ", timespec="seconds"),
        "cpu": models[0] if models else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def without_comments(source: str) -> str:
    """Python code, its comments and docs left out, with a space between all words."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return " ".join(
        token.string
        for token in tokens
        if token.type not in (tokenize.COMMENT, tokenize.NL) and not token.string.startswith('"""')
    )


def fingerprint(*parts: str) -> str:
    """A short hash of what a result depends on, which tells without a run that it is old."""
    return sha256("\n".join(parts).encode()).hexdigest()[:12]


def store(name: str, command: str, **results: Any) -> None:
    """Write results to `results/name.json`, together with their provenance."""
    _write(name, {**provenance(command), **results})


def _write(name: str, result: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def exists(name: str) -> bool:
    """Whether there is a result of that name."""
    return (RESULTS / f"{name}.json").exists()


def read(name: str) -> dict[str, Any]:
    """What `store` has written.

    Raises:
        ValueError: when there is no result of that name.
    """
    path = RESULTS / f"{name}.json"
    if not exists(name):
        names = sorted(path.stem for path in RESULTS.glob("*.json"))
        raise ValueError(f"name must be one of {names}, got {name!r}")
    return json.loads(path.read_text())


def store_gpu(result: dict[str, Any]) -> None:
    """Write what `make gpu` has measured to `results/gpu_<device>.json`.

    Without single samples, and without the rows for which no time was left.
    """
    rows = [
        {name: _without_samples(x) if isinstance(x, dict) else x for name, x in row.items()}
        for row in result["rows"]
        if "skipped" not in row
    ]
    _write(gpu_name(result["gpu"]), {**result, "rows": rows})


def _without_samples(times: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in times.items() if name != "samples"}


def gpu_name(gpu: str) -> str:
    """The name of a GPU's result: `gpu_nvidia_h200` for "NVIDIA H200"."""
    return "gpu_" + "_".join(re.findall("[a-z0-9]+", gpu.lower()))


def gpu_times(
    gpu: str, operator: str, gate: str, what: str = "forward", **shape: int
) -> dict[str, float]:
    """Milliseconds on a GPU, by implementation; empty as long as none is recorded.

    Args:
        gpu: its name, as "NVIDIA H200".
        operator: a function of `assocmem.ops`.
        gate: "none", "head" or "channel".
        what: "forward" or "forward+backward".
        **shape: B, T, H and D.
    """
    if not exists(gpu_name(gpu)):
        return {}
    wanted = {"operator": operator, "gate": gate, **shape}
    return {
        row["implementation"]: row[what]["ms"]
        for row in read(gpu_name(gpu))["rows"]
        if what in row and wanted.items() <= row.items()
    }
