"""The table of resources: recomputed by ahead-of-time compilation, compared with the stored one.

Runs without Triton's interpreter and without a GPU.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is missing")
if triton.knobs.runtime.interpret:
    pytest.skip("the interpreter does not compile", allow_module_level=True)

from assocmem_kernels import launch  # noqa: E402
from triton._C.libtriton import ir  # noqa: E402
from triton.backends.compiler import Language  # noqa: E402
from triton.compiler import make_backend  # noqa: E402

from benchmarks import resources  # noqa: E402

STORED = json.loads(resources.STORED.read_text())

# With a decay a channel only.
CHANNEL = ("channel_decay_kernel", "channel_decay_backward_kernel")


def test_the_stored_table_is_of_these_kernels_and_no_others(monkeypatch):
    """Without a compiler: after a change, `python benchmarks/resources.py` stores the new rows."""
    # As with the version that has stored them.
    monkeypatch.setattr(launch, "fenced", lambda _: True)
    cases = list(resources.cases())
    assert len(set(cases)) == len(cases) == len(STORED["rows"])
    for case, row in zip(cases, STORED["rows"], strict=True):
        assert resources.configuration(case).items() <= row.items()


def test_every_exception_makes_a_difference(monkeypatch):
    """A row of the table that equals what it stands beside only looks like a choice."""
    rows = dict(launch.EXCEPTIONS)
    for row in rows:
        arch, kernel, kind = row
        gates = [g for g, name in enumerate(("", "head", "channel")) if not name or name in kind]
        base = kind.partition(",")[0]
        chosen = [launch.listed(kernel, arch, base, gate) for gate in gates]
        others = {key: value for key, value in rows.items() if key != row}
        monkeypatch.setattr(launch, "EXCEPTIONS", others)
        assert chosen != [launch.listed(kernel, arch, base, gate) for gate in gates], row
        monkeypatch.setattr(launch, "EXCEPTIONS", rows)


def test_without_a_fence_no_copy_is_pipelined(monkeypatch):
    """What has none is known from the emulator of `test_ptx`, run with Triton 3.6."""

    def stages(fenced: bool) -> dict[resources.Case, int]:
        monkeypatch.setattr(launch, "fenced", lambda _: fenced)
        return {case: resources.configuration(case)["num_stages"] for case in resources.cases()}

    before, now = stages(True), stages(False)
    changed = [case for case in now if now[case] != before[case]]
    assert {case.kernel for case in changed} == set(launch.UNFENCED)
    assert {(case.arch, case.dtype) for case in changed} == {("sm_90", "bf16"), ("sm_100", "bf16")}
    assert {now[case] for case in changed} == {1}
    # Two warps do without wgmma.
    pipelined = launch.config("states_kernel", "sm_90", torch.bfloat16, 0)
    assert (pipelined.num_warps, pipelined.num_stages) == (2, 2)


@pytest.mark.parametrize(
    ("version", "there"), [("3.6.0", False), ("3.7.0+git1", False), ("3.7.1", True), ("4.0", True)]
)
def test_the_version_with_the_fence(version, there):
    assert launch.fenced(version) == there


# Bytes that spill on Hopper in half precision, in launches that an H200 runs faster than others.
FASTER_THOUGH_SPILLING = {
    "forward_kernel": 80, "states_kernel": 32, "backward_kernel": 264, "delta_forward_kernel": 96,
    "delta_backward_kernel": 160, "key_gradient_kernel": 8,
}  # fmt: skip
# Bytes that spill where launches without take more instructions for the same columns.
SHORTER_THOUGH_SPILLING = {
    ("sm_80", "fp32", "delta_backward_kernel", 1): 16,
    ("sm_86", "bf16", "delta_forward_kernel", 1): 16,
    ("sm_89", "bf16", "delta_forward_kernel", 1): 16,
}


def may_spill(row: dict) -> int:
    """Bytes of a row."""
    if row["arch"] == "sm_75":  # takes the chunk form in torch; its kernels only have to run
        return 32
    if (row["arch"], row["dtype"]) == ("sm_90", "bf16"):
        return FASTER_THOUGH_SPILLING.get(row["kernel"], 0)
    case = row["arch"], row["dtype"], row["kernel"], row["gate"]
    return SHORTER_THOUGH_SPILLING.get(case, 0)


def test_nothing_exceeds_its_device():
    for row in STORED["rows"]:
        assert row["shared"] <= row["limit"], row
        assert row["spilled"] <= may_spill(row), row


@pytest.mark.parametrize("arch", launch.ARCHITECTURES)
def test_the_compiler_gives_what_is_stored(arch):
    """One row in ten: compiling all of them takes 20 minutes."""
    stored = resources.by_case(STORED["rows"])
    cases = [case for case in resources.cases() if case.arch == arch]
    some = cases[launch.ARCHITECTURES.index(arch) :: 10]
    for case, row in zip(some, resources.table(some, workers=1), strict=True):
        if STORED["triton"] == triton.__version__:
            assert row == stored[case]
        else:
            assert row["shared"] <= row["limit"], row


# What `launch.narrowed` may give narrower tiles.
WALKS = (
    "forward_kernel", "states_kernel", "delta_forward_kernel", "delta_states_kernel",
    "delta_states_backward_kernel",
)  # fmt: skip


@pytest.mark.parametrize("arch", launch.ARCHITECTURES)
@pytest.mark.parametrize("columns", [16, 32])
def test_walks_with_narrow_tiles_fit(arch, columns, monkeypatch):
    """One launch in ten. A few spill, at most six registers."""
    walks = [
        case
        for case in resources.cases()
        if case.arch == arch
        and case.kernel in WALKS
        and resources.configuration(case)["BV"] > columns
    ]
    listed = launch.listed
    monkeypatch.setattr(launch, "listed", lambda *case: replace(listed(*case), BV=columns))
    for case in walks[launch.ARCHITECTURES.index(arch) :: 10]:
        row = resources.measure(case)
        assert row["BV"] == columns
        assert row["shared"] <= row["limit"], row
        assert row["spilled"] <= max(24, may_spill(row)), row
        assert row["wgmma_register_a"] == 0, row


def test_the_longest_loop():
    nvidia = """
    .L_x_1:
        /*0010*/                   FADD R1, R2, R3 ;
    .L_x_2:
        /*0020*/                   FMUL R1, R1, R1 ;
        /*0030*/              @P0  BRA `(.L_x_2) ;
        /*0040*/              @P1  BRA `(.L_x_1) ;
        /*0050*/              @P2  BRA `(.L_x_3) ;
    .L_x_3:
        /*0060*/                   BRA `(.L_x_3);
    """
    assert resources.longest_loop(nvidia, *resources.SASS) == 4
    assert resources.longest_loop(nvidia[nvidia.index("@P2") :], *resources.SASS) == 0
    amd = ".LBB0_1:\n\tv_add_f32 v0, v1, v2\n\ts_cbranch_scc1 .LBB0_1\n\ts_endpgm\n"
    assert resources.longest_loop(amd, *resources.AMDGCN) == 2


def test_half_precision_runs_on_tensor_cores():
    for row in STORED["rows"]:
        # One token, and a decay a channel, are no products of matrices.
        elementwise = row["kernel"] in ("step_kernel", *CHANNEL)
        elementwise |= row["kernel"] == "triangles_kernel" and row["gate"] == 2
        if not elementwise and row["arch"] != "sm_75" and row["dtype"] != "fp32":
            assert row["tensor_core"] > 0, row


def test_no_wgmma_takes_its_first_operand_from_registers():
    assert [row for row in STORED["rows"] if row["wgmma_register_a"]] == []


# Launched one after the other over the same chunks.
TOGETHER = (
    ("forward_kernel", CHANNEL[0]),
    ("states_kernel", "backward_kernel", *CHANNEL),
    (*(name for name in resources.KERNELS if name.startswith(("triangles", "delta"))), *CHANNEL),
    ("erase_triangles_kernel", "correct_kernel", "correct_backward_kernel"),
)  # fmt: skip


@pytest.mark.parametrize("kernels", TOGETHER)
def test_kernels_that_share_chunks_agree_on_their_length(kernels):
    for arch in launch.ARCHITECTURES:
        for dtype in resources.TYPES:
            for gate in (0, 1, 2):
                names = [k for k in kernels if gate == 2 or k not in CHANNEL]
                assert len({launch.config(k, arch, dtype, gate).C for k in names}) == 1, arch


def test_a_device_that_is_not_listed_takes_the_nearest_row(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    x = torch.empty(0)
    assert launch.architecture(x) == "sm_90"  # the interpreter

    class Cuda:
        is_cuda, device = True, None

    for capability, arch in [((7, 0), "sm_75"), ((8, 7), "sm_86"), ((12, 1), "sm_120")]:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert launch.architecture(Cuda()) == arch  # pyright: ignore


@cache
def in_triton(case: resources.Case) -> str:
    """The kernel in the compiler's first language, where integers still have their types."""
    backend, context = make_backend(resources.target(case.arch)), ir.context()
    options, stages = backend.parse_options({}), {}
    ir.load_dialects(context)
    backend.load_dialects(context)
    helpers = backend.get_codegen_implementation(options), backend.get_module_map()
    code = resources.source(case).make_ir(backend.target, options, *helpers, context)
    backend.add_stages(stages, options, Language.TRITON)
    return stages["ttir"](code, {}).str_nodebug()


# The largest grid, and more tokens in a sequence than any memory holds.
PROGRAMS, OTHER_PROGRAMS, TOKENS = 2**31 - 1, 2**16 - 1, 2**28


def overflows(code: str) -> list[str]:
    """The lines whose 32 bits do not hold what they compute, in the largest launch."""
    largest, found = dict.fromkeys(re.findall(r"(%arg\d+): i32\b", code), TOKENS), []
    for line in code.splitlines():
        result, *operands = re.findall(r"%\w+", line) or [""]
        x = [largest.get(name, 0) for name in operands] or [0]
        if number := re.search(r"arith\.constant (?:dense<)?(\d+)", line):
            value = int(number[1])
        elif end := re.search(r"make_range \{end = (\d+)", line):
            value = int(end[1]) - 1
        elif "get_program_id" in line:
            value = PROGRAMS if "get_program_id x" in line else OTHER_PROGRAMS
        elif "arith.addi" in line:
            value = x[0] + x[1]
        elif "arith.muli" in line:
            value = x[0] * x[1]
        elif "arith.divsi" in line:
            value = x[0] // max(x[1], 1) if operands[1].startswith("%c") else x[0]
        else:  # of another shape or width, chosen, less, or a remainder
            value = max(x)
        if loop := re.search(r"scf\.for (%\w+) = (%\w+) to (%\w+)", line):
            result, value = loop[1], max(largest.get(loop[2], 0), largest.get(loop[3], 0))
        largest[result] = value
        if value >= 2**31 and re.search(r"arith\.\w+ %.*\bi32>?$", line):
            found.append(line.strip())
    return found


OF_ONE_DEVICE = [c for c in resources.cases() if (c.arch, c.dtype, c.D) == ("sm_90", "bf16", 64)]


@pytest.mark.parametrize("case", OF_ONE_DEVICE, ids=lambda case: f"{case.kernel}-{case.gate}")
def test_places_beyond_two_to_the_31_are_computed_in_64_bits(case):
    """Of B T H K numbers, and of N H K V in the states: no tensor of that size is needed."""
    assert overflows(in_triton(case)) == []


@pytest.mark.parametrize("case", OF_ONE_DEVICE, ids=lambda case: f"{case.kernel}-{case.gate}")
def test_no_number_is_taken_from_itself(case):
    """x − x, fused with the product that gave x, is what was rounded away, and not 0."""
    assert re.findall(r"arith\.subf (%\w+), \1\b", in_triton(case)) == []
