"""A scan as one operator, which a graph that `torch.compile` or `torch.export` traces holds whole.

Traced chunk by chunk, a loop over chunks would make a graph for every number of chunks, and take
minutes. What the operator does is not traced: its backward pass runs the scan again, by autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from assocmem.ops import inputs
from assocmem.ops.transforms import check_derivatives, in_forward_mode, refuse, transformed

Scan = Callable[..., tuple[Tensor, Tensor]]


def in_place_of(q: Tensor, cu_seqlens: Tensor | None) -> bool:
    """Whether the operator is to stand for a scan of these tokens: where a graph would hold loops.

    Other derivatives than those of `backward`, which is all that an operator has, need the loops.
    """
    loops = q.shape[1] > 1 or cu_seqlens is not None
    return loops and torch.compiler.is_compiling() and not (transformed() or in_forward_mode())


def tokens_of(
    q: Tensor | None, k: Tensor | None, v: Tensor | None, beta: Tensor | None, g: Tensor | None
) -> tuple[Tensor | None, ...]:
    """What a scan takes of every token."""
    return (q, k, v, g) if beta is None else (q, k, v, beta, g)


@contextmanager
def recording() -> Iterator[None]:
    """A context in which autograd records, also below an operator that it has passed already."""
    key = torch._C.DispatchKey.AutogradFunctionality  # pyright: ignore[reportAttributeAccessIssue]
    guard = torch._C._SetExcludeDispatchKeyGuard  # pyright: ignore[reportAttributeAccessIssue]
    with guard(key, False), torch.enable_grad():
        yield


def operator(name: str, scan: Scan) -> Scan:
    """`torch.ops.assocmem.<name>`, with the gradients of `backward` only.

    Others are refused, but for what cannot be seen from here: `torch.func.jvp` of an exported
    program, which is 0.

    Args:
        name: what the operator is called.
        scan: o and the final state from (q, k, v, g), or (q, k, v, beta, g) where beta is not None,
            and scale, S and cu_seqlens.
    """
    forward, backward = f"assocmem::{name}", f"assocmem::{name}_backward"
    tokens = "Tensor q, Tensor k, Tensor v, Tensor? beta, Tensor? g"
    arguments = f"{tokens}, float scale, Tensor S, Tensor? cu_seqlens"
    sent = "Tensor? do, Tensor? dS, bool[] wanted"
    torch.library.define(forward, f"({arguments}) -> (Tensor, Tensor)")
    torch.library.define(backward, f"({arguments}, {sent}) -> Tensor[]")

    @torch.library.impl(forward, "default")
    def _(q, k, v, beta, g, scale, S, cu_seqlens):
        check_derivatives("chunk", "recurrent", q, k, v, beta, g, S)
        with inputs.without_autocast(q):
            o, final = scan(tokens_of(q, k, v, beta, g), scale, S, cu_seqlens)
        return o.to(S).contiguous(), final.contiguous()

    @torch.library.register_fake(forward)
    def _(q, k, v, beta, g, scale, S, cu_seqlens):
        return S.new_empty(v.shape), S.new_empty(S.shape)

    @torch.library.impl(backward, "default")
    def _(q, k, v, beta, g, scale, S, cu_seqlens, do, dS, wanted):
        leaves = [x if x is None else x.detach() for x in (q, k, v, beta, g, S)]
        targets = [x.requires_grad_() for x in chosen(leaves, wanted)]
        *tokens, start = leaves
        with recording(), inputs.without_autocast(q):
            outputs = scan(tokens_of(*tokens), scale, start, cu_seqlens)
            # Where one has no gradient, not even a 0 may reach what is NaN on the way.
            pairs = zip(outputs, (do, dS), strict=True)
            sent = [(x, dx) for x, dx in pairs if dx is not None and x.requires_grad]
            if not sent:
                return [torch.zeros_like(x) for x in targets]
            outputs, sent_back = zip(*sent, strict=True)
            grads = torch.autograd.grad(outputs, targets, sent_back, materialize_grads=True)
        return [x.contiguous() for x in grads]

    @torch.library.register_fake(backward)
    def _(q, k, v, beta, g, scale, S, cu_seqlens, do, dS, wanted):
        return [x.new_empty(x.shape) for x in chosen((q, k, v, beta, g, S), wanted)]

    def keep(ctx, inputs, output):
        *tokens, ctx.scale, S, cu_seqlens = inputs
        ctx.save_for_backward(*tokens, S, cu_seqlens)
        ctx.set_materialize_grads(False)

    def differentiate(ctx, do, dS):
        *tokens, S, cu_seqlens = ctx.saved_tensors
        *of_tokens, _, of_S, _ = ctx.needs_input_grad
        wanted = [*of_tokens, of_S]
        grads = iter(gradients(*tokens, ctx.scale, S, cu_seqlens, do, dS, wanted))
        *d_tokens, d_start = (next(grads) if asked else None for asked in wanted)
        return *d_tokens, None, d_start, None

    torch.library.register_autograd(forward, differentiate, setup_context=keep)
    torch.library.register_autograd(backward, refuse)
    gradients = getattr(torch.ops.assocmem, f"{name}_backward")
    return getattr(torch.ops.assocmem, name)


def chosen(tensors: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor]:
    """Those of the tensors that are wanted."""
    return [x for x, asked in zip(tensors, wanted, strict=True) if asked and x is not None]
