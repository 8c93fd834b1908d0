"""Properties of the scans over shapes, gates, layouts and hard numbers that nobody thought of."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.inputs import GATES, KEYS, Inputs, in_another_layout
from tests.ops.operators import OPERATORS, Operator, worst
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
    error, what = worst(got, expected)
    assert error <= 1e-9, what
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
