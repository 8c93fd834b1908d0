"""`ops.linear_attention` against the recurrence in float64, in its recurrent and chunk forms."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from assocmem import ops
from tests.ops import reference
from tests.ops.inputs import GATES, random_inputs
from tests.ops.reference import relative_error

FORMS = ("recurrent", "chunk")


def run(inputs, dtype, backend, **options):
    return inputs.run(
        ops.linear_attention, dtype, output_final_state=True, backend=backend, **options
    )


def worst(got, expected):
    return max((relative_error(got[name], expected[name]), name) for name in expected)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("T", [1, 63, 64, 65, 200])
@pytest.mark.parametrize(("K", "V"), [(16, 24), (24, 64), (60, 16), (64, 60), (128, 128)])
def test_forms_equal_the_recurrence(gate, T, K, V):
    inputs = random_inputs(2, T, 2, K, V, gate)
    expected = inputs.run(reference.linear_attention, torch.float64)
    for form in FORMS:
        error, name = worst(run(inputs, torch.float64, form), expected)
        assert error <= 1e-13, (form, name)
    error, name = worst(run(inputs, torch.float32, "chunk"), expected)
    assert error <= 1e-6, name


@pytest.mark.parametrize("gate", GATES)
def test_chunk_form_in_float32_over_4096_tokens(gate):
    inputs = random_inputs(1, 4096, 1, 64, 64, gate, strength=-2.0)
    expected = inputs.run(reference.linear_attention, torch.float64)
    error, name = worst(run(inputs, torch.float32, "chunk"), expected)
    assert error <= 1e-6, name


@pytest.mark.parametrize("gate", ["head", "channel"])
@pytest.mark.parametrize("strength", [-6.0, 6.0, 40.0])
def test_weak_and_strong_decay(gate, strength):
    inputs = random_inputs(1, 200, 2, 32, 24, gate, strength=strength)
    expected = inputs.run(reference.linear_attention, torch.float64)
    got = run(inputs, torch.float32, "chunk")
    for name in expected.keys() - {"dg"}:
        assert relative_error(got[name], expected[name]) <= 1e-6, name
    # At strength 40 every decay is e^-40, and so is the gradient of its logarithm.
    if strength < 40:
        assert relative_error(got["dg"], expected["dg"]) <= 1e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", ["head", "channel"])
def test_a_decay_of_minus_infinity_clears_the_memory(form, gate):
    inputs = random_inputs(1, 100, 2, 8, 5, gate)
    assert inputs.g is not None
    inputs.g[:, 70] = -torch.inf
    q, k, v, g = inputs.q, inputs.k, inputs.v, inputs.g
    o, S = ops.linear_attention(q, k, v, g, output_final_state=True, backend=form)
    after, S_after = ops.linear_attention(
        *(x[:, 70:] for x in (q, k, v, g)), output_final_state=True, backend=form
    )
    assert torch.isfinite(o).all()
    torch.testing.assert_close(o[:, 70:], after, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(S, S_after, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("gate", "argument"),
    [(gate, x) for gate in GATES for x in "qkvg" if (gate, x) != ("none", "g")],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_nan_reaches_what_depends_on_it_and_nothing_else(form, gate, argument, value):
    inputs = random_inputs(1, 130, 2, 8, 5, gate)
    poisoned = getattr(inputs, argument)
    clean, _ = ops.linear_attention(inputs.q, inputs.k, inputs.v, inputs.g, backend=form)
    poisoned[0, 75, 1] = value
    o, _ = ops.linear_attention(inputs.q, inputs.k, inputs.v, inputs.g, backend=form)
    assert torch.equal(o[:, :75], clean[:, :75])  # earlier tokens
    assert torch.equal(o[:, :, 0], clean[:, :, 0])  # the other head
    assert not torch.isfinite(o[0, 75, 1]).any()
    if argument == "q":
        assert torch.equal(o[:, 76:], clean[:, 76:])
    else:
        assert not torch.isfinite(o[0, 76:, 1]).any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
def test_normalize_is_the_memory_of_the_constant_one(form, gate):
    inputs = random_inputs(1, 100, 2, 12, 7, gate)
    q, k, v = inputs.q.double().exp(), inputs.k.double().exp(), inputs.v.double()
    g = None if inputs.g is None else inputs.g.double()
    o, S = ops.linear_attention(q, k, v, g, normalize=True, output_final_state=True, backend=form)
    value, S_value = reference.linear_attention(q, k, v, g)
    one, S_one = reference.linear_attention(q, k, torch.ones_like(v[..., :1]), g)
    assert relative_error(o, value / one) <= 1e-13
    assert S is not None
    assert S.shape == (1, 2, 12, 8)
    assert relative_error(S, torch.cat((S_value, S_one), -1)) <= 1e-13


def test_normalized_positive_weights_average_the_values():
    inputs = random_inputs(1, 100, 2, 12, 7, "none")
    ones = torch.full_like(inputs.v, 3.0)
    o, _ = ops.linear_attention(inputs.q.exp(), inputs.k.exp(), ones, normalize=True)
    torch.testing.assert_close(o, ones)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_packed_sequences_do_not_see_each_other(form, gate, dtype):
    borders = [0, 1, 1, 65, 129, 200]
    inputs = random_inputs(1, 200, 2, 12, 7, gate)
    S = random_inputs(5, 1, 2, 12, 7, gate).S
    o, final = ops.linear_attention(
        inputs.q, inputs.k, inputs.v, inputs.g, initial_state=S, output_final_state=True,
        cu_seqlens=torch.tensor(borders, dtype=dtype), backend=form,
    )  # fmt: skip
    assert final is not None
    for n in range(5):
        rows = slice(borders[n], borders[n + 1])
        alone, alone_final = ops.linear_attention(
            inputs.q[:, rows], inputs.k[:, rows], inputs.v[:, rows],
            None if inputs.g is None else inputs.g[:, rows],
            initial_state=S[n : n + 1], output_final_state=True, backend=form,
        )  # fmt: skip
        assert torch.equal(o[:, rows], alone)
        assert torch.equal(final[n : n + 1], alone_final)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
def test_pieces_equal_the_whole(form, gate):
    inputs = random_inputs(2, 200, 2, 12, 7, gate)
    q, k, v, g = inputs.q, inputs.k, inputs.v, inputs.g
    whole, final = ops.linear_attention(q, k, v, g, output_final_state=True, backend=form)
    S, pieces = None, []
    for rows in (slice(0, 1), slice(1, 80), slice(80, 80), slice(80, 200)):
        o, S = ops.linear_attention(
            q[:, rows], k[:, rows], v[:, rows], None if g is None else g[:, rows],
            initial_state=S, output_final_state=True, backend=form,
        )  # fmt: skip
        pieces.append(o)
    assert relative_error(torch.cat(pieces, 1), whole) <= 1e-6
    assert S is not None
    assert final is not None
    assert relative_error(S, final) <= 1e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
def test_gradients_of_first_and_second_order(form, gate):
    inputs = random_inputs(1, 67 if form == "chunk" else 5, 1, 3, 2, gate)
    leaves = [inputs.q, inputs.k, inputs.v, inputs.S] + ([] if inputs.g is None else [inputs.g])
    leaves = [x.double().requires_grad_() for x in leaves]

    def operator(q, k, v, S, g=None):
        return ops.linear_attention(
            q, k, v, g, initial_state=S, output_final_state=True, backend=form
        )

    assert gradcheck(operator, leaves, fast_mode=True)
    assert gradgradcheck(operator, leaves, fast_mode=True)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_only_inputs_and_outputs(gate, dtype):
    inputs = random_inputs(1, 200, 2, 24, 16, gate)
    q, k, v = (x.to(dtype) for x in (inputs.q, inputs.k, inputs.v))
    o, S = ops.linear_attention(q, k, v, inputs.g, output_final_state=True)
    g = None if inputs.g is None else inputs.g.double()
    expected, expected_S = reference.linear_attention(q.double(), k.double(), v.double(), g)
    assert S is not None
    assert (o.dtype, S.dtype) == (dtype, torch.float32)
    # Rounding to nearest is at most half an ulp off in every element.
    assert relative_error(o, expected) <= torch.finfo(dtype).eps / 2
    assert relative_error(S, expected_S) <= 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_element_does_not_depend_on_the_others(form):
    inputs = random_inputs(3, 130, 2, 24, 16, "head")
    assert inputs.g is not None
    together, _ = ops.linear_attention(inputs.q, inputs.k, inputs.v, inputs.g, backend=form)
    for b in range(3):
        one = slice(b, b + 1)
        alone, _ = ops.linear_attention(
            inputs.q[one], inputs.k[one], inputs.v[one], inputs.g[one], backend=form
        )
        assert torch.equal(together[one], alone)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
def test_strides_do_not_matter(form, gate):
    inputs = random_inputs(2, 70, 3, 16, 16, gate)

    def strided(x):  # heads before tokens, every second column
        return None if x is None else x.transpose(1, 2).repeat_interleave(2, -1)[..., ::2].mT.mT

    q, k, v = (strided(x).transpose(1, 2) for x in (inputs.q, inputs.k, inputs.v))  # pyright: ignore
    assert not q.is_contiguous()
    o, _ = ops.linear_attention(q, k, v, inputs.g, backend=form)
    expected, _ = ops.linear_attention(inputs.q, inputs.k, inputs.v, inputs.g, backend=form)
    assert relative_error(o, expected) <= 1e-6
    k_one = inputs.k[:, :, :1].expand(-1, -1, 3, -1)  # one key head for all
    o, _ = ops.linear_attention(inputs.q, k_one, inputs.v, inputs.g, backend=form)
    expected, _ = ops.linear_attention(
        inputs.q, k_one.contiguous(), inputs.v, inputs.g, backend=form
    )
    assert relative_error(o, expected) <= 1e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("B", "T", "H"), [(2, 0, 3), (0, 5, 3), (2, 5, 0)])
def test_nothing_in_gives_nothing_out(form, B, T, H):
    q = torch.zeros(B, T, H, 4, requires_grad=True)
    S = torch.ones(B, H, 4, 3)
    o, final = ops.linear_attention(
        q, q, torch.zeros(B, T, H, 3), initial_state=S, output_final_state=True, backend=form
    )
    assert o.shape == (B, T, H, 3)
    torch.testing.assert_close(final, S)


def test_scale_defaults_to_one_over_the_root_of_k():
    inputs = random_inputs(1, 10, 1, 16, 4, "none")
    default, _ = ops.linear_attention(inputs.q, inputs.k, inputs.v)
    quarter, _ = ops.linear_attention(inputs.q, inputs.k, inputs.v, scale=0.25)
    one, _ = ops.linear_attention(inputs.q, inputs.k, inputs.v, scale=1)
    assert torch.equal(default, quarter)
    torch.testing.assert_close(one, 4 * default)


def test_the_final_state_comes_only_when_asked_for():
    inputs = random_inputs(1, 10, 1, 16, 4, "none")
    assert ops.linear_attention(inputs.q, inputs.k, inputs.v)[1] is None


@pytest.mark.parametrize("gate", GATES)
def test_autocast_casts_the_inputs_and_keeps_the_state(gate):
    inputs = random_inputs(1, 70, 2, 16, 16, gate)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o, S = ops.linear_attention(
            inputs.q, inputs.k, inputs.v.bfloat16(), inputs.g, output_final_state=True
        )
    halved = [x.bfloat16() for x in (inputs.q, inputs.k, inputs.v)]
    expected, expected_S = ops.linear_attention(*halved, inputs.g, output_final_state=True)
    assert o.dtype == torch.bfloat16
    assert torch.equal(o, expected)
    assert torch.equal(S, expected_S)  # pyright: ignore


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
def test_torch_compile_takes_the_whole_graph(form, gate):
    inputs = random_inputs(1, 70 if form == "chunk" else 6, 2, 16, 8, gate)
    torch.compiler.reset()
    compiled = torch.compile(ops.linear_attention, fullgraph=True, backend="aot_eager")
    got = inputs.run(compiled, torch.float32, output_final_state=True, backend=form)
    error, name = worst(got, run(inputs, torch.float32, form))
    assert error <= 1e-6, name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", GATES)
def test_vmap_over_the_batch(form, gate):
    inputs = random_inputs(3, 70, 2, 16, 8, gate)
    arguments = [inputs.q, inputs.k, inputs.v, *([] if inputs.g is None else [inputs.g])]

    def one(*arguments):
        return ops.linear_attention(*(x[None] for x in arguments), backend=form)[0][0]

    got = torch.func.vmap(one)(*arguments)
    expected, _ = ops.linear_attention(*arguments, backend=form)
    assert relative_error(got, expected) <= 1e-6


def test_meta_tensors_give_shapes():
    q = torch.empty(2, 2**20, 3, 16, device="meta")
    o, S = ops.linear_attention(q[:, :130], q[:, :130], q[:, :130], output_final_state=True)
    assert S is not None
    assert (o.shape, S.shape) == ((2, 130, 3, 16), (2, 3, 16, 16))


q = torch.zeros(2, 10, 3, 4)
BAD = {
    "q no tensor": (dict(q=[1.0]), TypeError, r"q must be a torch.Tensor, got list"),
    "q rank": (dict(q=q[0]), ValueError, r"q must have shape \[B, T, H, K\], got \[10, 3, 4\]"),
    "q integer": (dict(q=q.long()), TypeError, r"q must be float16.*got torch.int64"),
    "k dtype": (dict(k=q.double()), TypeError, r"k must be .* the same as q .*got torch.float64"),
    "k shape": (dict(k=q[..., :3]), ValueError, r"k must have shape \[2, 10, 3, 4\] like q"),
    "v shape": (dict(v=q[:, :9]), ValueError, r"v must have shape .*got \[2, 9, 3, 4\]"),
    "v device": (dict(v=q.to("meta")), ValueError, r"v must be on cpu like q, got meta"),
    "K is 0": (dict(q=q[..., :0], k=q[..., :0]), ValueError, r"K and V must be at least 1"),
    "g no tensor": (dict(g=-0.1), TypeError, r"g must be a torch.Tensor, got float"),
    "g shape": (dict(g=q[:, :, 0, 0]), ValueError, r"g must have shape .*got \[2, 10\]"),
    "g integer": (dict(g=q[..., 0].long()), TypeError, r"g must be a floating-point tensor"),
    "scale": (dict(scale=torch.ones(())), TypeError, r"scale must be a number or None, got Tensor"),
    "state shape": (
        dict(initial_state=torch.zeros(2, 3, 4, 5)),
        ValueError,
        r"initial_state must have shape \[N, H, K, V\] = \[2, 3, 4, 4\], got \[2, 3, 4, 5\]",
    ),
    "state with normalize": (
        dict(initial_state=torch.zeros(2, 3, 4, 4), normalize=True),
        ValueError,
        r"= \[2, 3, 4, 5\]",
    ),
    "state dtype": (
        dict(initial_state=torch.zeros(2, 3, 4, 4).half()),
        TypeError,
        r"initial_state must be torch.float32",
    ),
    "borders with a batch": (
        dict(cu_seqlens=torch.tensor([0, 10])),
        ValueError,
        r"batch size 1 with cu_seqlens, got 2",
    ),
    "borders dtype": (
        dict(cu_seqlens=torch.tensor([0.0, 10.0])),
        TypeError,
        r"cu_seqlens must be int32 or int64",
    ),
    "backend": (dict(backend="cuda"), ValueError, r"backend must be one of .*got 'cuda'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    changes, error, message = BAD[case]
    with pytest.raises(error, match=message):
        ops.linear_attention(**{**dict(q=q, k=q, v=q), **changes})  # pyright: ignore


@pytest.mark.parametrize("borders", [[0, 9], [1, 10], [0, 7, 5, 10], [0]])
def test_bad_borders_are_named(borders):
    with pytest.raises(ValueError, match="cu_seqlens"):
        ops.linear_attention(q[:1], q[:1], q[:1], cu_seqlens=torch.tensor(borders))


def test_triton_says_why_it_cannot_run():
    x = torch.zeros(1, 4, 1, 4, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"float32 at most, and q is float64"):
        ops.linear_attention(x, x, x, backend="triton")
    x = torch.zeros(1, 4, 1, 200)
    with pytest.raises(RuntimeError, match="K <= 128"):
        ops.linear_attention(x, x, x, backend="triton")


def test_auto_takes_the_chunk_form_on_a_cpu():
    assert ops.backend_for(q) == "chunk"
