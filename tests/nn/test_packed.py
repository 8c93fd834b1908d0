"""Layers on packed sequences: what each sequence gives when it goes through the layer alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from assocmem.nn import (
    DeltaFormer,
    DeltaNet,
    KVCache,
    LinearAttention,
    SequenceModel,
    ShortConvolution,
    SoftmaxAttention,
    join,
    select,
    state_bytes,
)
from tests.nn.test_mixers import GROWING, MIXERS, layer, parts, tokens
from tests.nn.test_sequence_model import model, some_tokens
from tests.ops.reference import relative_error

LENGTHS = (70, 0, 1, 2, 33)  # several chunks, none, less than a filter sees
MORE = (0, 3, 40, 1, 2)


def borders(lengths, dtype=torch.int64) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(dtype)


def alone(module, x: Tensor, lengths, states=None) -> tuple[Tensor, list]:
    """The outputs in one row, and the state of every sequence."""
    outputs, after = [], []
    for n, piece in enumerate(x.split(lengths, 1)):
        y, state = module(piece, None if states is None else states[n])
        outputs.append(y)
        after.append(state)
    return torch.cat(outputs, 1), after


def of_sequence(state, n: int):
    """The state of the n-th packed sequence, of one layer."""
    if isinstance(state, Tensor):
        return state[n : n + 1]
    cu_seqlens = getattr(state, "cu_seqlens", None)
    if cu_seqlens is None:
        return type(state)(*(x if x is None else x[n : n + 1] for x in state))
    start, end = cu_seqlens.tolist()[n : n + 2]
    rows = slice(n, n + 1), slice(state[0].shape[1] - (end - start), None)  # of a padded batch
    if len(state[0]) == 1:
        rows = slice(None), slice(start, end)
    return type(state)(*(None if x is None else x[rows] for x in state[:-1]), None)


def check_states(state, expected: list) -> None:
    for n, alone in enumerate(expected):
        for part, x in zip(parts(of_sequence(state, n)), parts(alone), strict=True):
            torch.testing.assert_close(part, x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_packed_sequences_do_not_see_each_other(name, dtype):
    mixer, x = layer(name), tokens(1, sum(LENGTHS))
    expected, states = alone(mixer, x, LENGTHS)
    y, state = mixer(x, cu_seqlens=borders(LENGTHS, dtype))
    assert y.shape == x.shape
    assert relative_error(y, expected) <= 1e-12
    check_states(state, states)


@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_packed_sequences_go_on_where_they_were(name):
    mixer, x, z = layer(name), tokens(1, sum(LENGTHS)), tokens(1, sum(MORE)).flip(1)
    _, states = alone(mixer, x, LENGTHS)
    expected, after = alone(mixer, z, MORE, states)
    _, state = mixer(x, cu_seqlens=borders(LENGTHS))
    y, state = mixer(z, state, cu_seqlens=borders(MORE))
    assert relative_error(y, expected) <= 1e-12
    check_states(state, after)


@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_prompts_of_different_lengths_are_continued_together(name):
    mixer, x, z = layer(name), tokens(1, sum(LENGTHS)), tokens(len(LENGTHS), 4).flip(1)
    _, states = alone(mixer, x, LENGTHS)
    _, state = mixer(x, cu_seqlens=borders(LENGTHS))
    y, state = mixer(z[:, :2], state)
    steps = []
    for t in (2, 3):
        out, state = mixer.step(z[:, t], state)
        steps.append(out)
    for n, before in enumerate(states):
        expected, _ = mixer(z[n : n + 1], before)
        got = torch.cat((y[n], steps[0][n : n + 1], steps[1][n : n + 1]))
        assert relative_error(got, expected[0]) <= 1e-12


CALLS = st.sampled_from(["packed", "batch", "select", "join"])
LENGTH = st.sampled_from([0, 1, 2, 3, 17, 40])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(MIXERS)), st.integers(1, 4), st.lists(CALLS, max_size=5), st.data())
@torch.no_grad()
def test_calls_in_any_order_give_what_each_sequence_gives(name, N, calls, data):
    """Also where sequences end, go on several times, or begin later."""
    mixer, x = layer(name), tokens(4, 200)
    state, states, start = None, [None] * N, 0
    for call in calls:
        if call == "select":
            index = data.draw(st.lists(st.integers(0, N - 1), min_size=1, max_size=4))
            state, states = select(state, torch.tensor(index)), [states[n] for n in index]
            N = len(index)
            continue
        if call == "join":
            pieces = [
                x[n : n + 1, : data.draw(LENGTH)] for n in range(data.draw(st.integers(1, 2)))
            ]
            lengths = [piece.shape[1] for piece in pieces]
            _, new = mixer(torch.cat(pieces, 1), cu_seqlens=borders(lengths))
            state, states = (new, []) if state is None else (join([state, new]), states)
            states = states + [mixer(piece)[1] for piece in pieces]
            N = len(states)
            continue
        same = call == "batch"
        lengths = [data.draw(LENGTH)] * N if same else [data.draw(LENGTH) for _ in range(N)]
        pieces = [x[n % 4, start : start + T][None] for n, T in enumerate(lengths)]
        start += max(lengths)
        if same:
            y, state = mixer(torch.cat(pieces), state)
        else:
            y, state = mixer(torch.cat(pieces, 1), state, cu_seqlens=borders(lengths))
        outputs = y.flatten(0, 1).split(lengths)
        for n, piece in enumerate(pieces):
            expected, states[n] = mixer(piece, states[n])
            torch.testing.assert_close(outputs[n], expected[0], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", GROWING)
@torch.no_grad()
def test_prompts_that_go_on_lie_in_a_batch_behind_zeros(name):
    mixer, x, z = layer(name), tokens(1, 6), tokens(2, 1)
    _, state = mixer(x, cu_seqlens=borders((4, 2)))
    y, after = mixer.step(z[:, 0], state)
    assert after.cu_seqlens.tolist() == [0, 5, 8]
    for part in after[:-1]:
        if part is not None:
            assert part.shape[:2] == (2, 5)
            assert not part[1, :2].any()
    shorter = select(after, torch.tensor([1]))
    assert shorter.cu_seqlens is None
    assert shorter[0].shape[:2] == (1, 3)
    held = sum(x.untyped_storage().nbytes() for x in shorter if x is not None)
    assert held == state_bytes(shorter)  # and not what was cut off
    _, even = mixer(x, cu_seqlens=borders((3, 3)))
    assert mixer.step(z[:, 0], even)[1].cu_seqlens is None
    # What lies before a sequence in its row is not in its zeros.
    state = type(state)(*(p if p is None else p.clone() for p in state))
    state[0][:, :4] = torch.nan
    again, _ = mixer.step(z[:, 0], state)
    assert torch.equal(again[1], y[1])
    assert again[0].isnan().all()


@pytest.mark.parametrize("name", GROWING)
@torch.no_grad()
def test_no_form_sees_the_zeros_of_a_batch(name):
    x, z, outputs = tokens(1, 9), tokens(3, 1), []
    for form in ("recurrent", "chunk"):
        mixer = layer(name, backend=form)
        _, state = mixer(x, cu_seqlens=borders((5, 0, 4)))
        outputs.append(mixer.step(z[:, 0], state)[0])
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize("name", GROWING)
def test_gradients_flow_through_zeros_to_no_other_sequence(name):
    mixer, x, z = layer(name), tokens(1, 9).requires_grad_(), tokens(3, 2)
    _, state = mixer(x, cu_seqlens=borders((5, 0, 4)))
    y, state = mixer.step(z[:, 0], state)
    more, _ = mixer.step(z[:, 1], state)
    (got,) = torch.autograd.grad((y + more)[2].square().sum(), x)
    _, own = mixer(x[:, 5:])
    y, own = mixer.step(z[2:, 0], own)
    more, _ = mixer.step(z[2:, 1], own)
    (expected,) = torch.autograd.grad((y + more).square().sum(), x)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_a_batch_is_continued_by_packed_sequences(name):
    mixer, x, z = layer(name), tokens(5, 20), tokens(1, sum(MORE)).flip(1)
    _, state = mixer(x)
    states = [mixer(row[None])[1] for row in x]
    expected, after = alone(mixer, z, MORE, states)
    y, state = mixer(z, state, cu_seqlens=borders(MORE))
    assert relative_error(y, expected) <= 1e-12
    check_states(state, after)


@pytest.mark.parametrize("name", MIXERS)
def test_gradients_of_packed_sequences_are_those_of_each(name):
    mixer, x, z = layer(name), tokens(1, sum(LENGTHS)), tokens(1, sum(MORE)).flip(1)
    x.requires_grad_()
    targets = [x, *mixer.parameters()]
    _, states = alone(mixer, x, LENGTHS)
    y, _ = alone(mixer, z, MORE, states)
    expected = torch.autograd.grad(y.square().sum(), targets)
    _, state = mixer(x, cu_seqlens=borders(LENGTHS))
    y, _ = mixer(z, state, cu_seqlens=borders(MORE))
    for got, grad in zip(torch.autograd.grad(y.square().sum(), targets), expected, strict=True):
        assert relative_error(got, grad) <= 1e-10


@pytest.mark.parametrize("name", MIXERS)
def test_what_is_not_finite_stays_in_its_sequence(name):
    mixer, x = layer(name), tokens(1, 12).requires_grad_()
    with torch.no_grad():
        x[:, 4] = torch.nan
    y, state = mixer(x, cu_seqlens=borders((3, 5, 4)))
    assert y[:, :4].isfinite().all()
    assert y[:, 4:8].isnan().all()
    assert y[:, 8:].isfinite().all()
    assert all(part.isfinite().all() for n in (0, 2) for part in parts(of_sequence(state, n)))
    (dx,) = torch.autograd.grad(y[:, [0, 1, 2, 8, 9, 10, 11]].sum(), x)
    assert dx[:, :3].isfinite().all()
    assert dx[:, 8:].isfinite().all()


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_short_convolution_starts_anew_in_every_sequence(width):
    conv, x = ShortConvolution(6, width).double(), torch.randn(1, 106, 6, dtype=torch.float64)
    state = torch.randn(5, width - 1, 6, dtype=torch.float64)
    expected, states = alone(conv, x, LENGTHS, [row[None] for row in state])
    y, after = conv(x, state, cu_seqlens=borders(LENGTHS))
    torch.testing.assert_close(y, expected)
    assert torch.equal(after, torch.cat(states))


@torch.no_grad()
def test_a_model_reads_prompts_in_one_row_and_continues_them_as_a_batch():
    net, row = model(), some_tokens(1, sum(LENGTHS) + 5)
    lengths = [n + 1 for n in LENGTHS]  # a prompt has at least one token
    logits, state = net(row, cu_seqlens=borders(lengths))
    expected, states = alone(net, row, lengths)
    assert relative_error(logits, expected) <= 1e-12
    last = logits[0, borders(lengths)[1:] - 1].argmax(-1)
    logits, state = net.step(last, state)
    logits, _ = net.step(logits.argmax(-1), state)
    for n, own in enumerate(states):
        one, own = net.step(last[n : n + 1], own)
        one, _ = net.step(one.argmax(-1), own)
        assert relative_error(logits[n], one[0]) <= 1e-12


@pytest.mark.parametrize("name", MIXERS)
def test_bad_borders_are_named(name):
    mixer, x = layer(name), tokens(1, 10)
    for cu_seqlens, error, message in [
        (torch.tensor([0, 11]), ValueError, r"cu_seqlens must rise from 0 to T = \d+ without"),
        (torch.tensor([0, 7, 5, 10]), ValueError, r"cu_seqlens must rise from 0"),
        (torch.tensor([0.0, 10.0]), TypeError, "cu_seqlens must be int32 or int64"),
        ([0, 10], TypeError, "cu_seqlens must be a torch.Tensor, got list"),
        (
            torch.tensor([0]),
            ValueError,
            r"cu_seqlens must have shape \[N \+ 1\] with N >= 1, got \[1\]",
        ),
    ]:
        with pytest.raises(error, match=message):
            mixer(x, cu_seqlens=cu_seqlens)
    with pytest.raises(ValueError, match="x must have batch size 1 with cu_seqlens, got 2"):
        mixer(tokens(2, 10), cu_seqlens=torch.tensor([0, 10]))
    _, state = mixer(x, cu_seqlens=torch.tensor([0, 4, 10]))
    with pytest.raises(ValueError, match="state must"):
        mixer(x, state, cu_seqlens=torch.tensor([0, 4, 7, 10]))
    with pytest.raises(ValueError, match=r"must have shape|must be of N = 3 sequences"):
        mixer(tokens(3, 10), state)


@pytest.mark.parametrize("name", GROWING)
def test_a_packed_cache_says_of_how_many_sequences_it_is(name):
    mixer, x = layer(name), tokens(1, 10)
    _, state = mixer(x, cu_seqlens=torch.tensor([0, 4, 10]))
    assert state.cu_seqlens.tolist() == [0, 4, 10]
    shapes = []
    with mixer.register_forward_hook(lambda _, __, out: shapes.append(tuple(out[0].shape))):
        mixer(tokens(2, 3), state)
    assert shapes == [(2, 3, 24)]  # a hook sees one call
    with pytest.raises(ValueError, match=r"state must be of N = 3 sequences, got 2"):
        mixer(x, state, cu_seqlens=torch.tensor([0, 4, 7, 10]))
    with pytest.raises(ValueError, match=r"state must be of N = 3 sequences, got 2"):
        mixer(tokens(3, 10), state)
    with pytest.raises(ValueError, match=r"x must have shape \[B, T, d_model\] .* got \[2, 24\]"):
        mixer(tokens(2, 1)[:, 0], state)
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor, got list"):
        mixer([1], state)
    for no_parts in ([None] * 3, [[1]] * 3, [state[0], state[1][:, :4], *state[2:-1]]):
        wrong = type(state)(*no_parts[: len(state) - 1], state.cu_seqlens)
        with pytest.raises(ValueError, match="state must"):
            mixer(x, wrong, cu_seqlens=torch.tensor([0, 4, 10]))
    rows = [None if y is None else y.expand(3, *y.shape[1:]) for y in state[:-1]]
    with pytest.raises(ValueError, match=r"the borders of N = 3 sequences, got 2"):
        mixer(x, type(state)(*rows, state.cu_seqlens), cu_seqlens=torch.tensor([0, 4, 10]))
    for no_borders in ([0, 4, 10], torch.tensor([0.0, 4.0, 10.0])):
        wrong = state._replace(cu_seqlens=no_borders)
        with pytest.raises(TypeError, match=r"state\.cu_seqlens must be"):
            mixer(tokens(2, 10), wrong)
        with pytest.raises(TypeError, match=r"state\.cu_seqlens must be"):
            mixer(x, wrong, cu_seqlens=torch.tensor([0, 4, 10]))


@pytest.mark.parametrize("name", GROWING)
@torch.no_grad()
def test_borders_in_a_cache_that_are_none_are_named(name):
    mixer, x = layer(name), tokens(1, 9)
    _, row = mixer(x, cu_seqlens=borders((2, 7)))
    _, padded = mixer.step(tokens(2, 1)[:, 0], row)
    for state, wrong in [
        (row, [[0, 2, 8], [1, 2, 9], [0, 10, 9]]),
        (padded, [[0, 30, 60], [0, -2, 6], [5, 8, 16], [0, 9, 8], [0, 3, 20], [0, 3, 6]]),
    ]:
        for numbers in wrong:
            bad = state._replace(cu_seqlens=torch.tensor(numbers))
            for use in (
                lambda bad: mixer.step(tokens(2, 1)[:, 0], bad),
                lambda bad: mixer(tokens(2, 3), bad),
                lambda bad: mixer(x, bad, cu_seqlens=borders((2, 7))),
                lambda bad: select(bad, torch.tensor([1])),
                lambda bad: join([bad, row]),
            ):
                with pytest.raises(ValueError, match=r"state\.cu_seqlens must rise from 0"):
                    use(bad)


@pytest.mark.parametrize("name", GROWING)
@torch.no_grad()
def test_parts_of_a_cache_that_do_not_fit_are_named(name):
    mixer = layer(name)
    _, state = mixer(tokens(2, 9))
    first, second, *rest = state
    for wrong, message in [
        (first[:, :4], "state must keep the same tokens in all its parts"),
        (None, r"state must have k = a tensor \[B, S, ...\], got None"),
    ]:
        bad = type(state)(wrong, second, *rest)
        for use in (
            lambda bad: mixer.step(tokens(2, 1)[:, 0], bad),
            lambda bad: select(bad, torch.tensor([1])),
            lambda bad: join([bad, state]),
        ):
            with pytest.raises(ValueError, match=message):
                use(bad)


def test_parts_of_a_batch_that_differ_are_not_packed():
    x, k, v = tokens(1, 6).float(), torch.randn(2, 6, 3, 8), torch.randn(3, 4, 3, 8)
    with pytest.raises(ValueError, match=r"the same tokens .* got v \[3, 4\] beside \[2, 6\]"):
        SoftmaxAttention(24, 3)(x, KVCache(k, v, None), cu_seqlens=torch.tensor([0, 2, 6]))


def test_tokens_have_batch_size_1():
    net = SequenceModel(11, 24, 3, [DeltaNet, SoftmaxAttention])
    with pytest.raises(ValueError, match="tokens must have batch size 1 with cu_seqlens, got 2"):
        net(some_tokens(2, 8), cu_seqlens=torch.tensor([0, 8]))


@pytest.mark.parametrize("kind", [SoftmaxAttention, DeltaFormer])
@torch.no_grad()
def test_a_compiled_step_after_packed_prompts_is_one_graph(kind):
    torch.compiler.reset()
    counter = CompileCounter()
    layer, x = kind(24, 3), tokens(3, 9).float()
    _, state = layer(x[:1], cu_seqlens=borders((4, 0, 5)))
    _, state = layer.step(x[:, 0], state)  # reads the lengths
    step = torch.compile(layer.step, backend=counter, fullgraph=True)
    for t in range(1, 9):
        expected, _ = layer.step(x[:, t], state)
        y, state = step(x[:, t], state)
        torch.testing.assert_close(y, expected)
    assert counter.frame_count <= 2  # the second with a length that may change


@pytest.mark.parametrize("name", GROWING)
def test_a_packed_row_is_one_graph_forward_and_backward(name):
    torch.compiler.reset()
    mixer, x = layer(name), tokens(1, 12).requires_grad_()
    cu_seqlens = borders((4, 0, 7, 1))
    targets = [x, *mixer.parameters()]
    expected, whole = mixer(x, cu_seqlens=cu_seqlens)
    grads = torch.autograd.grad(expected.square().sum() + whole[1].square().sum(), targets)
    compiled = torch.compile(mixer, backend="aot_eager", fullgraph=True)
    y, state = compiled(x, cu_seqlens=cu_seqlens)
    assert relative_error(y.detach(), expected.detach()) <= 1e-12
    got = torch.autograd.grad(y.square().sum() + state[1].square().sum(), targets)
    for a, b in zip(got, grads, strict=True):
        assert relative_error(a, b) <= 1e-12
    with pytest.raises(ValueError, match="cu_seqlens must rise from 0 to T = 12"):
        compiled(x, cu_seqlens=borders((4, 0, 7, 2)))


@pytest.mark.parametrize("kind", [SoftmaxAttention, DeltaFormer])
@torch.no_grad()
def test_a_step_after_another_number_of_prompts_is_not_compiled_anew(kind):
    torch.compiler.reset()
    counter = CompileCounter()
    net = SequenceModel(11, 24, 3, [kind])
    step = torch.compile(net.step, backend=counter)
    frames = []
    for lengths in ((3, 5), (4, 2, 6), (7, 1, 2, 5), (2, 9, 4, 3, 8)):
        _, state = net(some_tokens(1, sum(lengths)), cu_seqlens=borders(lengths))
        new = some_tokens(len(lengths), 1)[:, 0]
        torch.testing.assert_close(step(new, state)[0], net.step(new, state)[0])
        frames.append(counter.frame_count)
    assert frames[1] == frames[-1]


@pytest.mark.parametrize("kind", [LinearAttention, DeltaNet, SoftmaxAttention, DeltaFormer])
@torch.no_grad()
def test_another_number_of_sequences_is_not_compiled_anew(kind):
    torch.compiler.reset()
    counter = CompileCounter()
    net = SequenceModel(11, 24, 3, [kind])
    compiled = torch.compile(net, backend=counter, fullgraph=True)
    frames = []
    for lengths in ((3, 5), (4, 2, 6), (7, 1, 2, 5), (2, 9, 4, 3, 8), (3, 5, 4, 6, 2, 7)):
        row, cu_seqlens = some_tokens(1, sum(lengths)), borders(lengths)
        logits, _ = compiled(row, cu_seqlens=cu_seqlens)
        torch.testing.assert_close(logits, net(row, cu_seqlens=cu_seqlens)[0])
        frames.append(counter.frame_count)
    assert frames[1] == frames[-1]  # the second with a number that may change
