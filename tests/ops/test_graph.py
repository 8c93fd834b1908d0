"""A scan in a graph: one operator, with the values, gradients and errors of the chunk form."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad

from assocmem import ops
from tests.ops.inputs import GATES, in_another_layout, random_inputs
from tests.ops.operators import OPERATORS, TORCH_2_6, worst
from tests.ops.reference import relative_error

every_operator = pytest.mark.parametrize("name", OPERATORS)
every_gate = pytest.mark.parametrize("gate", GATES)


@pytest.fixture(autouse=True)
def _anew():
    torch.compiler.reset()


@every_operator
@every_gate
def test_one_graph_serves_all_lengths(name, gate):
    op, counter = OPERATORS[name], CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(op.function, fullgraph=True, backend=counter)
    for T in (100, 90, 5, 300):
        inputs = op.inputs(2, T, 2, 16, 8, gate)
        got = inputs.run(compiled, torch.float32, output_final_state=True)
        error, what = worst(got, op.run(inputs, torch.float32, "chunk"))
        assert error <= 1e-6, what
    assert counter.frame_count <= 2  # the second with a length that may change
    for graph in counter.graphs:
        assert f"assocmem.{op.function.__name__}_chunk" in graph.code


@pytest.mark.parametrize("form", ["recurrent", "chunk"])
@pytest.mark.parametrize("operator", [*OPERATORS, "softmax", "deltaformer"])
def test_one_graph_serves_all_sizes(operator, form):
    """The number of heads may be a symbol, too."""
    others = {"softmax": ops.softmax_attention, "deltaformer": ops.deltaformer}
    if operator in others and form == "chunk" and TORCH_2_6:
        pytest.skip("torch 2.6 mistakes the strides of its own attention")
    function = others.get(operator) or OPERATORS[operator].function
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=counter)
    for B, T, H in ((2, 9, 4), (3, 7, 3), (5, 8, 6)):
        q, k, v = random_inputs(B, T, H, 8, 6, "none").tokens
        tokens = (q, k, v) if operator in ("linear", "softmax") else (q, k, v, v[..., 0].sigmoid())
        got, expected = (f(*tokens, backend=form) for f in (compiled, function))
        torch.testing.assert_close(got, expected)
    assert counter.frame_count <= (1 if form == "chunk" else 3)


@every_operator
@every_gate
@pytest.mark.parametrize("form", ["recurrent", "chunk"])
def test_packed_sequences_do_not_break_it(name, gate, form):
    op, counter = OPERATORS[name], CompileCounterWithBackend("aot_eager")
    function = partial(op.function, backend=form)
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for lengths in ((70, 0, 30), (3, 90), (1, 64, 2, 33), (20,) * 9):
        borders = torch.tensor([0, *lengths]).cumsum(0)
        inputs = op.inputs(1, sum(lengths), 2, 16, 8, gate)
        S = op.inputs(len(lengths), 1, 2, 16, 8, gate)
        inputs.S, inputs.dS = S.S, S.dS
        got = inputs.run(compiled, torch.float32, output_final_state=True, cu_seqlens=borders)
        expected = op.run(inputs, torch.float32, form, cu_seqlens=borders)
        error, what = worst(got, expected)
        assert error <= 1e-6, what
    assert counter.frame_count <= 3


@every_operator
def test_a_single_packed_token_does_not_break_it(name):
    op = OPERATORS[name]
    tokens = op.inputs(1, 1, 2, 16, 8, "head").tokens
    compiled = torch.compile(op.function, fullgraph=True, backend="aot_eager")
    borders = torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(
        *(f(*tokens, cu_seqlens=borders)[0] for f in (compiled, op.function))
    )


ATTENTIONS = {
    "softmax": lambda q, k, v, beta, **x: ops.softmax_attention(q, k, v, beta.log(), **x),
    "deltaformer": ops.deltaformer,
}


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("form", ["recurrent", "chunk"])
def test_packed_attention_does_not_break_it(name, form):
    counter = CompileCounterWithBackend("aot_eager")
    function = partial(ATTENTIONS[name], backend=form)
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for lengths in ((20, 0, 13), (3, 40), (1, 24, 2, 33), (5,) * 9):
        cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
        inputs = OPERATORS["delta"].inputs(1, sum(lengths), 2, 16, 8, "none")
        leaves = [x.requires_grad_() for x in inputs.tokens if x is not None]
        results = [f(*leaves, cu_seqlens=cu_seqlens) for f in (compiled, function)]
        results = [[o, *torch.autograd.grad(o, leaves, inputs.do)] for o in results]
        for got, expected in zip(*results, strict=True):
            assert relative_error(got.detach(), expected.detach()) <= 1e-12
    assert counter.frame_count <= 3
    with pytest.raises(ValueError, match="cu_seqlens must rise from 0 to T = 45"):
        compiled(*leaves, cu_seqlens=torch.tensor([0, 4, 46]))


def test_opcheck_of_packed_attention():
    new, old = torch.tensor([0, 3, 3, 7]), torch.tensor([0, 2, 5, 5])
    tokens = OPERATORS["delta"].inputs(1, 12, 2, 4, 3, "head")
    q, k, v, g, past = tokens.q[:, :7], tokens.k, tokens.v, tokens.g, tokens.v[:, :5]
    attention = (q, k, v, g, 0.5, "chunk", new, old + new)
    former = (q, q, k, v[:, 5:], tokens.beta[:, :7], past, "softmax", 0.5, "chunk", old, new)
    for name, arguments, like in (
        ("softmax_attention_packed", attention, (v[:, :7],)),
        ("deltaformer_packed", former, (v[:, :7], v)),
    ):
        tensors = [torch.is_tensor(x) and x.is_floating_point() for x in arguments]
        given = [
            x.clone().requires_grad_() if t else x for x, t in zip(arguments, tensors, strict=True)
        ]
        torch.library.opcheck(getattr(torch.ops.assocmem, name).default, given)
        backward = getattr(torch.ops.assocmem, f"{name}_backward").default
        torch.library.opcheck(backward, (*arguments, *like, tensors))


@every_operator
def test_borders_are_looked_at(name):
    op = OPERATORS[name]
    tokens = op.inputs(1, 10, 2, 16, 8, "head").tokens
    compiled = torch.compile(op.function, fullgraph=True, backend="aot_eager")
    compiled(*tokens, cu_seqlens=torch.tensor([0, 4, 10]))
    with pytest.raises(ValueError, match="cu_seqlens must rise from 0 to T = 10 without falling"):
        compiled(*tokens, cu_seqlens=torch.tensor([0, 4, 11]))


@every_operator
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(name, dtype):
    op = OPERATORS[name]
    inputs = op.inputs(2, 70, 2, 16, 8, "head")
    compiled = torch.compile(op.function, fullgraph=True, backend="aot_eager")
    got = inputs.run(compiled, dtype, output_final_state=True)
    expected = op.run(inputs, dtype, "chunk")
    assert {x: got[x].dtype for x in got} == {x: expected[x].dtype for x in expected}
    error, what = worst(got, expected)
    assert error <= 1e-6, what


@every_operator
def test_autocast(name):
    op = OPERATORS[name]
    tokens = [x.requires_grad_() for x in op.inputs(2, 70, 2, 16, 8, "head").tokens]
    compiled = torch.compile(op.function, fullgraph=True, backend="aot_eager")
    results = []
    for function in (compiled, op.function):
        with torch.autocast("cpu", torch.bfloat16):
            o, S = function(*tokens, output_final_state=True)
        results.append((o, S, *torch.autograd.grad(o.float().sum() + S.sum(), tokens)))
    assert results[0][0].dtype == torch.bfloat16
    torch.testing.assert_close(*results)


@every_operator
def test_autocast_does_not_reach_into_the_operator(name):
    """Neither where a program that was exported without it runs, nor in its backward pass."""
    op = OPERATORS[name]
    tokens = tuple(x.requires_grad_() for x in op.inputs(2, 70, 2, 16, 8, "head").tokens)

    class Layer(torch.nn.Module):
        def forward(self, *tokens):
            return op.function(*tokens)[0]

    program = torch.export.export(Layer(), tokens).module()
    with torch.autocast("cpu", torch.bfloat16):
        o = program(*tokens)
        grads = torch.autograd.grad(o.sum(), tokens)
    expected, _ = op.function(*tokens)
    torch.testing.assert_close(o, expected)
    torch.testing.assert_close(grads, torch.autograd.grad(expected.sum(), tokens))


@every_operator
@torch.no_grad()
def test_an_exported_program_takes_any_length(name):
    op = OPERATORS[name]

    class Layer(torch.nn.Module):
        def forward(self, *tokens):
            return op.function(*tokens)[0]

    tokens = tuple(op.inputs(2, 40, 2, 16, 8, "channel").tokens)
    T = torch.export.Dim("T", min=2, max=4096)
    program = torch.export.export(Layer(), tokens, dynamic_shapes=(({1: T},) * len(tokens),))
    tokens = tuple(op.inputs(2, 300, 2, 16, 8, "channel").tokens)
    torch.testing.assert_close(program.module()(*tokens), op.function(*tokens)[0])


@every_operator
def test_other_derivatives_are_traced_through(name):
    """They would be 0 through an operator, or an error of PyTorch's."""
    op = OPERATORS[name]
    *others, last = op.inputs(1, 40, 2, 4, 3, "none").tokens

    def square(x):
        return op.function(*others, x)[0].square().sum()

    gradient = torch.func.grad(square)
    compiled = torch.compile(gradient, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(last), gradient(last))

    def tangent(x):
        return torch.func.jvp(square, (x,), (torch.ones_like(x),))[1]

    compiled = torch.compile(tangent, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(last), tangent(last))

    compiled = torch.compile(square, backend="aot_eager")
    compiled(last)
    with forward_ad.dual_level():
        got = forward_ad.unpack_dual(compiled(forward_ad.make_dual(last, torch.ones_like(last))))
    torch.testing.assert_close(got.tangent, tangent(last))


@every_operator
@pytest.mark.parametrize("wanted", ["q", "v", "S"])
def test_gradients_that_nobody_wants_are_left_out(name, wanted):
    op = OPERATORS[name]
    inputs = op.inputs(2, 70, 2, 16, 8, "head")
    tokens = dict(zip((*op.arguments, "g"), inputs.tokens, strict=True))
    x = (inputs.S if wanted == "S" else tokens[wanted]).requires_grad_()
    compiled = torch.compile(op.function, fullgraph=True, backend="aot_eager")
    outputs = [f(**tokens, initial_state=inputs.S)[0] for f in (compiled, op.function)]
    got, expected = (torch.autograd.grad(o.square().sum(), x)[0] for o in outputs)
    torch.testing.assert_close(got, expected)


@every_operator
def test_queries_have_no_part_in_the_gradients_of_a_state(name):
    op = OPERATORS[name]
    tokens = op.inputs(2, 70, 2, 16, 8, "head").tokens
    leaves = [x.requires_grad_() for x in tokens]
    compiled = torch.compile(op.function, fullgraph=True, backend="eager")
    _, S = compiled(*tokens, output_final_state=True)
    (alone,) = torch.autograd.grad(S.sum(), leaves[:1], retain_graph=True)
    dq, *others = torch.autograd.grad(S.sum(), leaves)
    assert not alone.any()
    assert not dq.any()
    _, S = op.function(*tokens, output_final_state=True)
    torch.testing.assert_close(others, list(torch.autograd.grad(S.sum(), leaves[1:])))


@every_operator
def test_arguments_may_be_made_of_each_other(name):
    """A tensor that is two arguments gets the sum of both gradients, each once."""
    op = OPERATORS[name]
    k, *rest = op.inputs(2, 40, 2, 8, 8, "head").tokens[1:]
    k.requires_grad_()

    def read(k):
        return op.function(k, k, k * k, *rest[1:])[0]

    compiled = torch.compile(read, fullgraph=True, backend="eager")
    grads = [torch.autograd.grad(f(k).square().sum(), k) for f in (compiled, read)]
    torch.testing.assert_close(*grads)


@every_operator
@every_gate
def test_a_nan_behind_what_is_asked_for_sends_nothing_back(name, gate):
    op = OPERATORS[name]
    tokens = op.inputs(1, 20, 2, 4, 3, gate).tokens
    tokens[2][:, 17:] = torch.nan
    compiled = torch.compile(op.function, fullgraph=True, backend="aot_eager")
    grads = []
    for function in (compiled, op.function):
        leaves = [x.clone().requires_grad_() for x in tokens]
        o, _ = function(*leaves)
        grads.append(torch.autograd.grad(o[:, :17].square().sum(), leaves))
    torch.testing.assert_close(*grads, equal_nan=True)
    assert grads[0][1].isfinite().all()  # of k


@every_operator
def test_an_exported_program_refuses_derivatives_that_it_does_not_have(name):
    op = OPERATORS[name]
    tokens = tuple(op.inputs(1, 20, 2, 4, 3, "head").tokens)

    class Layer(torch.nn.Module):
        def forward(self, *tokens):
            return op.function(*tokens)[0]

    program = torch.export.export(Layer(), tokens).module()
    *others, last = tokens
    last = last.clone().requires_grad_()
    (g,) = torch.autograd.grad(program(*others, last).square().sum(), last, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only: take backend='recurrent'"):
        g.sum().backward()
    with pytest.raises(RuntimeError, match="take backend='recurrent'"), forward_ad.dual_level():
        program(*others, forward_ad.make_dual(last.detach(), torch.ones_like(last)))


@every_operator
@every_gate
@pytest.mark.parametrize("borders", [None, [0, 30, 30, 75]])
def test_opcheck(name, gate, borders):
    inputs = OPERATORS[name].inputs(1, 75, 2, 4, 3, gate)
    cu_seqlens = None if borders is None else torch.tensor(borders)
    S = inputs.S.repeat(1 if borders is None else 3, 1, 1, 1)
    tokens = [inputs.q, inputs.k, inputs.v, inputs.beta, inputs.g]
    tokens = [None if x is None else x.clone().requires_grad_() for x in tokens]
    forward = getattr(torch.ops.assocmem, f"{OPERATORS[name].function.__name__}_chunk")
    backward = getattr(torch.ops.assocmem, f"{OPERATORS[name].function.__name__}_chunk_backward")
    torch.library.opcheck(forward.default, (*tokens, 0.5, S.requires_grad_(), cu_seqlens))
    tokens = [None if x is None else x.detach() for x in tokens]
    S = S.detach()
    wanted = [*(x is not None for x in tokens), False, True, False]
    torch.library.opcheck(backward.default, (*tokens, 0.5, S, cu_seqlens, inputs.do, S, wanted))


@pytest.mark.parametrize("form", ["recurrent", "chunk"])
def test_what_is_sent_back_is_in_storage_of_its_own(form):
    """A graph may write over a gradient that it has sent, as soon as nothing else reads it."""
    inputs = random_inputs(1, 3, 1, 2, 2, "none")
    tokens = [inputs.q, inputs.k, inputs.v, None, None]
    backward = getattr(torch.ops.assocmem, f"linear_attention_{form}_backward").default
    arguments = (*tokens, 0.5, inputs.S, None, None, inputs.dS, [False] * 6 + [True, False])
    torch.library.opcheck(backward, arguments)
    (dS,) = backward(*arguments)
    assert dS.data_ptr() != inputs.dS.data_ptr()


@every_operator
def test_a_graph_knows_layouts_and_dtypes(name):
    """What comes out is what a graph was told, of arguments in any layout, and of no tokens."""
    op = OPERATORS[name]
    inputs = op.inputs(2, 75, 2, 4, 3, "channel")
    S = inputs.S.mT.contiguous().mT
    tokens = [inputs.q, inputs.k, inputs.v, inputs.beta, inputs.g]
    strided = [None if x is None else in_another_layout(x) for x in tokens]
    turned = [inputs.q.mT.contiguous().mT, *strided[1:]]
    none = [None if x is None else x[:1, :0].bfloat16() for x in tokens]
    wanted = [*(x is not None for x in tokens), False, True, False]
    forward = getattr(torch.ops.assocmem, f"{op.function.__name__}_chunk").default
    backward = getattr(torch.ops.assocmem, f"{op.function.__name__}_chunk_backward").default
    for call, arguments in (
        (forward, (*strided, 0.5, S, None)),
        (forward, (*none, 0.5, S[:1], torch.tensor([0, 0]))),
        (backward, (*strided, 0.5, S, None, inputs.do, inputs.dS, wanted)),
        (backward, (*turned, 0.5, S, None, None, inputs.dS, [True] + [False] * 7)),  # of q it is 0
    ):
        torch.library.opcheck(call, arguments, test_utils="test_faketensor")
