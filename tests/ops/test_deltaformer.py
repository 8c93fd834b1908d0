"""`ops.deltaformer` against its definition in float64, in its recurrent and chunk forms."""

from __future__ import annotations

import multiprocessing
import sys
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.forward_ad import dual_level, make_dual

from assocmem import ops
from assocmem.ops import erase as erasing
from assocmem.ops.chunks import heads_first
from assocmem.ops.deltaformer import write_and_read
from assocmem.ops.strips import solve_strips, solve_strips_backward
from benchmarks.cpu import raised_peak
from tests.ops.bad_input import BAD_FOR_ALL, q
from tests.ops.inputs import KEYS, delta_inputs, random_inputs
from tests.ops.reference import relative_error

FORMS = ("recurrent", "chunk")
BETAS = {"0": (0.0, 0.0), "1": (1.0, 1.0), "-1": (-1.0, -1.0), "random": (-1.0, 1.0)}
NAMES = ("o", "dq", "dk", "dv", "dbeta", "dw")
every_form = pytest.mark.parametrize("form", FORMS)
every_erase = pytest.mark.parametrize("erase", erasing.ERASE)


def definition(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, w: Tensor | None = None, *,
    erase: str = "softmax", scale: float | None = None,
) -> Tensor:  # fmt: skip
    """All equations u_t + β_t Σ_{s<t} κ₁(w_t, k_s) u_s = v_t as one dense system, then softmax."""
    T, K = q.shape[1], q.shape[3]
    scale = K**-0.5 if scale is None else scale
    now = torch.arange(T)[:, None]
    before, so_far = now > torch.arange(T), now >= torch.arange(T)
    w = k if w is None else w
    scores = torch.einsum("bthk,bshk->bhts", w, k)
    if erase == "softmax":
        weights = (scale * scores - (scale * scores).amax(-1, keepdim=True)).exp() * before
        P = weights / weights.sum(-1, keepdim=True).clamp_min(1e-300)
    else:
        P = (scores.clamp_min(0) if erase == "relu" else scores) * before
    system = torch.eye(T, dtype=q.dtype) + beta.mT[..., None] * P
    u = torch.linalg.solve(system, v.transpose(1, 2))
    reading = scale * torch.einsum("bthk,bshk->bhts", q, k)
    weights = (reading - reading.amax(-1, keepdim=True)).exp() * so_far
    return (weights / weights.sum(-1, keepdim=True) @ u).transpose(1, 2)


def tensors(B: int, T: int, H: int, K: int, V: int, erase: str = "softmax", **options):
    """q, k, v, β and w; without a softmax keys of length 1 and w = k, or u would have no bound."""
    inputs = delta_inputs(B, T, H, K, V, "none", **{"beta": (0.0, 1.0), **options})
    assert inputs.beta is not None
    w = random_inputs(B, T, H, K, V, "none", seed=1).k
    k = K**0.5 * inputs.k if erase == "softmax" else inputs.k
    return [inputs.q, k, inputs.v, inputs.beta, w if erase == "softmax" else k.clone()]


def deltaformer(q, k, v, beta, w, **options) -> Tensor:
    return ops.deltaformer(q, k, v, beta, w=w, **options)


def with_gradients(operator, arguments: list[Tensor], dtype: torch.dtype, **options):
    leaves = [x.detach().to(dtype).requires_grad_() for x in arguments]
    o = operator(*leaves, **options)
    do = random_inputs(*o.shape[:3], 1, o.shape[3], "none", seed=1).do
    # Through κ₁ a single token gets no gradient, in the definition not even a path.
    return [
        o.detach(), *torch.autograd.grad(o, leaves, do.to(o), materialize_grads=True)
    ]  # fmt: skip


def worst(got: list[Tensor], expected: list[Tensor]) -> tuple[float, str]:
    """The largest relative error, absolute where zero is expected, and of what."""
    errors = []
    for name, x, y in zip(NAMES, got, expected, strict=False):
        vanishes = y.norm() <= 1e-9
        errors.append((float(x.abs().max()) if vanishes else relative_error(x, y), name))
    return max(errors)


@every_erase
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("T", [1, 2, 63, 65, 200])
def test_forms_equal_the_definition(erase, beta, T):
    arguments = tensors(1, T, 2, 16, 24, erase, beta=BETAS[beta])
    if erase != "softmax":  # with β < 0 or w ≠ k, u would grow exponentially
        arguments[3] = arguments[3].abs()
    expected = with_gradients(definition, arguments, torch.float64, erase=erase)
    for form, dtype, bound in [
        ("recurrent", torch.float64, 1e-12),
        ("chunk", torch.float64, 1e-12),
        ("chunk", torch.float32, 2e-6),
    ]:
        got = with_gradients(deltaformer, arguments, dtype, erase=erase, backend=form)
        error, what = worst(got, expected)
        assert error <= bound, (form, dtype, what)


@every_erase
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("T", [513, 1000])
def test_chunk_form_of_longer_sequences(erase, beta, T):
    arguments = tensors(1, T, 1, 32, 16, erase, beta=BETAS[beta])
    if erase != "softmax":
        arguments[3] = arguments[3].abs()
    expected = with_gradients(definition, arguments, torch.float64, erase=erase)
    got = with_gradients(deltaformer, arguments, torch.float32, erase=erase, backend="chunk")
    error, what = worst(got, expected)
    assert error <= 2e-6, what


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize(
    ("erase", "beta"),
    [("softmax", (1.0, 1.0)), ("linear", (1.0, 1.0)), ("linear", (1.9, 2.0))],
)
def test_the_worst_keys(keys, erase, beta):
    """With β near 2 nothing fades, and the recurrent form in float32 is off by up to 7e-6."""
    q, k, v, beta, _ = tensors(1, 300, 1, 64, 32, erase, keys=keys, beta=beta)
    expected = with_gradients(definition, [q, k, v, beta], torch.float64, erase=erase)
    own, got = (
        worst(with_gradients(ops.deltaformer, [q, k, v, beta], torch.float32, erase=erase,
                             backend=form), expected)
        for form in FORMS
    )  # fmt: skip
    assert got[0] <= max(2e-6, 2 * own[0]), got[1]


@every_form
def test_without_steps_it_is_softmax_attention(form):
    q, k, v, beta, w = tensors(2, 100, 2, 16, 8)
    o = ops.deltaformer(q, k, v, 0 * beta, w=w, backend=form)
    assert relative_error(o, ops.softmax_attention(q, k, v, backend="recurrent")) <= 1e-6


@every_form
@every_erase
def test_defaults_are_a_step_of_one_and_erase_keys_that_are_the_keys(form, erase):
    q, k, v, beta, _ = tensors(2, 70, 2, 16, 8, erase)
    o = ops.deltaformer(q, k, v, erase=erase, backend=form)
    ones = torch.ones_like(beta)
    assert torch.equal(o, ops.deltaformer(q, k, v, ones, w=k, erase=erase, backend=form))


def corrections(q, k, v, beta, w, past=None, erase="softmax", scale=1.0, backend="chunk"):
    past = v[:, :0] if past is None else past
    return write_and_read(q, w, k, v, beta, past, erase, scale, backend)


@every_form
def test_corrections_are_bounded_below_a_step_of_one_and_may_grow_at_one(form):
    """Every token erases what the one before it wrote, and brings the value ±1."""
    T = 100
    k = torch.eye(T)[None, :, None].double()
    w = 100 * k.roll(1, 1)
    v = (-1.0) ** torch.arange(T)[None, :, None, None].double()
    n = torch.arange(1, T + 1).double()
    for b, size in ((1.0, n), (0.9, (1 - 0.9**n) / (1 - 0.9))):
        beta = torch.full((1, T, 1), b, dtype=torch.float64)
        _, u = corrections(k, k, v, beta, w, backend=form)
        torch.testing.assert_close(u[0, :, 0, 0].abs(), size)
        assert b == 1 or u.abs().max() <= 1 / (1 - b)


@every_form
@every_erase
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_packed_sequences_do_not_see_each_other(form, erase, dtype):
    borders = [0, 1, 1, 65, 129, 200]
    arguments = tensors(1, 200, 2, 12, 7, erase)
    cu_seqlens = torch.tensor(borders, dtype=dtype)
    o = deltaformer(*arguments, erase=erase, cu_seqlens=cu_seqlens, backend=form)
    assert o.shape == (1, 200, 2, 7)
    for start, end in pairwise(borders):
        alone = deltaformer(*(x[:, start:end] for x in arguments), erase=erase, backend=form)
        assert torch.equal(o[:, start:end], alone)


@every_form
@every_erase
def test_pieces_and_single_tokens_equal_the_whole_with_all_gradients(form, erase):
    leaves = [x.double().requires_grad_() for x in tensors(2, 150, 2, 12, 7, erase)]
    do = random_inputs(2, 150, 2, 12, 7, "none", seed=1).do.double()
    q, k, v, beta, w = leaves
    whole, u_whole = corrections(q, k, v, beta, w, erase=erase, backend=form)
    expected = torch.autograd.grad((whole * do).sum() + u_whole.square().sum(), leaves)
    outputs, u = [], None
    for start, end in ((0, 1), (1, 81), (81, 81), (81, 149), (149, 150)):
        rows = slice(start, end)
        o, u = corrections(
            q[:, rows], k[:, :end], v[:, rows], beta[:, rows], w[:, rows], u, erase, backend=form
        )
        outputs.append(o)
    assert u is not None
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(u, u_whole, rtol=1e-12, atol=1e-12)
    got = torch.autograd.grad((torch.cat(outputs, 1) * do).sum() + u.square().sum(), leaves)
    for x, y in zip(got, expected, strict=True):
        assert relative_error(x, y) <= 1e-11


@every_form
@every_erase
@pytest.mark.parametrize("argument", range(5))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_nan_reaches_what_depends_on_it_and_nothing_else(form, erase, argument, value):
    arguments = [x.clone() for x in tensors(1, 130, 2, 8, 5, erase)]
    clean = deltaformer(*arguments, erase=erase, backend=form)
    arguments[argument][0, 75, 1] = value
    o = deltaformer(*arguments, erase=erase, backend=form)
    torch.testing.assert_close(o[:, :75], clean[:, :75], rtol=1e-5, atol=1e-6)  # earlier tokens
    torch.testing.assert_close(o[:, :, 0], clean[:, :, 0], rtol=1e-5, atol=1e-6)  # the other head
    if argument == 0:
        torch.testing.assert_close(o[:, 76:], clean[:, 76:], rtol=1e-5, atol=1e-6)
    # An infinite score may be −∞, and weigh nothing.
    if value != value or argument == 2:
        assert not torch.isfinite(o[0, 75, 1]).any()
        assert argument == 0 or not torch.isfinite(o[0, 76:, 1]).any()


@every_erase
@pytest.mark.parametrize("argument", range(1, 5))
def test_a_nan_stays_in_its_place_when_the_solver_inverts(monkeypatch, erase, argument):
    """As solvers on GPUs do with blocks: a row then meets the others times zero."""
    arguments = [x.clone() for x in tensors(1, 130, 1, 8, 5, erase)]
    clean = deltaformer(*arguments, erase=erase)
    arguments[argument][0, 75] = torch.nan

    def invert(L, D):
        return (torch.linalg.inv(torch.eye(len(L[0])) + L) @ D.to(L)).to(D)

    monkeypatch.setattr(sys.modules["assocmem.ops.strips"], "solve", invert)
    o = deltaformer(*arguments, erase=erase)
    torch.testing.assert_close(o[:, :75], clean[:, :75], rtol=1e-5, atol=1e-6)
    assert not torch.isfinite(o[:, 75:]).any()


@pytest.mark.parametrize("keys", ["identical", "alternating"])
def test_a_nan_costs_earlier_tokens_no_digits(keys):
    q, k, v, beta, _ = tensors(1, 300, 1, 64, 32, "linear", keys=keys, beta=(1.9, 2.0))
    expected = definition(*(x.double() for x in (q, k, v, beta)), erase="linear")
    v[0, -1] = torch.nan
    o = ops.deltaformer(q, k, v, beta, erase="linear")
    assert relative_error(o[:, :-1], expected[:, :-1]) <= 1e-6


@every_form
@every_erase
def test_gradients(form, erase):
    leaves = [x.double().requires_grad_() for x in tensors(1, 67, 1, 3, 2, erase)]
    if form == "recurrent":
        leaves = [x[:, :6].detach().requires_grad_() for x in leaves]

    def operator(*x):
        return deltaformer(*x, erase=erase, backend=form)

    assert gradcheck(operator, leaves, fast_mode=True)
    if form == "recurrent":
        assert gradgradcheck(operator, leaves, fast_mode=True)
    else:
        with pytest.raises(RuntimeError, match="first derivatives only: take backend='recurrent'"):
            gradgradcheck(operator, leaves, fast_mode=True)


@every_erase
@pytest.mark.parametrize("past", [0, 5])
def test_opcheck(erase, past):
    _, k, v, beta, w = (x.transpose(1, 2).flatten(0, 1) for x in tensors(1, 75, 2, 4, 3, erase))
    tokens = [w[:, past:], k, v[:, past:], beta[:, past:], v[:, :past]]
    tokens = [x.contiguous().requires_grad_() for x in tokens]
    torch.library.opcheck(solve_strips, (*tokens, erase))
    w, k, v, beta, old = (x.detach() for x in tokens)
    u, y = solve_strips(w, k, v, beta, old, erase)
    torch.library.opcheck(solve_strips_backward, (w, k, beta, old, u, y, v, erase))


@every_erase
def test_a_graph_knows_the_layout_of_corrections(erase):
    """Also of a single batch element, whose heads could stay where they are."""
    _, k, v, beta, w = tensors(1, 70, 2, 4, 3, erase)
    arguments = (heads_first(x, v) for x in (w, k, v, beta, v[:, :0]))
    torch.library.opcheck(solve_strips, (*arguments, erase), test_utils="test_faketensor")


@every_form
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(form, dtype):
    q, k, v, beta, w = tensors(1, 200, 2, 24, 16)
    q, k, v, w = (x.to(dtype) for x in (q, k, v, w))
    o = ops.deltaformer(q, k, v, beta, w=w, backend=form)
    assert o.dtype == dtype
    expected = definition(*(x.double() for x in (q, k, v, beta, w)))
    assert relative_error(o, expected) <= torch.finfo(dtype).eps / 2


def test_autocast_casts_the_inputs():
    q, k, v, beta, w = tensors(1, 70, 2, 16, 16)
    q.requires_grad_()
    w.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o = ops.deltaformer(q, k, v, beta, w=w)
        gradients = torch.autograd.grad(o.sum(), (q, w), retain_graph=True)
    outside = torch.autograd.grad(o.sum(), (q, w))
    assert all(map(torch.equal, gradients, outside))
    q, k, v, w = (x.bfloat16() for x in (q, k, v, w))
    assert o.dtype == torch.bfloat16
    assert torch.equal(o, ops.deltaformer(q, k, v, beta, w=w))


@pytest.mark.parametrize("past", [0, 69])
def test_autocast_rounds_no_corrections(past):
    q, k, v, beta, w = tensors(1, 70, 2, 16, 16)
    q, new, old = q[:, past:], [x[:, past:] for x in (v, beta, w)], v[:, :past]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = corrections(q, k, *new, old)
    torch.testing.assert_close(got, corrections(q, k, *new, old), rtol=0, atol=0)


@every_form
def test_strides_do_not_matter(form):
    arguments = tensors(2, 70, 3, 16, 16)
    arguments[1] = arguments[1][:, :, :1].expand(-1, -1, 3, -1)  # one key head for all
    arguments[2] = arguments[2].transpose(1, 2).contiguous().transpose(1, 2)
    o = deltaformer(*arguments, backend=form)
    expected = deltaformer(*(x.contiguous() for x in arguments), backend=form)
    assert relative_error(o, expected) <= 1e-6


@every_form
@every_erase
@pytest.mark.parametrize(("B", "T", "H"), [(2, 0, 3), (0, 5, 3), (2, 5, 0)])
def test_nothing_in_gives_nothing_out(form, erase, B, T, H):
    leaves = [torch.zeros(B, T, H, *n, requires_grad=True) for n in ((4,), (4,), (3,), ())]
    o = ops.deltaformer(*leaves, erase=erase, backend=form)
    assert o.shape == (B, T, H, 3)
    gradients = torch.autograd.grad(o.sum(), leaves)  # it has some, as any other
    assert [x.shape for x in gradients] == [x.shape for x in leaves]


def test_scale_is_that_of_both_softmaxes():
    q, k, v, beta, w = tensors(1, 10, 1, 16, 4)
    quarter = ops.deltaformer(q, k, v, beta, w=w, scale=0.25)
    assert torch.equal(ops.deltaformer(q, k, v, beta, w=w), quarter)
    torch.testing.assert_close(ops.deltaformer(4 * q, k, v, beta, w=4 * w, scale=0.0625), quarter)


@pytest.mark.parametrize(
    ("form", "erase"), [("recurrent", "softmax"), *(("chunk", erase) for erase in erasing.ERASE)]
)
def test_torch_compile_takes_the_whole_graph(form, erase):
    arguments = tensors(1, 70 if form == "chunk" else 4, 2, 16, 8, erase)
    torch.compiler.reset()
    compiled = torch.compile(deltaformer, fullgraph=True, backend="aot_eager")
    options = {"erase": erase, "backend": form}
    got = with_gradients(compiled, arguments, torch.float32, **options)
    expected = with_gradients(deltaformer, arguments, torch.float32, **options)
    assert worst(got, expected)[0] <= 1e-6


@every_form
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # PyTorch's attention, not ours
def test_vmap_over_the_batch(form):
    leaves = [x.requires_grad_() for x in tensors(3, 70, 2, 16, 8)]

    def batched(q, k, *others):
        def one(*x):
            return deltaformer(*(y[None] for y in x), backend=form)[0]

        # The keys are the same for the whole batch.
        return torch.func.vmap(one, (0, None, 0, 0, 0))(q, k[0], *others)

    def shared(q, k, *others):
        return deltaformer(q, k[:1].expand_as(k), *others, backend=form)

    got, expected = (with_gradients(f, leaves, torch.float32) for f in (batched, shared))
    assert worst(got, expected)[0] <= 1e-6


def test_forward_mode_and_func_derivatives():
    """The definition has them. Where there are none, 0 must not stand for them."""
    q, k, v, beta, w = tensors(1, 6, 1, 4, 3)

    def read(v, backend="recurrent"):
        return deltaformer(q, k, v, beta, w, backend=backend)

    read_all = torch.func.vmap(lambda v: read(v, "chunk"))
    _, change = torch.func.jvp(read, (v,), (torch.ones_like(v),))
    assert relative_error(change, read(torch.ones_like(v))) <= 1e-6  # o is linear in v
    for derivative in (
        lambda: torch.func.jvp(lambda v: read(v, "auto"), (v,), (v,)),
        lambda: torch.func.grad(lambda v: read(v, "auto").sum())(v),
        lambda: torch.func.vmap(torch.func.grad(lambda v: read(v, "chunk").sum()))(v[None]),
        lambda: torch.func.grad(lambda v: read_all(v[None]).sum())(v),
    ):
        with pytest.raises(RuntimeError, match="take backend='recurrent'"):
            derivative()
    with dual_level(), pytest.raises(RuntimeError, match="backend='chunk' has the gradients of"):
        read(make_dual(v, v), "chunk")


def test_meta_tensors_give_shapes():
    q = torch.empty(2, 130, 3, 16, device="meta")
    assert ops.deltaformer(q, q, q, q[..., 0]).shape == (2, 130, 3, 16)


def peak(T: int) -> int:
    """Bytes by which forward and backward of T tokens raise the peak memory of this process."""
    few, many = ([torch.rand(1, n, 1, 8).requires_grad_() for _ in range(3)] for n in (100, T))
    ops.deltaformer(*few).sum().backward()  # what PyTorch sets up once
    return raised_peak(lambda: ops.deltaformer(*many).sum().backward())


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_does_not_grow_like_the_square_of_the_tokens():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(peak, (4096,)) <= 0.2 * 4 * 4096**2


BAD = BAD_FOR_ALL | {
    "w no tensor": (dict(w=1.0), TypeError, r"w must be a torch.Tensor, got float"),
    "w shape": (
        dict(w=q[..., :3]),
        ValueError,
        r"w must have shape \[B, T, H, K\] = \[2, 10, 3, 4\] like q",
    ),
    "w rank": (dict(w=q[0]), ValueError, r"w must have shape \[B, T, H, K\], got \[10, 3, 4\]"),
    "w dtype": (dict(w=q.double()), TypeError, r"w must be .* the same as q .*got torch.float64"),
    "w device": (dict(w=q.to("meta")), ValueError, r"w must be on cpu like q, got meta"),
    "beta no tensor": (dict(beta=0.5), TypeError, r"beta must be a torch.Tensor, got float"),
    "beta shape": (
        dict(beta=q[:, :, 0, 0]),
        ValueError,
        r"beta must have shape \[B, T, H\] = \[2, 10, 3\] like q, got \[2, 10\]",
    ),
    "erase": (
        dict(erase="exp"),
        ValueError,
        r"erase must be one of \['softmax', 'linear', 'relu'\], got 'exp'",
    ),
    "scale": (dict(scale=True), TypeError, r"scale must be a number or None, got bool"),
    "triton": (
        dict(**dict.fromkeys("qkv", q.double()), backend="triton"),
        RuntimeError,
        r"backend='triton' cannot run here: the kernels compute in float32 at most",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    if case == "triton":
        pytest.importorskip("triton", reason="triton is missing")
    changes, error, message = BAD[case]
    with pytest.raises(error, match=message):
        ops.deltaformer(**{**dict(q=q, k=q, v=q), **changes})  # pyright: ignore
