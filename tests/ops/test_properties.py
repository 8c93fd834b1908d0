"""Properties of the operators over shapes, gates, layouts and hard numbers nobody thought of."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assocmem import ops
from assocmem.ops.erase import ERASE
from tests.ops import test_deltaformer, test_softmax_attention
from tests.ops.inputs import GATES, KEYS, Inputs, in_another_layout
from tests.ops.operators import OPERATORS, Operator
from tests.ops.reference import relative_error

SIZES = st.integers(1, 9)
LENGTHS = st.one_of(st.integers(1, 9), st.sampled_from((63, 64, 65, 128, 513)))
# exp of these: a decay of 1, of nearly 1, of nearly 0, of 0 in float32, and of 0.
LOG_DECAYS = (0.0, -1e-30, -1e-4, -20.0, -200.0, -torch.inf)
HARD = (0.0, 1e-38, -1e-44, 1e-20, 1.0, -1.0, 1e4)


@st.composite
def drawn(draw) -> tuple[Operator, Inputs]:
    """An operator and its arguments; some numbers are replaced by hard ones."""
    name, gate = draw(st.sampled_from(sorted(OPERATORS))), draw(st.sampled_from(GATES))
    B, T, H = draw(st.integers(1, 3)), draw(LENGTHS), draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**16))
    keys = {} if name == "linear" else {"keys": draw(st.sampled_from(KEYS))}
    inputs = OPERATORS[name].inputs(B, T, H, draw(SIZES), draw(SIZES), gate, seed, **keys)
    generator = torch.Generator().manual_seed(seed)
    hard = {"q": HARD, "v": HARD, "g": LOG_DECAYS, "beta": (0.0, 1.0, 2.0)}
    if name == "linear":
        hard["k"] = HARD
    for argument in draw(st.sets(st.sampled_from(sorted(hard)))):
        x = getattr(inputs, argument)
        if x is not None:
            numbers = torch.tensor(hard[argument])
            chosen = numbers[torch.randint(len(numbers), x.shape, generator=generator)]
            where = torch.rand(x.shape, generator=generator) < 0.3
            setattr(inputs, argument, chosen.where(where, x))
    return OPERATORS[name], inputs


@settings(max_examples=150, deadline=None, derandomize=True)
@given(drawn())
def test_the_chunk_form_is_the_definition(case):
    operator, inputs = case
    got, expected = operator.run(inputs, torch.float64, "chunk"), operator.expected(inputs)
    for what, x in expected.items():
        # What β = 1 erases from a single channel is exactly 0 there, and rounding in a sum.
        assert (got[what] - x).norm() <= (1e-9 * x.norm() if x.any() else 1e-14), what
    assert all(bool(x.isfinite().all()) for x in got.values())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(drawn())
def test_nothing_depends_on_the_layout(case):
    operator, inputs = case
    apart = Inputs(**vars(inputs))
    for name in ("q", "k", "v", "g", "beta"):
        if (x := getattr(inputs, name)) is not None:
            setattr(apart, name, in_another_layout(x))
    options = {"backend": "chunk", "output_final_state": True}
    o, S = operator.function(*inputs.tokens, initial_state=inputs.S, **options)
    o_apart, S_apart = operator.function(*apart.tokens, initial_state=inputs.S, **options)
    assert torch.equal(o, o_apart)
    assert torch.equal(S, S_apart)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(drawn(), st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_pieces_equal_the_whole(case, cuts):
    operator, inputs = case
    T = inputs.q.shape[1]
    borders = sorted({0, T, *(int(cut * T) for cut in cuts)})
    options = {"backend": "chunk", "output_final_state": True}
    whole, S_whole = operator.function(*inputs.tokens, initial_state=inputs.S, **options)
    pieces, S = [whole[:, :0]], inputs.S
    for start, stop in itertools.pairwise(borders):
        o, S = operator.function(*inputs.rows(start, stop).tokens, initial_state=S, **options)
        pieces.append(o)
    assert relative_error(torch.cat(pieces, 1), whole) <= 5e-6
    assert relative_error(S, S_whole) <= 5e-6


@st.composite
def packed(draw) -> tuple[Operator, Inputs, list[int]]:
    """An operator, tokens of one batch element in any precision, and borders of sequences."""
    name, gate = draw(st.sampled_from(sorted(OPERATORS))), draw(st.sampled_from(GATES))
    borders = list(
        itertools.accumulate(draw(st.lists(LENGTHS | st.just(0), max_size=4)), initial=0)
    )
    borders += [borders[-1]] * (len(borders) == 1)
    inputs = OPERATORS[name].inputs(
        1, borders[-1], draw(st.integers(1, 3)), draw(SIZES), draw(SIZES), gate,
        draw(st.integers(0, 2**16)),
    )  # fmt: skip
    dtype = draw(st.sampled_from((torch.float16, torch.bfloat16, torch.float32)))
    for x in ("q", "k", "v"):
        setattr(inputs, x, getattr(inputs, x).to(dtype))
    return OPERATORS[name], inputs, borders


@settings(max_examples=60, deadline=None, derandomize=True)
@given(packed(), st.sampled_from((torch.int32, torch.int64)))
def test_packed_sequences_in_any_precision_are_the_definition_of_each(case, integer):
    operator, inputs, borders = case
    n, dtype = len(borders) - 1, inputs.q.dtype
    o, S = operator.function(
        *inputs.tokens, cu_seqlens=torch.tensor(borders, dtype=integer), output_final_state=True
    )
    assert (o.dtype, o.shape, S.dtype, len(S)) == (dtype, inputs.v.shape, torch.float32, n)
    bound = 5e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    for i, (start, stop) in enumerate(itertools.pairwise(borders)):
        tokens = [x.double() for x in inputs.rows(start, stop).tokens]
        expected, expected_S = operator.reference(*tokens)
        assert relative_error(o[:, start:stop], expected) <= bound
        assert relative_error(S[i : i + 1], expected_S) <= 5e-6


@settings(max_examples=60, deadline=None, derandomize=True)
@given(drawn(), st.floats(0, 1, exclude_max=True), st.sampled_from((torch.nan, torch.inf)))
def test_what_is_not_finite_never_reaches_earlier_tokens_or_other_heads(case, where, value):
    operator, inputs = case
    B, T, H = inputs.q.shape[:3]
    t, b, h = int(where * T), int(where * B), int(where * H)
    for name in ("q", "k", "v", "beta", "g"):
        if (x := getattr(inputs, name)) is not None:
            before = x[b, t, h].clone()
            x[b, t, h] = value
            o, _ = operator.function(*inputs.tokens, initial_state=inputs.S, backend="chunk")
            x[b, t, h] = before
            reached = torch.zeros(B, T, H, dtype=torch.bool)
            reached[b, t:, h] = True
            assert o[~reached].isfinite().all(), name
            assert not o[b, t, h].isfinite().all(), name


# Small enough for the exponentials of the definition, which does not subtract the largest.
SOFT = (0.0, 1e-38, -1e-44, 1e-20, 1.0, -1.0, 5.0)


def with_hard_numbers(draw, tensors: list[torch.Tensor], hard: tuple[float, ...]) -> None:
    """Replace some numbers of some tensors, in place."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    numbers = torch.tensor(hard)
    for x in tensors:
        if draw(st.booleans()):
            where = torch.rand(x.shape, generator=generator) < 0.3
            x[where] = numbers[torch.randint(len(hard), x.shape, generator=generator)][where]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_softmax_attention_is_its_definition(data):
    draw = data.draw
    gate = draw(st.sampled_from(("none", "head")))
    B, T, H = draw(st.integers(1, 3)), draw(LENGTHS), draw(st.integers(1, 3))
    q, k, v, *g = test_softmax_attention.tensors(B, T, H, draw(SIZES), draw(SIZES), gate)
    with_hard_numbers(draw, [q, k, v], SOFT)
    with_hard_numbers(draw, g, LOG_DECAYS)
    tokens = [x.double() for x in (q, k, v, *g)]
    expected = test_softmax_attention.definition(*tokens, *[None] * (not g), scale=0.5)
    for got in (
        ops.softmax_attention(*tokens, scale=0.5),
        ops.softmax_attention(*map(in_another_layout, tokens), scale=0.5),
    ):
        assert relative_error(got, expected) <= 1e-12


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_deltaformer_is_its_definition(data):
    draw = data.draw
    erase, keys = draw(st.sampled_from(ERASE)), draw(st.sampled_from(KEYS))
    B, T, H = draw(st.integers(1, 3)), draw(LENGTHS), draw(st.integers(1, 3))
    q, k, v, beta, w = test_deltaformer.tensors(B, T, H, draw(SIZES), draw(SIZES), erase, keys=keys)
    with_hard_numbers(draw, [q, v], SOFT)
    with_hard_numbers(draw, [beta], (0.0, 1.0))
    tokens = [x.double() for x in (q, k, v, beta, w)]
    expected = test_deltaformer.definition(*tokens, erase=erase)
    for x in (tokens, list(map(in_another_layout, tokens))):
        got = test_deltaformer.deltaformer(*x, erase=erase)
        assert relative_error(got, expected) <= 1e-9
