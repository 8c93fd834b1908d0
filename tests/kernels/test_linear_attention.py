"""The Triton form of linear attention, in the interpreter or on a GPU, against the recurrence."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from assocmem import ops
from tests.ops import reference
from tests.ops.inputs import GATES, Inputs, random_inputs
from tests.ops.reference import relative_error

kernels = pytest.importorskip("assocmem_kernels.linear_attention", reason="triton is missing")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# A GPU sums in another order than the interpreter, in blocks of the tensor cores.
BOUND = 1e-6 if DEVICE == "cpu" else 2e-6


def run(inputs: Inputs, dtype: torch.dtype, backend: str = "triton", **options) -> dict:
    def operator(*arguments, initial_state, **options):
        o, S = ops.linear_attention(
            *(None if x is None else x.to(DEVICE) for x in arguments),
            initial_state=initial_state.to(DEVICE), output_final_state=True, backend=backend,
            **options,
        )  # fmt: skip
        assert S is not None
        return o.cpu(), S.cpu()

    return inputs.run(operator, dtype, **options)


def worst(got, expected):
    return max((relative_error(got[name], expected[name]), name) for name in expected)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(
    ("T", "K", "V"),
    [(1, 16, 24), (63, 60, 64), (64, 64, 16), (65, 24, 128), (200, 128, 60), (1, 3, 1)],
)
def test_float32_equals_the_recurrence(gate, T, K, V):
    inputs = random_inputs(2 if T == 65 else 1, T, 2, K, V, gate)
    expected = inputs.run(reference.linear_attention, torch.float64)
    error, name = worst(run(inputs, torch.float32), expected)
    assert error <= BOUND, name


@pytest.mark.parametrize("gate", ["head", "channel"])
@pytest.mark.parametrize("strength", [-6.0, 6.0])
def test_weak_and_strong_decay(gate, strength):
    inputs = random_inputs(1, 200, 1, 32, 32, gate, strength=strength)
    expected = inputs.run(reference.linear_attention, torch.float64)
    error, name = worst(run(inputs, torch.float32), expected)
    assert error <= BOUND, name


def torch_in_half(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, S: Tensor, scale: float):
    """The parallel form in torch, every tensor rounded to q's dtype: torch's own error."""
    T = q.shape[1]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    log = torch.zeros(*q.shape[:2], T, q.shape[-1])
    if g is not None:
        log = log + (g if g.ndim == 4 else g[..., None]).transpose(1, 2)
    until = log.cumsum(2)
    D = (until[:, :, :, None] - until[:, :, None]).exp()  # [B, H, T, T, K]
    A = torch.einsum("bhtk,bhsk,bhtsk->bhts", q.float(), k.float(), D).to(q.dtype).tril()
    o = A @ v + (q * until.exp()).to(q.dtype) @ S.to(q.dtype)
    return (o * scale).transpose(1, 2)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_exact_as_torch(gate, dtype):
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("Triton's interpreter does not round to bfloat16")
    inputs = random_inputs(1, 100, 2, 32, 24, gate)
    q, k, v = (x.to(dtype) for x in (inputs.q, inputs.k, inputs.v))
    rounded = Inputs(q, k, v, inputs.g, inputs.S, inputs.do.to(dtype), inputs.dS)
    expected = rounded.run(reference.linear_attention, torch.float64)
    got = run(rounded, dtype)
    own = relative_error(torch_in_half(q, k, v, inputs.g, inputs.S, 32**-0.5), expected["o"])
    for name in expected:
        assert relative_error(got[name], expected[name]) <= 2 * own, name


@pytest.mark.parametrize("gate", GATES)
def test_packed_sequences_do_not_see_each_other(gate):
    borders = [0, 1, 1, 40, 72, 100]
    inputs = random_inputs(1, 100, 2, 16, 16, gate)
    many = random_inputs(5, 1, 2, 16, 16, gate, seed=1)
    inputs.S, inputs.dS = many.S, many.dS
    got = run(inputs, torch.float32, cu_seqlens=torch.tensor(borders, device=DEVICE))
    for n in range(5):
        rows, one = slice(borders[n], borders[n + 1]), slice(n, n + 1)
        if borders[n] == borders[n + 1]:
            assert torch.equal(got["final S"][one], inputs.S[one])
            assert torch.equal(got["dS"][one], inputs.dS[one])
            continue
        alone = Inputs(
            inputs.q[:, rows], inputs.k[:, rows], inputs.v[:, rows],
            None if inputs.g is None else inputs.g[:, rows],
            inputs.S[one], inputs.do[:, rows], inputs.dS[one],
        )  # fmt: skip
        expected = alone.run(reference.linear_attention, torch.float64)
        for name, x in expected.items():
            part = got[name][one] if name in ("final S", "dS") else got[name][:, rows]
            assert relative_error(part, x) <= BOUND, (n, name)


@pytest.mark.parametrize("gate", GATES)
def test_normalize(gate):
    inputs = random_inputs(1, 70, 2, 16, 16, gate)
    arguments = [inputs.q.exp(), inputs.k.exp(), inputs.v, inputs.g]
    arguments = [None if x is None else x.to(DEVICE) for x in arguments]
    o, S = ops.linear_attention(
        *arguments, normalize=True, output_final_state=True, backend="triton"
    )
    expected, expected_S = ops.linear_attention(
        *(None if x is None else x.double() for x in arguments),
        normalize=True, output_final_state=True, backend="recurrent",
    )  # fmt: skip
    assert S is not None
    assert expected_S is not None
    assert relative_error(o, expected) <= BOUND
    assert relative_error(S, expected_S) <= BOUND


@pytest.mark.parametrize(
    ("gate", "argument"),
    [(gate, x) for gate in GATES for x in "qkvg" if (gate, x) != ("none", "g")],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_nan_reaches_what_depends_on_it_and_nothing_else(gate, argument, value):
    inputs = random_inputs(1, 70, 2, 16, 16, gate)
    arguments = {"q": inputs.q, "k": inputs.k, "v": inputs.v, "g": inputs.g}
    arguments = {n: None if x is None else x.to(DEVICE) for n, x in arguments.items()}
    clean, _ = ops.linear_attention(**arguments, backend="triton")
    poisoned = arguments[argument]
    assert poisoned is not None
    poisoned[0, 35, 1] = value
    o, _ = ops.linear_attention(**arguments, backend="triton")
    assert torch.equal(o[:, :35], clean[:, :35])
    assert torch.equal(o[:, :, 0], clean[:, :, 0])
    assert not torch.isfinite(o[0, 35, 1]).any()


@pytest.mark.parametrize("gate", ["head", "channel"])
def test_a_decay_of_minus_infinity_clears_the_memory(gate):
    inputs = random_inputs(1, 50, 1, 16, 16, gate)
    assert inputs.g is not None
    inputs.g[:, 30] = -torch.inf
    arguments = [x.to(DEVICE) for x in (inputs.q, inputs.k, inputs.v, inputs.g)]
    o, _ = ops.linear_attention(*arguments, backend="triton")
    after, _ = ops.linear_attention(*(x[:, 30:] for x in arguments), backend="triton")
    assert torch.isfinite(o).all()
    torch.testing.assert_close(o[:, 30:], after, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gate", ["none", "head"])
def test_integers_give_integers(gate):
    """Whole numbers, and decays that are powers of two, leave no room for rounding."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randint(-2, 3, (1, 70, 2, 32), generator=generator).float() for _ in range(3))
    inputs = Inputs(q, k, v, None, torch.zeros(1, 2, 32, 32), v, torch.zeros(1, 2, 32, 32))
    if gate == "head":
        inputs.g = torch.zeros(1, 70, 2)
    expected = inputs.run(reference.linear_attention, torch.float64, scale=1.0)
    got = run(inputs, torch.float32, scale=1.0)
    for name in ("o", "final S", "dq", "dk", "dv", "dS"):
        assert torch.equal(got[name].double(), expected[name]), name


@pytest.mark.parametrize("gate", GATES)
def test_the_same_bits_twice(gate):
    inputs = random_inputs(1, 70, 2, 16, 16, gate)
    first, second = run(inputs, torch.float32), run(inputs, torch.float32)
    for name, x in first.items():
        assert torch.equal(x, second[name]), name


def custom_op_arguments(gate: str, packed: bool):
    inputs = random_inputs(1, 20, 2, 16, 16, gate)
    S = random_inputs(2 if packed else 1, 1, 2, 16, 16, gate).S
    borders = torch.tensor([0, 5, 20], device=DEVICE) if packed else None
    leaves = [
        None if x is None else x.to(DEVICE).requires_grad_()
        for x in (inputs.q, inputs.k, inputs.v, inputs.g, S)
    ]
    q, k, v, g, S = leaves
    return q, k, v, g, 0.25, S, borders, torch.float32


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("packed", [False, True])
def test_opcheck(gate, packed):
    arguments = custom_op_arguments(gate, packed)
    torch.library.opcheck(kernels.linear_attention, arguments)
    q, k, v, g, scale, S, borders, _ = arguments
    backward = [None if x is None else x.detach() for x in (q, k, v, g)]
    torch.library.opcheck(
        kernels.linear_attention_backward,
        (*backward, scale, S.detach(), borders, v.detach(), S.detach()),
    )


@pytest.mark.parametrize("gate", GATES)
def test_torch_compile_takes_the_whole_graph(gate):
    inputs = random_inputs(1, 40, 2, 16, 16, gate)
    torch.compiler.reset()
    compiled = torch.compile(ops.linear_attention, fullgraph=True, backend="aot_eager")

    def operator(*arguments, initial_state):
        return compiled(
            *(None if x is None else x.to(DEVICE) for x in arguments),
            initial_state=initial_state.to(DEVICE), output_final_state=True, backend="triton",
        )  # fmt: skip

    got = inputs.run(operator, torch.float32)
    error, name = worst(got, run(inputs, torch.float32))
    assert error == 0, name


def test_chunk_table_lists_every_chunk_once():
    borders, C = torch.tensor([0, 1, 1, 33, 64, 64, 100]), 16
    count = kernels.chunk_count(100, 6, C)
    table = kernels.chunk_table(borders, count, C)
    expected = {
        int(start) // C + n + j: (int(start) + j * C, int(stop))
        for n, (start, stop) in enumerate(pairwise(borders))
        for j in range(-(-int(stop - start) // C))
    }
    got = {i: (int(a), int(b)) for i, (a, b) in enumerate(table) if a < b}
    assert got == expected


@pytest.mark.parametrize(("B", "T", "H"), [(2, 0, 2), (0, 5, 2), (2, 5, 0)])
def test_nothing_in_gives_nothing_out(B, T, H):
    q = torch.zeros(B, T, H, 16, requires_grad=True, device=DEVICE)
    S = torch.ones(B, H, 16, 16, requires_grad=True, device=DEVICE)
    o, final = ops.linear_attention(
        q, q, q, initial_state=S, output_final_state=True, backend="triton"
    )
    assert final is not None
    assert o.shape == (B, T, H, 16)
    torch.testing.assert_close(final, S)
    (dS,) = torch.autograd.grad(final.sum() + o.sum(), S)
    torch.testing.assert_close(dS, torch.ones_like(S))
