"""What the compiler makes of the kernels: their PTX, run by `ptx.py`, is the definition.

Runs without Triton's interpreter and without a GPU.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

triton = pytest.importorskip("triton", reason="triton is missing")
if triton.knobs.runtime.interpret:
    pytest.skip("the interpreter does not compile", allow_module_level=True)

import triton.language as tl  # noqa: E402
from assocmem_kernels import launch  # noqa: E402

from assocmem.ops import backend  # noqa: E402
from assocmem.ops.deltaformer import write_and_read  # noqa: E402
from benchmarks.resources import KERNELS  # noqa: E402
from tests.kernels import ptx  # noqa: E402
from tests.kernels import test_channel_decay as channel_decay  # noqa: E402
from tests.kernels import test_deltaformer as deltaformer  # noqa: E402
from tests.kernels.ptx import Emulated, Fault  # noqa: E402
from tests.kernels.test_delta_rule import mirrored  # noqa: E402
from tests.kernels.test_inverse import expected, inverse, inverse_kernel, system  # noqa: E402
from tests.kernels.test_scans import assert_as_exact_as_torch, run  # noqa: E402
from tests.ops.inputs import GATES, KEYS  # noqa: E402
from tests.ops.operators import OPERATORS, worst  # noqa: E402
from tests.ops.reference import relative_error  # noqa: E402
from tests.ops.test_deltaformer import definition, with_gradients  # noqa: E402
from tests.ops.test_deltaformer import worst as worst_of_deltaformer  # noqa: E402

BOUND = 1e-6


def emulate(
    monkeypatch: pytest.MonkeyPatch, order: str = "lockstep", architecture: int = 80
) -> None:
    """Let all kernels run in the emulator, with NaN in memory that nobody has written."""
    monkeypatch.setattr(launch, "architecture", lambda _: f"sm_{architecture}")
    monkeypatch.setattr(backend, "_cannot_run", lambda _: None)
    for name, file in KERNELS.items():
        monkeypatch.setattr(file, name, Emulated(getattr(file, name), order, architecture))


@pytest.fixture
def instructions(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often an instruction stands in what is compiled."""
    counts: Counter[str] = Counter()

    def counted(text: str) -> ptx.Program:
        counts.update(re.findall(r"\n\s*(\w+)\.", text))
        return parse(text)

    parse = ptx.parse
    monkeypatch.setattr(ptx, "parse", counted)
    return counts


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


# At 36 tokens the gradient of g is a small difference for linear attention, and rounding counts.
@pytest.mark.parametrize(
    ("name", "gate", "T", "dtype"),
    [
        ("linear", "none", 36, torch.bfloat16),
        ("linear", "head", 68, torch.bfloat16),
        ("delta", "none", 36, torch.bfloat16),
        ("delta", "head", 36, torch.bfloat16),
        ("delta", "channel", 36, torch.bfloat16),
        ("delta", "head", 36, torch.float16),
    ],
)
def test_scans_by_warp_groups_are_as_exact_as_torch(
    name, gate, T, dtype, monkeypatch, instructions
):
    emulate(monkeypatch, architecture=90)
    inputs = OPERATORS[name].inputs(1, T, 1, 128, 128, gate)
    assert_as_exact_as_torch(name, inputs, dtype)
    assert instructions["wgmma"] > 0


@pytest.mark.parametrize(("C", "scale"), [(16, 1), (32, 1), (64, 1), (32, 4)])
@pytest.mark.parametrize("keys", KEYS)
def test_inverse_in_bfloat16(C, scale, keys):
    """With the range of float32: four times as large, entries of the inverse reach 1e26."""
    L = scale * system(C, keys).float()
    got = inverse(L, torch.bfloat16, Emulated(inverse_kernel))
    assert relative_error(got, expected(L)) <= 4e-6
    assert torch.equal(got.triu(1), torch.zeros_like(L))


@pytest.mark.parametrize("size", channel_decay.SIZES)
@pytest.mark.parametrize("total", channel_decay.TOTALS)
def test_strong_decays_of_large_and_small_keys(size, total, monkeypatch):
    emulate(monkeypatch)
    channel_decay.assert_right(torch.bfloat16, size, total, "cpu")


def test_bfloat16_does_not_make_a_memory_grow(monkeypatch):
    """With the inverse in one part it would read 4,600 here."""
    emulate(monkeypatch)
    got, expected = mirrored(torch.bfloat16, 2e-3, 256)
    assert abs(got - expected) <= 0.1


def test_bfloat16_does_not_make_corrections_grow(monkeypatch):
    """DeltaFormer's, under one key with β‖k‖² = 2 − 0.002; in one part they would reach 1,100."""
    emulate(monkeypatch)
    k = F.normalize(torch.randn(1, 1, 1, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    k = k.bfloat16().expand(1, 256, 1, 16)
    beta = 1.998 / k.float().square().sum(-1)
    v = torch.zeros_like(k)
    v[:, 0] = 1
    wide = [x.double() for x in (k, k, k, v, beta)]
    _, u = write_and_read(k, k, k, v, beta, v[:, :0], "linear", 1.0, "triton")
    _, expected = write_and_read(*wide, v[:, :0], "linear", 1.0, "recurrent")
    assert (u - expected).abs().max() <= 0.2


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


def test_deltaformer_by_warp_groups(monkeypatch, instructions):
    emulate(monkeypatch, architecture=90)
    deltaformer.assert_as_exact_as_torch("softmax", torch.bfloat16, 36, 128, 64)
    assert instructions["wgmma"] > 0


@triton.jit
def clamped(x, out):
    r = tl.arange(0, 64)
    tl.store(out + r, tl.clamp(tl.load(x + r), -3.0, 3.0))


def test_a_number_is_clamped_with_its_sign():
    x = torch.cat((torch.linspace(-6, 6, 62), torch.tensor([-torch.inf, torch.inf])))
    out = torch.empty_like(x)
    Emulated(clamped, architecture=90)[(1,)](x, out, num_warps=2)
    assert torch.equal(out, x.clamp(-3, 3))


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
def product_of_matrices(
    a, b, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, A_T: tl.constexpr, B_T: tl.constexpr
):
    """C = 1.5 A B, with A and B stored by rows, or by columns."""
    m, n, k = tl.arange(0, M)[:, None], tl.arange(0, N)[None], tl.arange(0, K)
    A = tl.load(a + (m + k[None] * M if A_T else m * K + k[None]))
    B = tl.load(b + (k[:, None] + n * K if B_T else k[:, None] * N + n))
    C = tl.dot(A, B)
    tl.store(c + m * N + n, tl.dot(A, B, 0.5 * C))


def error_of_a_product(M, N, K, a_t, b_t, dtype, warps, order="lockstep"):
    draw = torch.Generator().manual_seed(0)
    A, B = (torch.randn(shape, generator=draw).to(dtype) for shape in ((M, K), (K, N)))
    C = torch.full((M, N), float("nan"))
    stored = (A.T if a_t else A).contiguous(), (B.T if b_t else B).contiguous()
    kernel = Emulated(product_of_matrices, order, architecture=90)
    kernel[(1,)](*stored, C, M, N, K, a_t, b_t, num_warps=warps)
    return (C - 1.5 * A.double() @ B.double()).norm() / C.norm()


@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize(
    ("M", "N", "K", "dtype", "warps", "order"),
    [
        (64, 16, 32, torch.bfloat16, 4, "descending"),
        (64, 32, 128, torch.float16, 4, "lockstep"),
        (128, 128, 16, torch.bfloat16, 8, "lockstep"),
    ],
)
def test_products_by_warp_groups(transposed, M, N, K, dtype, warps, order, instructions):
    assert error_of_a_product(M, N, K, *transposed, dtype, warps, order) < BOUND
    assert instructions["wgmma"] > 0


def leave_out(monkeypatch: pytest.MonkeyPatch, instruction: str) -> None:
    """Run what is compiled without an instruction."""
    parse = ptx.parse
    monkeypatch.setattr(ptx, "parse", lambda text: parse(text.replace(instruction, "")))


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ("fence.proxy.async.shared::cta;", "without a fence after a store"),
        ("wgmma.fence.sync.aligned;", "no fence has shown"),
        ("wgmma.commit_group.sync.aligned;", "a part of the products"),
    ],
)
def test_a_product_without_its_fences_is_noticed(missing, why, monkeypatch):
    leave_out(monkeypatch, missing)
    with pytest.raises(Fault, match=why):
        error_of_a_product(64, 16, 16, 0, 0, torch.bfloat16, warps=4)


def test_a_product_that_nobody_waits_for_is_nan(monkeypatch):
    leave_out(monkeypatch, "wgmma.wait_group.sync.aligned 0;")
    assert error_of_a_product(64, 16, 16, 0, 0, torch.bfloat16, warps=4).isnan()


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
