"""`ops.softmax_attention` against its definition in float64, in its recurrent and chunk forms."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from assocmem import ops
from assocmem.ops.softmax_attention import attend
from tests.ops.bad_input import BAD_FOR_ALL, q
from tests.ops.inputs import random_inputs
from tests.ops.reference import relative_error

FORMS = ("recurrent", "chunk")
GATES = ("none", "head")


def definition(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, scale: float) -> Tensor:
    """Token by token: every earlier key's log decay D falls by g_t, and the new key's is 0."""
    outputs, D = [], torch.zeros_like(q[:, :0, :, 0])  # [B, s, H]
    for t in range(q.shape[1]):
        decayed = D if g is None else D + g[:, t : t + 1]
        D = torch.cat((decayed, torch.zeros_like(q[:, t : t + 1, :, 0])), 1)
        weights = (scale * (q[:, t : t + 1] * k[:, : t + 1]).sum(-1) + D).exp()
        p = weights / weights.sum(1, keepdim=True)
        outputs.append((p[..., None] * v[:, : t + 1]).sum(1))
    return torch.stack(outputs, 1)


def tensors(B: int, T: int, H: int, K: int, V: int, gate: str, **options) -> list[Tensor]:
    inputs = random_inputs(B, T, H, K, V, gate, **options)
    return [x for x in (inputs.q, inputs.k, inputs.v, inputs.g) if x is not None]


def with_gradients(operator, arguments: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    leaves = [x.detach().to(dtype).requires_grad_() for x in arguments]
    o = operator(*leaves)
    do = random_inputs(*o.shape[:3], 1, o.shape[3], "none", seed=1).do
    return [o.detach(), *torch.autograd.grad(o, leaves, do.to(o))]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("T", "K", "V"), [(1, 8, 8), (65, 8, 5), (65, 16, 16), (200, 4, 8)])
def test_forms_equal_the_definition(gate, T, K, V):
    arguments = tensors(1, T, 2, K, V, gate)

    def defined(q, k, v, g=None):
        return definition(q, k, v, g, K**-0.5)

    expected = with_gradients(defined, arguments, torch.float64)
    for form, dtype, tolerance in [
        ("recurrent", torch.float64, 1e-13),
        ("chunk", torch.float64, 1e-13),
        ("chunk", torch.float32, 2e-6),
    ]:

        def operator(*x, form=form):
            return ops.softmax_attention(*x, backend=form)

        got = with_gradients(operator, arguments, dtype)
        for name, x, y in zip(("o", "dq", "dk", "dv", "dg"), got, expected, strict=False):
            if y.norm() == 0:  # one token has nothing to choose from
                assert x.abs().max() <= tolerance, (form, dtype, name)
            else:
                assert relative_error(x, y) <= tolerance, (form, dtype, name)


def test_a_bias_of_large_running_sums_keeps_its_digits():
    q, k, v, g = tensors(1, 200, 1, 8, 8, "head")
    g[:, :100] = -1000.0  # the running sums reach 10⁵, where float32 has two decimals
    got = ops.softmax_attention(q, k, v, g)
    expected = definition(*(x.double() for x in (q, k, v, g)), 8**-0.5)
    assert relative_error(got, expected) <= 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_a_decay_of_minus_infinity_clears_the_memory(form):
    leaves = [x.double().requires_grad_() for x in tensors(1, 100, 2, 8, 5, "head")]
    q, k, v, g = leaves
    cleared = g.clone()
    cleared[:, 30] = cleared[:, 70] = -torch.inf
    o = ops.softmax_attention(q, k, v, cleared, backend=form)
    after = ops.softmax_attention(*(x[:, 70:] for x in (q, k, v, g)), backend=form)
    torch.testing.assert_close(o[:, 70:], after, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(o[:, 70:].sum(), leaves)
    assert all(torch.isfinite(x).all() for x in gradients)
    assert all((x[:, :70] == 0).all() for x in gradients)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("gate", "argument"),
    [(gate, x) for gate in GATES for x in range(4) if (gate, x) != ("none", 3)],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_nan_reaches_what_depends_on_it_and_nothing_else(form, gate, argument, value):
    arguments = tensors(1, 130, 2, 8, 5, gate)
    clean = ops.softmax_attention(*arguments, backend=form)
    arguments[argument][0, 75, 1] = value
    o = ops.softmax_attention(*arguments, backend=form)
    # The form for poisoned keys and values adds zeros, and may run another kernel on the rest.
    torch.testing.assert_close(o[:, :75], clean[:, :75], rtol=1e-5, atol=1e-6)  # earlier tokens
    torch.testing.assert_close(o[:, :, 0], clean[:, :, 0], rtol=1e-5, atol=1e-6)  # the other head
    assert not torch.isfinite(o[0, 75, 1]).any()
    if argument == 0:
        torch.testing.assert_close(o[:, 76:], clean[:, 76:], rtol=1e-5, atol=1e-6)
    elif argument == 2 or value != value:  # an infinite score may be −∞, and weigh nothing
        assert not torch.isfinite(o[0, 76:, 1]).any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("T", [1, 2, 7, 15, 16, 40])
def test_a_query_without_a_number_reads_none_however_few_keys_there_are(form, value, T):
    q, k, v = tensors(1, T, 2, 8, 8, "none")
    q[0, T - 1, 1] = value
    o = ops.softmax_attention(q, k, v, backend=form)
    assert torch.isfinite(o[:, : T - 1]).all()
    assert torch.isfinite(o[0, T - 1, 0]).all()
    assert o[0, T - 1, 1].isnan().all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_packed_sequences_do_not_see_each_other(form, gate, dtype):
    borders = [0, 1, 1, 65, 129, 200]
    arguments = tensors(1, 200, 2, 12, 7, gate)
    cu_seqlens = torch.tensor(borders, dtype=dtype)
    o = ops.softmax_attention(*arguments, cu_seqlens=cu_seqlens, backend=form)
    assert o.shape == (1, 200, 2, 7)
    for start, end in pairwise(borders):
        alone = ops.softmax_attention(*(x[:, start:end] for x in arguments), backend=form)
        assert torch.equal(o[:, start:end], alone)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("T", [0, 1, 69, 150])
def test_queries_may_be_the_last_of_the_tokens(form, gate, T):
    q, k, v, *g = (x.double() for x in tensors(2, 150, 2, 12, 7, gate))
    whole = ops.softmax_attention(q, k, v, *g)
    got = attend(q[:, 150 - T :], k, v, g[0] if g else None, None, form)
    torch.testing.assert_close(got, whole[:, 150 - T :], rtol=1e-12, atol=1e-12)
    k[:, 100, 1] = torch.nan
    got = attend(q[:, 150 - T :], k, v, g[0] if g else None, None, form)
    assert torch.equal(
        got.isnan().any(-1),
        torch.arange(150 - T, 150)[:, None].ge(100).logical_and(torch.tensor([False, True]))
        .expand(2, -1, -1),
    )  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_heads_of_keys_that_are_fewer_serve_as_many_queries_each(form):
    q, k, v = tensors(2, 20, 4, 8, 5, "none")

    def shared(v):
        return attend(q, k[:, :, :2], v, None, None, form)

    def apart(v):
        k_each, v_each = (x[:, :, :2].repeat_interleave(2, 2) for x in (k, v))
        return attend(q, k_each, v_each, None, None, form)

    v = v[:, :, :2]
    torch.testing.assert_close(*(torch.func.jvp(f, (v,), (v,))[1] for f in (shared, apart)))
    v[0, 9, 1] = torch.nan
    torch.testing.assert_close(shared(v), apart(v), equal_nan=True)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("form", FORMS)
def test_gradients(form, gate):
    leaves = [x.double().requires_grad_() for x in tensors(1, 6, 2, 3, 2, gate)]

    def operator(*x):
        return ops.softmax_attention(*x, backend=form)

    assert gradcheck(operator, leaves)
    if form == "recurrent":
        assert gradgradcheck(operator, leaves)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_half_precision(form, gate, dtype):
    q, k, v, *g = tensors(1, 200, 2, 24, 16, gate)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    o = ops.softmax_attention(q, k, v, *g, backend=form)
    assert o.dtype == dtype
    expected = ops.softmax_attention(
        *(x.double() for x in (q, k, v, *g)), backend="recurrent"
    )  # itself equal to the definition, above
    assert relative_error(o, expected) <= torch.finfo(dtype).eps / 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_round_the_decay(dtype):
    """Scores that rise as the decay falls, so that every earlier token weighs about the same."""
    _, _, v, g = tensors(1, 200, 1, 4, 16, "head")
    g = g.fill_(-1.7)
    q, k = torch.ones(1, 200, 1, 1), g.cumsum(1)[..., None]
    q, k, v = (x.to(dtype) for x in (q, k, v))
    o = ops.softmax_attention(q, k, v, g)
    expected = definition(*(x.double() for x in (q, k, v, g)), 1.0)
    assert relative_error(o, expected) <= torch.finfo(dtype).eps / 2


@pytest.mark.parametrize("gate", GATES)
def test_autocast_casts_the_inputs(gate):
    arguments = tensors(1, 70, 2, 16, 16, gate)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o = ops.softmax_attention(*arguments)
    expected = ops.softmax_attention(*(x.bfloat16() for x in arguments[:3]), *arguments[3:])
    assert o.dtype == torch.bfloat16
    assert torch.equal(o, expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
def test_strides_do_not_matter(form, gate):
    q, k, v, *g = tensors(2, 70, 3, 16, 16, gate)
    q, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, v))
    k = k[:, :, :1].expand(-1, -1, 3, -1)  # one key head for all
    o = ops.softmax_attention(q, k, v, *g, backend=form)
    expected = ops.softmax_attention(*(x.contiguous() for x in (q, k, v, *g)), backend=form)
    assert relative_error(o, expected) <= 1e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("B", "T", "H"), [(2, 0, 3), (0, 5, 3), (2, 5, 0)])
def test_nothing_in_gives_nothing_out(form, gate, B, T, H):
    sizes = [(4,), (4,), (3,), *[()] * (gate != "none")]
    leaves = [torch.zeros(B, T, H, *size, requires_grad=True) for size in sizes]
    o = ops.softmax_attention(*leaves, backend=form)
    assert o.shape == (B, T, H, 3)
    gradients = torch.autograd.grad(o.sum(), leaves)  # it has some, as any other
    assert [x.shape for x in gradients] == [x.shape for x in leaves]


def test_scale_defaults_to_one_over_the_root_of_k():
    q, k, v = tensors(1, 10, 1, 16, 4, "none")
    quarter = ops.softmax_attention(q, k, v, scale=0.25)
    assert torch.equal(ops.softmax_attention(q, k, v), quarter)
    torch.testing.assert_close(ops.softmax_attention(4 * q, k, v, scale=0.0625), quarter)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("scale", [0.0, -0.5])
def test_a_scale_may_be_zero_or_negative(scale, gate):
    arguments = tensors(1, 70, 2, 8, 8, gate)

    def defined(q, k, v, g=None):
        return definition(q, k, v, g, scale)

    def operator(q, k, v, g=None):
        return ops.softmax_attention(q, k, v, g, scale=scale)

    pairs = zip(
        with_gradients(defined, arguments, torch.float64),
        with_gradients(operator, arguments, torch.float32),
        strict=True,
    )
    for expected, found in pairs:  # with a scale of 0 some gradients are 0
        assert (found - expected).norm() <= 2e-6 * expected.norm()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
def test_torch_compile_takes_the_whole_graph(form, gate):
    arguments = tensors(1, 70 if form == "chunk" else 4, 2, 16, 8, gate)
    torch.compiler.reset()
    compiled = torch.compile(ops.softmax_attention, fullgraph=True, backend="aot_eager")
    got = with_gradients(lambda *x: compiled(*x, backend=form), arguments, torch.float32)
    expected = with_gradients(
        lambda *x: ops.softmax_attention(*x, backend=form), arguments, torch.float32
    )
    for x, y in zip(got, expected, strict=True):
        assert relative_error(x, y) <= 1e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
def test_vmap_over_the_batch(form, gate):
    arguments = tensors(3, 20, 2, 16, 8, gate)

    def one(*x):
        return ops.softmax_attention(*(y[None] for y in x), backend=form)[0]

    got = torch.func.vmap(one)(*arguments)
    assert relative_error(got, ops.softmax_attention(*arguments, backend=form)) <= 1e-6


def test_a_gate_that_is_learned_under_vmap():
    # K = V, as PyTorch has a fused kernel on a CPU for that alone.
    *rest, g = tensors(3, 20, 2, 16, 16, "head")
    got, expected = (g.detach().clone().requires_grad_() for _ in range(2))

    def one(*x):
        return ops.softmax_attention(*(y[None] for y in x))[0]

    torch.func.vmap(one)(*rest, got).square().sum().backward()
    ops.softmax_attention(*rest, expected, backend="recurrent").square().sum().backward()
    assert relative_error(got.grad, expected.grad) <= 1e-6


@pytest.mark.parametrize("gate", GATES)
def test_forward_mode(gate):
    arguments = tuple(x.double() for x in tensors(2, 20, 2, 16, 16, gate))
    got, expected = (
        torch.func.jvp(partial(ops.softmax_attention, backend=form), arguments, arguments)[1]
        for form in ("chunk", "recurrent")
    )
    assert relative_error(got, expected) <= 1e-12


def test_meta_tensors_give_shapes():
    q = torch.empty(2, 130, 3, 16, device="meta")
    assert ops.softmax_attention(q, q, q, q[..., 0]).shape == (2, 130, 3, 16)


BAD = BAD_FOR_ALL | {
    "g no tensor": (dict(g=-0.1), TypeError, r"g must be a torch.Tensor, got float"),
    "g a channel": (
        dict(g=q),
        ValueError,
        r"g must have shape \[B, T, H\] = \[2, 10, 3\] like q, got \[2, 10, 3, 4\]",
    ),
    "g integer": (dict(g=q[..., 0].long()), TypeError, r"g must be a floating-point tensor"),
    "g device": (dict(g=q[..., 0].to("meta")), ValueError, r"g must be on cpu like q, got meta"),
    "scale": (dict(scale=True), TypeError, r"scale must be a number or None, got bool"),
    "triton": (
        dict(backend="triton"),
        RuntimeError,
        r"backend='triton' cannot run here: softmax attention is PyTorch's own kernel",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    changes, error, message = BAD[case]
    with pytest.raises(error, match=message):
        ops.softmax_attention(**{**dict(q=q, k=q, v=q), **changes})  # pyright: ignore
