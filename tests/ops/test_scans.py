"""What every scan owes its users, in its recurrent and chunk forms, against its definition."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck

from assocmem import ops
from assocmem.ops.decay import decay_of
from assocmem.ops.poison import known_to_be_finite
from tests.ops.bad_input import BAD_FOR_ALL, q
from tests.ops.inputs import GATES, in_another_layout, random_inputs
from tests.ops.operators import ARGUMENTS, OPERATORS, worst
from tests.ops.reference import relative_error

FORMS = ("recurrent", "chunk")

every_operator = pytest.mark.parametrize("name", OPERATORS)
every_form = pytest.mark.parametrize("form", FORMS)
every_gate = pytest.mark.parametrize("gate", GATES)


@every_operator
@every_gate
@pytest.mark.parametrize(
    ("T", "K", "V"),
    [(1, 16, 24), (2, 60, 16), (63, 24, 64), (64, 16, 24), (64, 64, 60), (65, 60, 16),
     (65, 128, 128), (127, 24, 64)],
)  # fmt: skip
def test_forms_equal_the_recurrence(name, gate, T, K, V):
    op = OPERATORS[name]
    inputs = op.inputs(2, T, 2, K, V, gate)
    expected = op.expected(inputs)
    for form in FORMS:
        error, what = worst(op.run(inputs, torch.float64, form), expected)
        assert error <= 2e-13, (form, what)
    error, what = worst(op.run(inputs, torch.float32, "chunk"), expected)
    assert error <= 1e-6, what


@every_operator
@every_gate
@pytest.mark.parametrize("T", [200, 500, 1000])
def test_chunk_form_of_longer_sequences(name, gate, T):
    op = OPERATORS[name]
    inputs = op.inputs(1, T, 2, 32, 24, gate, strength=2.0)
    error, what = worst(op.run(inputs, torch.float32, "chunk"), op.expected(inputs))
    assert error <= 1e-6, what


def test_a_sum_beyond_float16_is_not_taken_for_an_infinity():
    x = torch.ones(70_000, dtype=torch.float16)
    assert known_to_be_finite(x)
    x[5] = torch.inf
    assert not known_to_be_finite(x)


@every_operator
@pytest.mark.parametrize("gate", ["head", "channel"])
@pytest.mark.parametrize("strength", [-6.0, 6.0, 40.0])
def test_weak_and_strong_decay(name, gate, strength):
    op = OPERATORS[name]
    inputs = op.inputs(1, 200, 2, 32, 24, gate, strength=strength)
    expected = op.expected(inputs)
    # At strength -40 every decay is e^-40, and so is the gradient of its logarithm.
    if strength == 40:
        del expected["dg"]
    error, what = worst(op.run(inputs, torch.float32, "chunk"), expected)
    assert error <= 1e-6, what


@every_operator
@every_form
@pytest.mark.parametrize("gate", ["head", "channel"])
def test_a_decay_of_minus_infinity_clears_the_memory(name, form, gate):
    op = OPERATORS[name]
    inputs = op.inputs(1, 100, 2, 8, 5, gate)
    assert inputs.g is not None
    inputs.g[:, 70] = -torch.inf
    inputs.v[:, :70] *= 1e6  # of which not a rounding error may remain
    o, S = op.function(*inputs.tokens, output_final_state=True, backend=form)
    later = inputs.rows(70, 100).tokens
    after, S_after = op.function(*later, output_final_state=True, backend=form)
    assert torch.isfinite(o).all()
    torch.testing.assert_close(o[:, 70:], after, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(S, S_after, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gate", ["head", "channel"])
def test_decays_are_cast_to_what_they_multiply(gate):
    """A chunk's numbers keep their dtype where its decays are in float64."""
    x = random_inputs(3, 33, 2, 8, 8, gate)  # as 3 chunks of 2 heads
    assert x.g is not None
    q, k, v, g = (y.transpose(1, 2) for y in (x.q, x.k, x.v, x.g))
    exact, rounded = decay_of(g.double()), decay_of(g)
    for got, expected in (
        (exact.scores(q, k), rounded.scores(q, k)),
        (exact.since_start(q), rounded.since_start(q)),
        (exact.until_end(k), rounded.until_end(k)),
        (exact.over_chunk(1, x.S[1]), rounded.over_chunk(1, x.S[1])),
        (exact.written(1, x.S[1], k[1], v[1]), rounded.written(1, x.S[1], k[1], v[1])),
    ):
        assert got.dtype == torch.float32
        assert relative_error(got, expected) <= 1e-6
    if gate == "channel":  # the scores are rounded once
        assert torch.equal(exact.scores(q, k), exact.scores(q.double(), k.double()).float())


@every_form
@pytest.mark.parametrize(("name", "gate", "argument"), ARGUMENTS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_nan_reaches_what_depends_on_it_and_nothing_else(form, name, gate, argument, value):
    op = OPERATORS[name]
    inputs = op.inputs(1, 130, 2, 8, 5, gate)
    clean, _ = op.function(*inputs.tokens, backend=form)
    getattr(inputs, argument)[0, 75, 1] = value
    o, S = op.function(*inputs.tokens, output_final_state=True, backend=form)
    assert torch.equal(o[:, :, 0], clean[:, :, 0])  # the other head
    assert relative_error(o[:, :75], clean[:, :75]) <= 1e-6  # earlier tokens
    assert not torch.isfinite(o[0, 75, 1]).any()
    if argument == "q":
        assert torch.equal(o[:, 76:], clean[:, 76:])
    else:
        assert not torch.isfinite(o[0, 76:, 1]).any()
        assert not torch.isfinite(S[0, 1]).all()


@every_operator
@every_form
@every_gate
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_packed_sequences_do_not_see_each_other(name, form, gate, dtype):
    op, borders = OPERATORS[name], [0, 1, 1, 65, 129, 200]
    inputs = op.inputs(1, 200, 2, 12, 7, gate)
    S = random_inputs(5, 1, 2, 12, 7, gate).S
    o, final = op.function(
        *inputs.tokens, initial_state=S, output_final_state=True,
        cu_seqlens=torch.tensor(borders, dtype=dtype), backend=form,
    )  # fmt: skip
    for n in range(5):
        part = inputs.rows(borders[n], borders[n + 1])
        alone, alone_final = op.function(
            *part.tokens, initial_state=S[n : n + 1], output_final_state=True, backend=form
        )
        assert torch.equal(o[:, borders[n] : borders[n + 1]], alone)
        assert torch.equal(final[n : n + 1], alone_final)


@every_operator
@every_form
@every_gate
def test_pieces_equal_the_whole(name, form, gate):
    op = OPERATORS[name]
    inputs = op.inputs(2, 200, 2, 12, 7, gate)
    whole, final = op.function(*inputs.tokens, output_final_state=True, backend=form)
    S, pieces = None, []
    for start, stop in ((0, 1), (1, 80), (80, 80), (80, 200)):
        o, S = op.function(
            *inputs.rows(start, stop).tokens,
            initial_state=S, output_final_state=True, backend=form,
        )  # fmt: skip
        pieces.append(o)
    assert relative_error(torch.cat(pieces, 1), whole) <= 1e-6
    assert S is not None
    assert relative_error(S, final) <= 1e-6


@every_operator
@every_form
@every_gate
def test_gradients_of_first_and_second_order(name, form, gate):
    op = OPERATORS[name]
    inputs = op.inputs(1, 67 if form == "chunk" else 5, 1, 3, 2, gate)
    leaves = [x.double().requires_grad_() for x in (*inputs.tokens, inputs.S)]

    def operator(*leaves):
        return op.function(
            *leaves[:-1], initial_state=leaves[-1], output_final_state=True, backend=form
        )

    assert gradcheck(operator, leaves, fast_mode=True)
    assert gradgradcheck(operator, leaves, fast_mode=True)


@every_operator
@every_gate
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_only_inputs_and_outputs(name, gate, dtype):
    op = OPERATORS[name]
    inputs = op.inputs(1, 200, 2, 24, 16, gate)
    q, k, v = (x.to(dtype) for x in (inputs.q, inputs.k, inputs.v))
    halved = replace(inputs, q=q, k=k, v=v)
    o, S = op.function(*halved.tokens, output_final_state=True)
    expected, expected_S = op.reference(*(x.double() for x in halved.tokens))
    assert (o.dtype, S.dtype) == (dtype, torch.float32)
    # Rounding to nearest is at most half an ulp off in every element.
    assert relative_error(o, expected) <= torch.finfo(dtype).eps / 2
    assert relative_error(S, expected_S) <= 1e-6


@every_operator
@every_form
@every_gate
def test_a_batch_element_does_not_depend_on_the_others(name, form, gate):
    op = OPERATORS[name]
    inputs = op.inputs(3, 130, 2, 24, 16, gate)
    together, _ = op.function(*inputs.tokens, backend=form)
    for b in range(3):
        alone, _ = op.function(*(x[b : b + 1] for x in inputs.tokens), backend=form)
        assert torch.equal(together[b : b + 1], alone)


@every_operator
@every_form
@every_gate
def test_strides_do_not_matter(name, form, gate):
    op = OPERATORS[name]
    inputs = op.inputs(2, 70, 3, 16, 16, gate)
    expected, _ = op.function(*inputs.tokens, backend=form)
    tokens = [in_another_layout(x) for x in inputs.tokens]
    assert not any(x.is_contiguous() for x in tokens)
    o, _ = op.function(*tokens, backend=form)
    assert relative_error(o, expected) <= 1e-6


@every_operator
@every_form
def test_heads_may_share_their_keys(name, form):
    op = OPERATORS[name]
    inputs = op.inputs(2, 70, 3, 16, 16, "none")
    one = inputs.k[:, :, :1].expand(-1, -1, 3, -1)
    o, _ = op.function(*replace(inputs, k=one).tokens, backend=form)
    expected, _ = op.function(*replace(inputs, k=one.contiguous()).tokens, backend=form)
    assert relative_error(o, expected) <= 1e-6


@every_operator
@every_form
def test_views_of_what_is_trained_get_its_gradient(name, form):
    """Every second token of a tensor, one value for all heads, one state for all sequences."""
    op = OPERATORS[name]
    inputs = op.inputs(2, 70, 3, 16, 16, "head")
    leaves = [x.requires_grad_() for x in (inputs.q.repeat(1, 2, 1, 1), inputs.v[:, :, :1])]
    shared = inputs.S[:1].clone().requires_grad_()
    whole, v = leaves

    def outputs(q, v, S):
        tokens = replace(inputs, q=q, v=v).tokens
        return op.function(*tokens, initial_state=S, backend=form)[0]

    views = [whole[:, ::2], v.expand(-1, -1, 3, -1), shared.expand(2, -1, -1, -1)]
    apart = [x.detach().clone().requires_grad_() for x in views]
    got = torch.autograd.grad(outputs(*views).square().sum(), [*leaves, shared])
    dq, dv, dS = torch.autograd.grad(outputs(*apart).square().sum(), apart)
    assert relative_error(got[0][:, ::2], dq) <= 1e-6
    assert not got[0][:, 1::2].any()
    assert relative_error(got[1], dv.sum(2, keepdim=True)) <= 1e-6
    assert relative_error(got[2], dS.sum(0, keepdim=True)) <= 1e-6


@every_operator
@every_form
@every_gate
def test_a_nan_in_a_state_reaches_what_reads_it_and_nothing_else(name, form, gate):
    """One entry: a key's channel k of one head's value v, which only corrections spread over k."""
    op = OPERATORS[name]
    inputs = op.inputs(2, 70, 2, 8, 5, gate)
    clean, S_clean = (x.clone() for x in run_with(op, inputs, form))
    inputs.S[1, 0, 3, 2] = torch.nan
    o, S = run_with(op, inputs, form)
    hit = torch.zeros(2, 70, 2, 5, dtype=torch.bool)
    hit[1, :, 0, 2] = True
    assert torch.equal(o.isnan(), hit)
    assert relative_error(o[~hit], clean[~hit]) <= 1e-6
    assert S[1, 0, 3, 2].isnan()
    others = torch.ones(2, 2, 8, 5, dtype=torch.bool)
    others[1, 0, :, 2] = False
    assert relative_error(S[others], S_clean[others]) <= 1e-6


def run_with(op, inputs, form):
    return op.function(
        *inputs.tokens, initial_state=inputs.S, output_final_state=True, backend=form
    )


@every_operator
@every_form
@pytest.mark.parametrize(("B", "T", "H"), [(2, 0, 3), (0, 5, 3), (2, 5, 0)])
def test_nothing_in_gives_nothing_out(name, form, B, T, H):
    op = OPERATORS[name]
    sizes = [(4,), (4,), (3,), *[()] * ("beta" in op.arguments), ()]
    leaves = [torch.zeros(B, T, H, *size, requires_grad=True) for size in sizes]
    S = torch.ones(B, H, 4, 3, requires_grad=True)
    o, final = op.function(*leaves, initial_state=S, output_final_state=True, backend=form)
    assert o.shape == (B, T, H, 3)
    torch.testing.assert_close(final, S)
    gradients = torch.autograd.grad(o.sum(), [*leaves, S])  # it has some, as any other
    assert [x.shape for x in gradients] == [x.shape for x in [*leaves, S]]
    final.data.add_(1)  # does not change what the caller has
    assert (S == 1).all()


@every_operator
def test_what_is_no_bool_is_refused(name):
    inputs = OPERATORS[name].inputs(1, 3, 1, 4, 4, "none")
    with pytest.raises(TypeError, match="output_final_state must be a bool, got str"):
        OPERATORS[name].function(*inputs.tokens, output_final_state="yes")


@every_operator
@every_form
def test_a_gate_may_have_any_float_dtype(name, form):
    inputs = OPERATORS[name].inputs(1, 10, 1, 16, 4, "head")
    assert inputs.g is not None
    coarse = replace(inputs, g=inputs.g.to(torch.float8_e4m3fn))
    as_float = replace(inputs, g=inputs.g.to(torch.float8_e4m3fn).float())
    o, _ = OPERATORS[name].function(*coarse.tokens, backend=form)
    assert torch.equal(o, OPERATORS[name].function(*as_float.tokens, backend=form)[0])


@every_operator
def test_scale_defaults_to_one_over_the_root_of_k(name):
    op = OPERATORS[name]
    tokens = op.inputs(1, 10, 1, 16, 4, "none").tokens
    default, _ = op.function(*tokens)
    assert torch.equal(default, op.function(*tokens, scale=0.25)[0])
    torch.testing.assert_close(op.function(*tokens, scale=1)[0], 4 * default)
    assert torch.equal(default, op.function(*tokens, scale=np.float32(0.25))[0])


@every_operator
def test_the_final_state_comes_only_when_asked_for(name):
    op = OPERATORS[name]
    assert op.function(*op.inputs(1, 10, 1, 16, 4, "none").tokens)[1] is None


@every_operator
@every_gate
def test_autocast_casts_the_inputs_and_keeps_the_state(name, gate):
    op = OPERATORS[name]
    inputs = op.inputs(1, 70, 2, 16, 16, gate)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = replace(inputs, v=inputs.v.bfloat16())
        o, S = op.function(*mixed.tokens, output_final_state=True)
    q, k, v = (x.bfloat16() for x in (inputs.q, inputs.k, inputs.v))
    halved = replace(inputs, q=q, k=k, v=v)
    expected, expected_S = op.function(*halved.tokens, output_final_state=True)
    assert o.dtype == torch.bfloat16
    assert torch.equal(o, expected)
    assert torch.equal(S, expected_S)


@every_operator
@every_form
@every_gate
def test_torch_compile_takes_the_whole_graph(name, form, gate):
    op = OPERATORS[name]
    inputs = op.inputs(1, 40 if form == "chunk" else 3, 2, 16, 8, gate)
    torch.compiler.reset()
    compiled = torch.compile(op.function, fullgraph=True, backend="aot_eager")
    got = inputs.run(compiled, torch.float32, output_final_state=True, backend=form)
    error, what = worst(got, op.run(inputs, torch.float32, form))
    assert error <= 1e-6, what


@every_operator
def test_a_compiled_scale_may_change(name):
    op = OPERATORS[name]
    tokens = op.inputs(1, 3, 2, 16, 8, "head").tokens
    torch.compiler.reset()
    compiled = torch.compile(op.function, fullgraph=True, backend="eager")
    for scale in (0.3, 0.4, 0.5):  # from the second on Dynamo takes it as a symbol
        assert torch.equal(compiled(*tokens, scale=scale)[0], op.function(*tokens, scale=scale)[0])


@every_operator
@every_form
@every_gate
@pytest.mark.filterwarnings("error:There is a performance drop")  # one element after the other
def test_vmap_over_the_batch(name, form, gate):
    op = OPERATORS[name]
    tokens = op.inputs(3, 70, 2, 16, 8, gate).tokens

    def one(*tokens):
        return op.function(*(x[None] for x in tokens), backend=form)[0][0]

    expected, _ = op.function(*tokens, backend=form)
    assert relative_error(torch.func.vmap(one)(*tokens), expected) <= 1e-6


@every_operator
@every_form
def test_forward_mode_and_func_derivatives(name, form):
    """Both are those of the recurrence, in every form made of PyTorch's operations."""
    op = OPERATORS[name]
    tokens = op.inputs(1, 6, 1, 4, 3, "head").tokens

    def read(v, backend=form):
        return op.function(*tokens[:2], v, *tokens[3:], backend=backend)[0]

    v, tangent = tokens[2], torch.ones_like(tokens[2])
    _, change = torch.func.jvp(read, (v,), (tangent,))
    assert relative_error(change, read(tangent, "recurrent")) <= 1e-6  # o is linear in v
    got = torch.func.grad(lambda v: read(v).sum())(v)
    leaf = v.clone().requires_grad_()
    read(leaf, "recurrent").sum().backward()
    assert leaf.grad is not None
    assert relative_error(got, leaf.grad) <= 1e-6


@every_operator
def test_meta_tensors_give_shapes(name):
    op = OPERATORS[name]
    q = torch.empty(2**20, 130, 3, 16, device="meta")  # more than 2³² numbers
    o, S = op.function(q, q, q, *[q[..., 0]] * ("beta" in op.arguments), output_final_state=True)
    assert (o.shape, S.shape) == (q.shape, (2**20, 3, 16, 16))
    q, cu_seqlens = q[:1], torch.empty(5, dtype=torch.int32, device="meta")
    rest = [q[..., 0]] * ("beta" in op.arguments)
    o, S = op.function(q, q, q, *rest, cu_seqlens=cu_seqlens, output_final_state=True)
    assert (o.shape, S.shape) == (q.shape, (4, 3, 16, 16))


@every_operator
def test_fake_tensors_give_shapes(name):
    """With them a model is planned: they say a device, and hold no numbers."""
    op = OPERATORS[name]
    with FakeTensorMode():
        q = torch.randn(2, 130, 3, 16)
        rest = [q[..., 0]] * ("beta" in op.arguments)
        assert op.function(q, q, q, *rest)[0].shape == q.shape
        cu_seqlens = torch.tensor([0, 30, 130])
        rest = [x[:1] for x in rest]
        o, _ = op.function(q[:1], q[:1], q[:1], *rest, cu_seqlens=cu_seqlens)
        assert o.shape == (1, 130, 3, 16)


BAD = BAD_FOR_ALL | {
    "g no tensor": (dict(g=-0.1), TypeError, r"g must be a torch.Tensor, got float"),
    "g shape": (dict(g=q[:, :, 0, 0]), ValueError, r"g must have shape .*got \[2, 10\]"),
    "g integer": (dict(g=q[..., 0].long()), TypeError, r"g must be a floating-point tensor"),
    "g device": (dict(g=q[..., 0].to("meta")), ValueError, r"g must be on cpu like q, got meta"),
    "state no tensor": (
        dict(initial_state=0.0),
        TypeError,
        r"initial_state must be a torch.Tensor",
    ),
    "state device": (
        dict(initial_state=torch.zeros(2, 3, 4, 4, device="meta")),
        ValueError,
        r"initial_state must be on cpu like q, got meta",
    ),
    "scale bool": (dict(scale=True), TypeError, r"scale must be a number or None, got bool"),
    "scale": (dict(scale=torch.ones(())), TypeError, r"scale must be a number or None, got Tensor"),
    "state shape": (
        dict(initial_state=torch.zeros(2, 3, 4, 5)),
        ValueError,
        r"initial_state must have shape \[N, H, K, V\] = \[2, 3, 4, 4\], got \[2, 3, 4, 5\]",
    ),
    "state dtype": (
        dict(initial_state=torch.zeros(2, 3, 4, 4).half()),
        TypeError,
        r"initial_state must be torch.float32",
    ),
}


def good(name: str, q: torch.Tensor) -> dict:
    arguments = dict(q=q, k=q, v=q)
    return {**arguments, "beta": q[..., 0]} if name == "delta" else arguments


@every_operator
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(name, case):
    changes, error, message = BAD[case]
    with pytest.raises(error, match=message):
        OPERATORS[name].function(**{**good(name, q), **changes})


@every_operator
def test_bad_input_is_named_under_autocast(name):
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(TypeError, match=r"k must be a torch\.Tensor, got list"),
    ):
        OPERATORS[name].function(**{**good(name, q), "k": [1.0]})


@every_operator
@pytest.mark.parametrize("borders", [[0, 9], [1, 10], [0, 7, 5, 10], [0]])
def test_bad_borders_are_named(name, borders):
    with pytest.raises(ValueError, match="cu_seqlens"):
        OPERATORS[name].function(**good(name, q[:1]), cu_seqlens=torch.tensor(borders))


@every_operator
@pytest.mark.parametrize("borders", [[0, 9], [0, 7, 5, 10]])
def test_bad_borders_are_named_where_a_graph_was_compiled(name, borders):
    torch.compiler.reset()
    compiled = torch.compile(OPERATORS[name].function, backend="eager")
    with pytest.raises(ValueError, match="cu_seqlens must rise from 0 to T = 10"):
        compiled(**good(name, q[:1]), cu_seqlens=torch.tensor(borders))


@every_operator
def test_triton_says_why_it_cannot_run(name, monkeypatch):
    pytest.importorskip("triton", reason="triton is missing")
    x = torch.zeros(1, 4, 1, 4, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"float32 at most, and q is float64"):
        OPERATORS[name].function(**good(name, x), backend="triton")
    x = torch.zeros(1, 4, 1, 200)
    with pytest.raises(RuntimeError, match="K <= 128"):
        OPERATORS[name].function(**good(name, x), backend="triton")
    for fact, reason in (("interpreted", "interpreter is off"), ("installed", "not installed")):
        monkeypatch.setattr(f"assocmem.ops.backend._{fact}", lambda: False)
        with pytest.raises(RuntimeError, match=reason):
            OPERATORS[name].function(**good(name, x[..., :4]), backend="triton")


@every_operator
def test_autocast_leaves_float64_as_it_is(name):
    op = OPERATORS[name]
    tokens = [x.double() for x in op.inputs(1, 70, 2, 16, 16, "head").tokens]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o, S = op.function(*tokens, output_final_state=True)
    expected, expected_S = op.function(*tokens, output_final_state=True)
    assert o.dtype == torch.float64
    assert torch.equal(o, expected)
    assert torch.equal(S, expected_S)


@pytest.mark.parametrize("name", ["linear_attention", "delta_rule", "softmax_attention"])
@pytest.mark.parametrize("backend", ["auto", "recurrent", "chunk"])
def test_the_form_that_is_asked_for_runs(name, backend, monkeypatch):
    module, ran = sys.modules[f"assocmem.ops.{name}"], []
    for form in FORMS:
        run = getattr(module, form)
        forms = getattr(module, "FORMS", vars(module))
        monkeypatch.setitem(forms, form, lambda *x, form=form, run=run: ran.append(form) or run(*x))
    x = torch.randn(1, 5, 2, 4)
    getattr(ops, name)(x, x, x, *((x[..., 0],) if name == "delta_rule" else ()), backend=backend)
    assert ran == ["chunk" if backend == "auto" else backend]
