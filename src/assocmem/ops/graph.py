"""A loop as one operator, which stays whole in what `torch.compile` or `torch.export` traces.

Traced chunk by chunk, or sequence by sequence, a loop would make a graph for every number of them,
and take minutes. What the operator does is not traced: its backward pass runs the loop again, by
autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from assocmem.ops.autocast import without_autocast
from assocmem.ops.packed import scan_sequences
from assocmem.ops.transforms import check_derivatives, in_forward_mode, refuse, transformed

Scan = Callable[..., tuple[Tensor, Tensor]]


def in_place_of(q: Tensor, cu_seqlens: Tensor | None) -> bool:
    """Whether the operator is to stand for a scan of these tokens: where a graph would hold loops.

    Derivatives other than those of `backward`, which are all that an operator has, need the loops.
    """
    loops = q.shape[1] > 1 or cu_seqlens is not None
    return loops and torch.compiler.is_compiling() and not (transformed() or in_forward_mode())


@contextmanager
def recording() -> Iterator[None]:
    """A context in which autograd records, also below an operator that it has passed already."""
    key = torch._C.DispatchKey.AutogradFunctionality  # pyright: ignore[reportAttributeAccessIssue]
    guard = torch._C._SetExcludeDispatchKeyGuard  # pyright: ignore[reportAttributeAccessIssue]
    with guard(key, False), torch.enable_grad():
        yield


def operator(
    name: str,
    arguments: str,
    results: int,
    run: Callable[..., tuple[Tensor, ...]],
    empty: Callable[..., tuple[Tensor, ...]],
) -> Callable:
    """`torch.ops.assocmem.<name>`, with the gradients of `backward` only.

    Others are refused, but for what cannot be seen from here: `torch.func.jvp` of an exported
    program, which is 0.

    Args:
        name: what the operator is called.
        arguments: as PyTorch writes them, a tensor first.
        results: how many tensors it gives.
        run: what it does.
        empty: tensors like the results, as far as they are known while a graph is traced.
    """
    forward, backward = f"assocmem::{name}", f"assocmem::{name}_backward"
    torch.library.define(forward, f"({arguments}) -> ({', '.join(['Tensor'] * results)})")
    sent = ", ".join(f"Tensor? d{i}" for i in range(results))
    torch.library.define(backward, f"({arguments}, {sent}, bool[] wanted) -> Tensor[]")

    @torch.library.impl(forward, "default")
    def _(*arguments):
        check_derivatives("chunk", "recurrent", *filter(torch.is_tensor, arguments))
        with without_autocast(arguments[0]):
            return alone(tuple(x.contiguous() for x in run(*arguments)))

    @torch.library.register_fake(forward)
    def _(*arguments):
        return alone(empty(*arguments))

    @torch.library.impl(backward, "default")
    def _(*arguments):
        *arguments, wanted = arguments
        arguments, sent = arguments[:-results], arguments[-results:]
        leaves = [x.detach() if torch.is_tensor(x) else x for x in arguments]
        targets = [x.requires_grad_() for x in chosen(leaves, wanted)]
        with recording(), without_autocast(arguments[0]):
            # Where one has no gradient, not even a 0 may reach what is NaN on the way.
            pairs = zip(run(*leaves), sent, strict=True)
            pairs = [(x, dx) for x, dx in pairs if dx is not None and x.requires_grad]
            if not pairs:
                return [x.new_zeros(x.shape) for x in targets]
            outputs, sent = zip(*pairs, strict=True)
            grads = torch.autograd.grad(outputs, targets, sent, materialize_grads=True)
        return owned(grads, sent)

    @torch.library.register_fake(backward)
    def _(*arguments):
        leaves = chosen(arguments[: -results - 1], arguments[-1])
        return [x.new_empty(x.shape) for x in leaves]

    def keep(ctx, inputs, output):
        ctx.save_for_backward(*(x if torch.is_tensor(x) else None for x in inputs))
        ctx.others = [None if torch.is_tensor(x) else x for x in inputs]
        ctx.set_materialize_grads(False)

    def differentiate(ctx, *sent):
        pairs = zip(ctx.saved_tensors, ctx.others, strict=True)
        arguments = [other if x is None else x for x, other in pairs]
        wanted = list(ctx.needs_input_grad)
        grads = iter(gradients(*arguments, *sent, wanted))
        return tuple(next(grads) if asked else None for asked in wanted)

    torch.library.register_autograd(forward, differentiate, setup_context=keep)
    torch.library.register_autograd(backward, refuse)
    gradients = getattr(torch.ops.assocmem, f"{name}_backward")
    return getattr(torch.ops.assocmem, name)


def alone(results: tuple[Tensor, ...]) -> Any:
    """A single result as an operator gives it: as itself."""
    return results[0] if len(results) == 1 else results


def owned(results: Sequence[Tensor], given: Sequence[Tensor]) -> list[Tensor]:
    """Results in storage of their own, as those of an operator must be.

    Without a decay, the gradient of a state can be the very tensor that was sent for the final one.
    """
    taken, own = {storage(x) for x in given}, []
    for x in results:
        shared = storage(x) in taken
        x = x.clone(memory_format=torch.contiguous_format) if shared else x.contiguous()
        taken.add(storage(x))
        own.append(x)
    return own


def storage(x: Tensor) -> int:
    """Where the numbers of a tensor and of its views lie."""
    return x.untyped_storage().data_ptr()


def chosen(arguments: Sequence[Any], wanted: Sequence[bool]) -> list[Tensor]:
    """Those of the arguments that are wanted."""
    return [x for x, asked in zip(arguments, wanted, strict=True) if asked]


def scan_operator(name: str, form: Scan) -> Scan:
    """The operator of a form of a scan, whole or of packed sequences.

    Args:
        name: what the operator is called.
        form: o and the final state from (q, k, v, g), or (q, k, v, beta, g) where beta is not None,
            and scale and S.
    """

    def run(q, k, v, beta, g, scale, S, cu_seqlens):
        tokens = (q, k, v, g) if beta is None else (q, k, v, beta, g)
        o, final = scan_sequences(form, tokens, scale, S, cu_seqlens)
        return o.to(S), final

    def empty(q, k, v, beta, g, scale, S, cu_seqlens):
        return S.new_empty(v.shape), S.new_empty(S.shape)

    tokens = "Tensor q, Tensor k, Tensor v, Tensor? beta, Tensor? g"
    return operator(name, f"{tokens}, float scale, Tensor S, Tensor? cu_seqlens", 2, run, empty)
