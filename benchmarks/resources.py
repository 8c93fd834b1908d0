"""What every shipped kernel needs on every architecture, from ahead-of-time compilation.

    python benchmarks/resources.py            # recompute what has changed, and store it
    python benchmarks/resources.py --show     # print the stored table

No GPU is needed. Each row is one kernel, architecture, precision, head size and gate in its launch
configuration: shared memory against the architecture's limit, registers, spilled bytes, and of its
machine code the tensor-core instructions and the length of the longest loop. A row holds a
fingerprint of the code that it measured, so that it is known without a compiler which rows are old.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

import torch
import triton
from assocmem_kernels import (
    channel_decay,
    delta_rule_backward,
    delta_rule_forward,
    deltaformer,
    deltaformer_backward,
    erase,
    launch,
    linear_attention,
    linear_attention_backward,
    step,
    triangles,
)
from tqdm import tqdm
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from assocmem.book import recorded

STORED = Path(__file__).parent / "results" / "resources.json"

# Bytes of shared memory that one block may take.
LIMITS = {
    "sm_75": 65_536, "sm_80": 166_912, "sm_86": 101_376, "sm_89": 101_376,
    "sm_90": 232_448, "sm_100": 232_448, "sm_120": 101_376, "gfx942": 65_536,
}  # fmt: skip

TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
FLOAT32 = {  # accumulators, states and decays
    "g", "beta", "S0", "ST", "dST", "dS0", "A", "M", "dA", "dg", "dbeta", "y", "L", "G", "delta",
    "kept", "inverse", "inverses", "triangles", "dM", "dq_in", "dk_in", "dk_out", "dkept",
}  # fmt: skip
INT64 = {"borders", "chunks"}
NUMBERS = {"scale": "fp32"} | dict.fromkeys(("T", "past", "first", "stop", "low", "high"), "i32")

# In machine code: what a line of an instruction matches, and what is found in a jump, to a label.
SASS = r"\s*/\*[0-9a-f]{4,}\*/ .*;", r"BRA.*`\((\.L\w+)\)"
AMDGCN = r"\t[a-z]", r"s_c?branch\w* (\.L\w+)"

# Where each kernel lives, and the kinds of decay of those that do not take all.
KERNELS = {
    "forward_kernel": linear_attention,
    "states_kernel": linear_attention_backward,
    "backward_kernel": linear_attention_backward,
    "triangles_kernel": triangles,
    "delta_forward_kernel": delta_rule_forward,
    "delta_states_kernel": delta_rule_backward,
    "delta_states_backward_kernel": delta_rule_backward,
    "delta_backward_kernel": delta_rule_backward,
    "step_kernel": step,
    "channel_decay_kernel": channel_decay,
    "channel_decay_backward_kernel": channel_decay,
    "recall_kernel": deltaformer,
    "erase_triangles_kernel": erase,
    "correct_kernel": deltaformer,
    "collect_kernel": deltaformer_backward,
    "correct_backward_kernel": deltaformer_backward,
    "erase_key_gradient_kernel": deltaformer_backward,
    "key_gradient_kernel": deltaformer_backward,
}
GATES = {
    channel_decay: (2,),
    erase: (0,),
    deltaformer: (0,),
    deltaformer_backward: (0,),
}


@dataclass(frozen=True)
class Case:
    """One kernel as it is launched for one architecture, precision, head size and gate."""

    kernel: str
    arch: str
    dtype: str
    D: int
    gate: int


def cases() -> Iterator[Case]:
    """Every row of the table."""
    for arch in launch.ARCHITECTURES:
        half = "fp16" if arch == "sm_75" else "bf16"  # Turing has no bfloat16
        for dtype in (half, "fp32"):
            for D in (64, 128):
                for kernel, room in KERNELS.items():
                    for gate in GATES.get(room, (0, 1, 2)):
                        yield Case(kernel, arch, dtype, D, gate)


@cache
def fingerprint(kernel: triton.JITFunction) -> str:
    """A short hash of the code of a kernel and of all that it calls, without comments and docs."""
    code, called = {}, [kernel]
    while called:
        function = called.pop()
        words = recorded.without_comments(inspect.getsource(function.fn))
        code[function.fn.__name__] = words
        known = (function.fn.__globals__.get(word) for word in words.split())
        called += [
            f for f in known if isinstance(f, triton.JITFunction) and f.fn.__name__ not in code
        ]
    return recorded.fingerprint(*(code[name] for name in sorted(code)))


def launched(case: Case) -> launch.Config:
    """How the kernel of a case is launched."""
    dtype = next(t for t, name in TYPES.items() if name == case.dtype)
    return launch.config(case.kernel, case.arch, dtype, case.gate)


def configuration(case: Case) -> dict:
    """What a row says of a case before it is compiled."""
    code = fingerprint(getattr(KERNELS[case.kernel], case.kernel))
    return {**asdict(case), "code": code, **asdict(launched(case))}


def source(case: Case) -> ASTSource:
    """A kernel with the types and sizes of a case, for the compiler."""
    kernel, cfg = getattr(KERNELS[case.kernel], case.kernel), launched(case)
    sizes = {
        "H": 16, "K": case.D, "V": case.D,
        "C": cfg.C, "BK": case.D, "BV": min(cfg.BV, case.D), "GATE": case.gate,
        "REVERSE": True, "DELTA": True, "ERASE": erase.CODES["softmax"],
    }  # fmt: skip
    float32 = set(FLOAT32)
    if KERNELS[case.kernel] is channel_decay:
        sizes["BK"] = min(cfg.BV, case.D)
    elif case.gate == 2:  # `channel_decay.py` takes up the gradients of q and k, in float32
        float32 |= {"dq", "dk"}
    else:
        float32 |= {"since", "until"}
    # The triangular system of float32 is in float64.
    float64 = {"inverse", "M", "dM"}
    signature, constants, attributes = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in sizes:
            signature[name], constants[name] = "constexpr", sizes[name]
        elif name in NUMBERS:
            signature[name] = NUMBERS[name]
        else:
            kind = "i64" if name in INT64 else "fp32" if name in float32 else case.dtype
            if case.dtype == "fp32" and name in float64:
                kind = "fp64"
            signature[name], attributes[(i,)] = f"*{kind}", [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, constants, attributes)


def target(arch: str) -> GPUTarget:
    """An architecture as the compiler names it."""
    amd = arch.startswith("gfx")
    return GPUTarget("hip", arch, 64) if amd else GPUTarget("cuda", int(arch[3:]), 32)


def measure(case: Case) -> dict:
    """Compile one case, and read off what it needs."""
    options = launched(case).options
    compiled = triton.compile(source(case), target=target(case.arch), options=options)
    needs = _nvidia(compiled.asm) if "cubin" in compiled.asm else _amd(compiled.asm["amdgcn"])
    return {
        **configuration(case),
        "shared": compiled.metadata.shared,
        "limit": LIMITS[case.arch],
        **needs,
    }


def _nvidia(asm) -> dict:
    ptx = asm["ptx"]
    wgmma = re.findall(r"wgmma\.mma_async[^;]*;", ptx)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as f:
        f.write(asm["cubin"])
        f.flush()
        usage = _answer("cuobjdump", "-res-usage", f.name)
        code = _answer("nvdisasm", "-c", f.name)
    return {
        "registers": int(re.findall(r"REG:(\d+)", usage)[-1]),
        "spilled": int(re.findall(r"STACK:(\d+)", usage)[-1]),
        "tensor_core": ptx.count("mma.sync.aligned") + len(wgmma) + ptx.count("tcgen05.mma"),
        # A in registers: two brace lists of operands before the descriptor of B.
        "wgmma_register_a": sum(w.count("{") >= 2 for w in wgmma),
        "loop": longest_loop(code, *SASS),
    }


def _answer(tool: str, *arguments: str) -> str:
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / tool
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout


def longest_loop(code: str, instruction: str, jump: str) -> int:
    """How many instructions lie between a jump back and its label, at most; 0 without a loop."""
    labels: dict[str, int] = {}
    n = longest = 0
    for line in code.splitlines():
        if label := re.match(r"\s*(\.L\w+):", line):
            labels[label[1]] = n
        elif re.match(instruction, line):
            n += 1
            if (to := re.search(jump, line)) and to[1] in labels:
                longest = max(longest, n - labels[to[1]])
    return longest if longest > 1 else 0  # one jump to itself ends the code


def _amd(assembly: str) -> dict:
    def last(key: str) -> int:
        return int(re.findall(rf"\.{key}:\s+(\d+)", assembly)[-1])

    return {
        "registers": last("vgpr_count"),
        "spilled": last("vgpr_spill_count"),
        "tensor_core": assembly.count("v_mfma"),
        "wgmma_register_a": 0,
        "loop": longest_loop(assembly, *AMDGCN),
    }


def table(selected: list[Case], workers: int = os.cpu_count() or 1) -> list[dict]:
    """Measure the cases, with a progress bar."""
    with ProcessPoolExecutor(workers) as pool:
        rows = tqdm(pool.map(measure, selected, chunksize=2), total=len(selected), unit="kernel")
        return list(rows)


def by_case(rows: list[dict]) -> dict[Case, dict]:
    """Rows of the table, by what they measure."""
    return {Case(*(row[field.name] for field in fields(Case))): row for row in rows}


def up_to_date(stored: dict) -> dict[Case, dict]:
    """The stored rows whose compiler, code and configuration are those of today."""
    if stored["triton"] != triton.__version__:
        return {}
    rows = by_case(stored["rows"])
    return {
        c: rows[c] for c in cases() if c in rows and configuration(c).items() <= rows[c].items()
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--show", action="store_true", help="print the stored table")
    stored = json.loads(STORED.read_text())
    if not parser.parse_args().show:
        rows = up_to_date(stored)
        rows |= by_case(table([case for case in cases() if case not in rows]))
        stored = {"triton": triton.__version__, "rows": [rows[case] for case in cases()]}
        STORED.write_text(json.dumps(stored, indent=0) + "\n")
    print(f"Triton {stored['triton']}")
    names = list(stored["rows"][0])
    for row in [dict(zip(names, names, strict=True)), *stored["rows"]]:
        print("  ".join(str(row[n]).rjust(max(6, len(n))) for n in names))


if __name__ == "__main__":
    main()
