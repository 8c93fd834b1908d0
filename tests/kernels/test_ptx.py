"""What the compiler makes of the kernels: their PTX for sm_80, run by `ptx.py`, is the definition.

Runs without Triton's interpreter and without a GPU.
"""

from __future__ import annotations

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is missing")
if triton.knobs.runtime.interpret:
    pytest.skip("the interpreter does not compile", allow_module_level=True)

import triton.language as tl  # noqa: E402
from assocmem_kernels import launch  # noqa: E402

from assocmem.ops import backend  # noqa: E402
from benchmarks.resources import KERNELS  # noqa: E402
from tests.kernels import test_deltaformer as deltaformer  # noqa: E402
from tests.kernels.ptx import Emulated, Fault  # noqa: E402
from tests.kernels.test_scans import assert_as_exact_as_torch, run  # noqa: E402
from tests.ops.inputs import GATES  # noqa: E402
from tests.ops.operators import OPERATORS, worst  # noqa: E402
from tests.ops.test_deltaformer import definition, with_gradients  # noqa: E402
from tests.ops.test_deltaformer import worst as worst_of_deltaformer  # noqa: E402

BOUND = 1e-6


def emulate(monkeypatch: pytest.MonkeyPatch, order: str = "lockstep") -> None:
    """Let all kernels run in the emulator, with NaN in memory that nobody has written."""
    monkeypatch.setattr(launch, "architecture", lambda _: "sm_80")
    monkeypatch.setattr(backend, "_interpreted", lambda: True)
    for name, file in KERNELS.items():
        monkeypatch.setattr(file, name, Emulated(getattr(file, name), order))


@pytest.fixture(autouse=True)
def memory_begins_as_nan():
    torch.use_deterministic_algorithms(True)  # which fills what is empty
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("gate", GATES)
def test_scans_in_float32(name, gate, monkeypatch):
    emulate(monkeypatch)
    inputs = OPERATORS[name].inputs(1, 36, 1, 32, 16, gate)
    error, what = worst(run(name, inputs, torch.float32), OPERATORS[name].expected(inputs))
    assert error <= BOUND, what


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("gate", GATES)
def test_scans_in_bfloat16_are_as_exact_as_torch(name, gate, monkeypatch):
    emulate(monkeypatch)
    assert_as_exact_as_torch(name, OPERATORS[name].inputs(1, 36, 1, 32, 16, gate), torch.bfloat16)


@pytest.mark.parametrize(
    ("erase", "order"), [("softmax", "descending"), ("linear", "lockstep"), ("relu", "lockstep")]
)
def test_deltaformer(erase, order, monkeypatch):
    """Its walk loads what other warps have stored: warp after warp, a missing barrier is seen."""
    emulate(monkeypatch, order)
    arguments = deltaformer.arguments(1, 50, 32, 16, erase)
    expected = with_gradients(definition, arguments, torch.float64, erase=erase)
    got = with_gradients(deltaformer.deltaformer, arguments, torch.float32, erase=erase)
    error, what = worst_of_deltaformer(got, expected)
    assert error <= 2 * BOUND, what


@triton.jit
def product_less_itself(a, b, out):
    r = tl.arange(0, 64)
    x = tl.load(a + r) * tl.load(b + r)
    tl.store(out + r, x - x)


def test_a_product_less_itself_is_what_was_rounded_away():
    a = torch.arange(2, 66).log()
    out = torch.empty_like(a)
    Emulated(product_less_itself)[(1,)](a, a + 1, out, num_warps=2)
    exact = a.double() * (a + 1).double() - (a * (a + 1)).double()
    assert torch.equal(out, exact.float())
    assert out.ne(0).all()


@triton.jit
def reverse_in_place(x, BARRIER: tl.constexpr):
    r = tl.arange(0, 64)
    tl.store(x + r, r.to(tl.float32))
    if BARRIER:
        tl.debug_barrier()
    y = tl.load(x + 63 - r)
    tl.debug_barrier()
    tl.store(x + r, y)


def test_a_missing_barrier_is_noticed():
    x = torch.full((64,), -1.0)
    Emulated(reverse_in_place)[(1,)](x, True, num_warps=2)
    assert torch.equal(x, torch.arange(63.0, -1, -1))
    with pytest.raises(Fault, match="without a barrier"):
        Emulated(reverse_in_place)[(1,)](x, False, num_warps=2)


@triton.jit
def beyond_the_end(x):
    tl.store(x + tl.arange(0, 64), 0.0)


def test_a_place_beyond_the_end_is_noticed():
    with pytest.raises(Fault, match="out of bounds"):
        Emulated(beyond_the_end)[(1,)](torch.zeros(60), num_warps=1)
