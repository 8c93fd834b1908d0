"""The Triton form of every scan, in the interpreter or on a GPU, against its definition."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import accumulate, pairwise

import pytest
import torch
from torch import Tensor

from tests.ops.inputs import GATES, Inputs, random_inputs
from tests.ops.operators import ARGUMENTS, OPERATORS, worst
from tests.ops.reference import relative_error

pytest.importorskip("triton", reason="triton is missing")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# A GPU sums in another order than the interpreter, in blocks of the tensor cores.
BOUND = 1e-6 if DEVICE == "cpu" else 2e-6

every_operator = pytest.mark.parametrize("name", OPERATORS)
every_gate = pytest.mark.parametrize("gate", GATES)
# Also the interpreter takes these two.
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)


def on_device(function, **fixed):
    """The operator's Triton form, to and from the device."""

    def operator(*tokens, initial_state, **options):
        o, S = function(
            *(x.to(DEVICE) for x in tokens), initial_state=initial_state.to(DEVICE),
            output_final_state=True, backend="triton", **fixed, **options,
        )  # fmt: skip
        return o.cpu(), S.cpu()

    return operator


def run(name: str, inputs: Inputs, dtype: torch.dtype, **options) -> dict[str, Tensor]:
    return inputs.run(on_device(OPERATORS[name].function, **options), dtype)


def forward(name: str, inputs: Inputs, **options) -> Tensor:
    o, _ = OPERATORS[name].function(
        *(x.to(DEVICE) for x in inputs.tokens), backend="triton", **options
    )
    return o.cpu()


@every_operator
@every_gate
@pytest.mark.parametrize(
    ("T", "K", "V"),
    [(1, 3, 1), (16, 60, 20), (65, 24, 12), (127, 128, 16)],
)
def test_float32_equals_the_recurrence(name, gate, T, K, V):
    H = 2 if T == 1 else 1  # longer ones of several heads are packed below
    inputs = OPERATORS[name].inputs(1, T, H, K, V, gate)
    error, what = worst(run(name, inputs, torch.float32), OPERATORS[name].expected(inputs))
    assert error <= BOUND, what


@every_operator
@pytest.mark.parametrize("gate", ["head", "channel"])
@pytest.mark.parametrize("strength", [-6.0, 6.0])
def test_weak_and_strong_decay(name, gate, strength):
    inputs = OPERATORS[name].inputs(1, 40, 1, 16, 16, gate, strength=strength)
    error, what = worst(run(name, inputs, torch.float32), OPERATORS[name].expected(inputs))
    assert error <= BOUND, what


def torch_in_half(inputs: Inputs, scale: float) -> Tensor:
    """The parallel form in torch, every tensor rounded to q's dtype: torch's own error."""
    T = inputs.q.shape[1]
    q, k, v = (x.transpose(1, 2) for x in (inputs.q, inputs.k, inputs.v))
    log = torch.zeros(*q.shape[:2], T, q.shape[-1])
    if inputs.g is not None:
        log = log + (inputs.g if inputs.g.ndim == 4 else inputs.g[..., None]).transpose(1, 2)
    until = log.cumsum(2)
    D = (until[:, :, :, None] - until[:, :, None]).exp()  # [B, H, T, T, K]
    decay, S = until.exp(), inputs.S.to(q.dtype)

    def scores(x):
        return torch.einsum("bhtk,bhsk,bhtsk->bhts", x.float(), k.float(), D).to(q.dtype).tril()

    if inputs.beta is not None:
        beta = inputs.beta.transpose(1, 2)[..., None]
        L = (beta * scores(k)).to(q.dtype).tril(-1)
        inverse = torch.linalg.inv(torch.eye(T) + L.float()).to(q.dtype)
        v = inverse @ (beta * (v - (k * decay).to(q.dtype) @ S)).to(q.dtype)
    o = scores(q) @ v + (q * decay).to(q.dtype) @ S
    return (o * scale).transpose(1, 2)


def assert_as_exact_as_torch(name: str, inputs: Inputs, dtype: torch.dtype) -> None:
    """Inputs rounded to a dtype give errors of at most twice those of torch in that dtype."""
    halved = {x: getattr(inputs, x).to(dtype) for x in ("q", "k", "v", "do")}
    inputs = replace(inputs, **halved)
    expected = OPERATORS[name].expected(inputs)
    got = run(name, inputs, dtype)
    own = relative_error(torch_in_half(inputs, inputs.q.shape[-1] ** -0.5), expected["o"])
    for what in expected:
        assert relative_error(got[what], expected[what]) <= 2 * own, what


@every_operator
@pytest.mark.parametrize("total", [-79.0, -300.0])
def test_two_factors_where_decays_are_not_too_strong(name, total):
    """A chunk's decays, with one strong channel on either side of where factors are used.

    Half of the channels are in a slice without it.
    """
    inputs = OPERATORS[name].inputs(1, 40, 1, 64, 16, "channel", strength=-2.0)
    assert inputs.g is not None
    inputs.g[..., 3] = total / 15
    assert_as_exact_as_torch(name, inputs, torch.float16)


def test_two_factors_keep_a_nan_from_queries_before_it():
    """A product of matrices would take it to all queries of the chunk, times a score of 0."""
    inputs = OPERATORS["linear"].inputs(1, 16, 1, 16, 16, "channel")
    assert inputs.g is not None
    inputs.g[0, 10, 0, 3] = torch.nan
    dq = run("linear", inputs, torch.float16)["dq"]
    assert dq[:, :10].isfinite().all()
    assert dq[:, 10:, :, 3].isnan().all()


@every_operator
@every_gate
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_exact_as_torch(name, gate, dtype):
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("Triton's interpreter does not round to bfloat16")
    assert_as_exact_as_torch(name, OPERATORS[name].inputs(1, 60, 2, 32, 24, gate), dtype)


def packed(
    name: str, gate: str, lengths: tuple[int, ...], dtype: torch.dtype
) -> Iterator[tuple[Inputs, dict[str, Tensor]]]:
    """The inputs of every packed sequence, and its part of what comes of all in one row."""
    N, borders = len(lengths), [0, *accumulate(lengths)]
    inputs = OPERATORS[name].inputs(1, borders[-1], 2, 16, 16, gate)
    many = random_inputs(N, 1, 2, 16, 16, gate, seed=1)
    inputs = replace(inputs, S=many.S, dS=many.dS)
    got = run(name, inputs, dtype, cu_seqlens=torch.tensor(borders, device=DEVICE))
    for n, (start, stop) in enumerate(pairwise(borders)):
        one = slice(n, n + 1)
        own = replace(inputs.rows(start, stop), S=inputs.S[one], dS=inputs.dS[one])
        of_a_state = ("final S", "dS")
        yield own, {w: x[one] if w in of_a_state else x[:, start:stop] for w, x in got.items()}


@every_operator
@every_gate
def test_packed_sequences_do_not_see_each_other(name, gate):
    for own, part in packed(name, gate, (1, 0, 19, 16), torch.float32):
        if own.q.shape[1] == 0:
            assert torch.equal(part["final S"], own.S)
            assert torch.equal(part["dS"], own.dS)
            continue
        for what, x in OPERATORS[name].expected(own).items():
            assert relative_error(part[what], x) <= BOUND, (own.q.shape, what)


@every_operator
@every_gate
def test_packed_sequences_in_half_precision_are_those_alone(name, gate):
    for own, part in packed(name, gate, (1, 19, 16), torch.float16):
        if own.q.shape[1] == 1:  # alone it is a step, without products
            continue
        for what, x in run(name, own, torch.float16).items():
            assert torch.equal(part[what], x), (own.q.shape, what)


@every_operator
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_borders_with_a_stride(name, dtype):
    inputs = OPERATORS[name].inputs(1, 20, 1, 16, 16, "none")
    borders = torch.tensor([[0, 5], [7, 9], [20, 3]], dtype=dtype, device=DEVICE)[:, 0]
    o = forward(name, inputs, cu_seqlens=borders)
    assert torch.equal(o, forward(name, inputs, cu_seqlens=borders.contiguous()))


@every_operator
@every_gate
def test_pieces_equal_the_whole(name, gate):
    op = OPERATORS[name]
    inputs = op.inputs(2, 40, 1, 16, 16, gate)
    S, pieces = inputs.S, []
    for start, stop in ((0, 1), (1, 20), (20, 20), (20, 40)):
        part = replace(inputs.rows(start, stop), S=S)
        o, S = on_device(op.function)(*part.tokens, initial_state=S)
        pieces.append(o)
    whole, final = on_device(op.function)(*inputs.tokens, initial_state=inputs.S)
    assert relative_error(torch.cat(pieces, 1), whole) <= BOUND
    assert relative_error(S, final) <= BOUND


@every_operator
@every_gate
@every_dtype
def test_a_batch_element_does_not_depend_on_the_others(name, gate, dtype):
    op = OPERATORS[name]
    inputs = op.inputs(2, 20, 1, 24, 16, gate)
    together = run(name, inputs, dtype)
    for b in range(2):
        one = {x: None if y is None else y[b : b + 1] for x, y in vars(inputs).items()}
        alone = run(name, Inputs(**one), dtype)
        for what, x in alone.items():
            assert torch.equal(together[what][b : b + 1], x), what


def two_chunks(name: str, gate: str, dtype: torch.dtype) -> Inputs:
    inputs = OPERATORS[name].inputs(1, 20, 3, 16, 16, gate)
    return replace(inputs, **{x: getattr(inputs, x).to(dtype) for x in ("q", "k", "v")})


@cache
def clean_output(name: str, gate: str, dtype: torch.dtype) -> Tensor:
    return forward(name, two_chunks(name, gate, dtype))


@pytest.mark.parametrize(("name", "gate", "argument"), ARGUMENTS)
@every_dtype
def test_a_nan_reaches_what_depends_on_it_and_nothing_else(name, gate, argument, dtype):
    inputs, clean = two_chunks(name, gate, dtype), clean_output(name, gate, dtype)
    x = getattr(inputs, argument)
    x[0, 9, 1], x[0, 9, 2] = torch.nan, torch.inf
    o = forward(name, inputs)
    assert torch.equal(o[:, :9], clean[:, :9])
    assert torch.equal(o[:, :, 0], clean[:, :, 0])
    assert not torch.isfinite(o[0, 9, 1:]).any()
    if argument == "q":
        assert torch.equal(o[:, 10:], clean[:, 10:])
    else:
        assert not torch.isfinite(o[0, 10:, 1:]).any()


@every_operator
@pytest.mark.parametrize("gate", ["head", "channel"])
def test_a_decay_of_minus_infinity_clears_the_memory(name, gate):
    inputs = OPERATORS[name].inputs(1, 50, 1, 16, 16, gate)
    assert inputs.g is not None
    inputs.g[:, 30] = -torch.inf
    o = forward(name, inputs)
    after = forward(name, inputs.rows(30, 50))
    assert torch.isfinite(o).all()
    torch.testing.assert_close(o[:, 30:], after, rtol=1e-5, atol=1e-6)


@every_operator
def test_derivatives_that_the_kernels_do_not_have_are_refused(name):
    tokens = [x.to(DEVICE) for x in OPERATORS[name].inputs(1, 3, 1, 4, 4, "head").tokens]

    def read(v):
        return OPERATORS[name].function(*tokens[:2], v, *tokens[3:], backend="triton")[0]

    for derivative in (torch.func.jacfwd(read), torch.func.jacrev(read)):
        with pytest.raises(RuntimeError, match="take backend='chunk'"):
            derivative(tokens[2])
    v = tokens[2].requires_grad_()
    (dv,) = torch.autograd.grad(read(v).square().sum(), v, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only: take backend='recurrent'"):
        dv.sum().backward()


@pytest.mark.skipif(DEVICE != "cpu", reason="a GPU computes in bfloat16")
@every_operator
def test_the_interpreter_refuses_bfloat16(name):
    tokens = [x.bfloat16() for x in OPERATORS[name].inputs(1, 3, 1, 4, 4, "none").tokens]
    with pytest.raises(RuntimeError, match="interpreter does not compute in bfloat16"):
        OPERATORS[name].function(*tokens, backend="triton")


@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter runs one program after the other")
@every_operator
@every_gate
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_same_bits_twice(name, gate, dtype):
    inputs = OPERATORS[name].inputs(1, 200, 2, 16, 16, gate)
    first, second = (run(name, inputs, dtype) for _ in range(2))
    for what, x in first.items():
        assert torch.equal(x, second[what]), what


@every_operator
@pytest.mark.parametrize(("gate", "packed"), [("none", True), ("head", False), ("channel", True)])
def test_opcheck(name, gate, packed):
    kernels = importlib.import_module(f"assocmem_kernels.{OPERATORS[name].function.__name__}")
    inputs = OPERATORS[name].inputs(1, 8, 1, 16, 16, gate)
    S = random_inputs(2 if packed else 1, 1, 1, 16, 16, gate).S
    borders = torch.tensor([0, 5, 8], device=DEVICE) if packed else None
    *tokens, S = (x.to(DEVICE).requires_grad_() for x in (*inputs.tokens, S))
    tokens += [None] * (gate == "none")
    dtype = (torch.float32,) * (name == "linear")
    operator, backward = (getattr(kernels, f"{OPERATORS[name].function.__name__}{x}")
                          for x in ("", "_backward"))  # fmt: skip
    torch.library.opcheck(operator, (*tokens, 0.25, S, borders, *dtype))
    detached = [None if x is None else x.detach() for x in (*tokens, S)]
    do, dS = detached[2], detached[-1]
    torch.library.opcheck(backward, (*detached[:-1], 0.25, detached[-1], borders, do, dS))


@every_operator
def test_kernels_are_launched_on_the_device_of_their_tensors(name, monkeypatch):
    """Which is not the current one where a process has several."""
    of, device_of = [], torch.cuda.device_of

    def noted(x):
        of.append(x.shape)
        return device_of(x)

    monkeypatch.setattr(torch.cuda, "device_of", noted)
    inputs = OPERATORS[name].inputs(1, 2, 1, 16, 16, "none")
    run(name, inputs, torch.float32)
    assert of == [inputs.q.shape] * 2  # forward and backward


@every_operator
@every_gate
def test_torch_compile_takes_the_whole_graph(name, gate):
    inputs = OPERATORS[name].inputs(1, 20, 1, 16, 16, gate)
    torch.compiler.reset()
    compiled = torch.compile(OPERATORS[name].function, fullgraph=True, backend="aot_eager")
    got = inputs.run(on_device(compiled), torch.float32)
    error, what = worst(got, run(name, inputs, torch.float32))
    assert error == 0, what


@every_operator
@pytest.mark.parametrize(("B", "T", "H"), [(2, 0, 2), (0, 5, 2), (2, 5, 0)])
def test_nothing_in_gives_nothing_out(name, B, T, H):
    q = torch.zeros(B, T, H, 16, requires_grad=True, device=DEVICE)
    S = torch.ones(B, H, 16, 16, requires_grad=True, device=DEVICE)
    beta = [q[..., 0]] * (name == "delta")
    o, final = OPERATORS[name].function(
        q, q, q, *beta, initial_state=S, output_final_state=True, backend="triton"
    )
    assert o.shape == (B, T, H, 16)
    torch.testing.assert_close(final, S)
    (dS,) = torch.autograd.grad(final.sum() + o.sum(), S)
    torch.testing.assert_close(dS, torch.ones_like(S))


@every_operator
@every_gate
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_decoding_token_by_token_equals_the_recurrence(name, gate, dtype):
    op = OPERATORS[name]
    inputs = op.inputs(2, 6, 3, 24, 40, gate)
    inputs = replace(inputs, **{x: getattr(inputs, x).to(dtype) for x in ("q", "k", "v")})
    S, outputs = inputs.S, []
    for t in range(6):
        o, S = on_device(op.function)(*inputs.rows(t, t + 1).tokens, initial_state=S)
        outputs.append(o)
    expected, final = op.reference(
        *(x.double() for x in inputs.tokens), initial_state=inputs.S.double()
    )
    bound = BOUND if dtype == torch.float32 else torch.finfo(dtype).eps / 2
    assert relative_error(torch.cat(outputs, 1), expected) <= bound
    assert relative_error(S, final) <= BOUND  # the state is not rounded
    assert torch.cat(outputs).dtype == dtype
