"""What `torch.func` and forward-mode differentiation do just now, by PyTorch's private names.

An operator of our own has a backward pass alone, and a function that looks at numbers no rule for
`vmap`: both have to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from assocmem.ops.backend import constant

functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]


def levels(x: Tensor) -> Iterator[Tensor]:
    """The wrappers around a tensor, one for each transform that follows it."""
    while functorch.is_functorch_wrapped_tensor(x):
        yield x
        x = functorch.get_unwrapped(x)


def batched(x: Tensor) -> bool:
    """Whether `vmap` goes over x, at any level, or `torch.autograd.grad` with is_grads_batched."""
    return functorch.is_legacy_batchedtensor(x) or any(map(functorch.is_batchedtensor, levels(x)))


def followed(x: Tensor) -> bool:
    """Whether grad, vjp or jvp of `torch.func` differentiates by x, at any level."""
    return any(map(functorch.is_gradtrackingtensor, levels(x)))


@constant
def transformed() -> bool:
    """Whether a transform of `torch.func` runs."""
    return functorch.peek_interpreter_stack() is not None


def in_forward_mode() -> bool:
    """Whether a level of forward-mode differentiation is open."""
    return forward_ad._current_level >= 0


def check_derivatives(form: str, other: str, *tensors: Tensor | None) -> None:
    """Refuse derivatives that an operator of our own does not have: all but those of `backward`.

    Raises:
        RuntimeError: when a tensor has a tangent (forward mode), or `torch.func` follows it.
    """
    if torch.compiler.is_compiling():
        return
    for x in tensors:
        if x is not None and (forward_ad.unpack_dual(x).tangent is not None or followed(x)):
            raise RuntimeError(
                f"the operator of backend={form!r} has the gradients of backward() only, and no "
                f"forward-mode or torch.func derivatives: take backend={other!r}"
            )


def refuse(_ctx: Any, *_gradients: Tensor) -> None:
    """Stand for the backward pass of a backward pass, which an operator of our own does not have.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(
        "the operator of backend='chunk', or of a graph, has first derivatives only: "
        "take backend='recurrent', outside of a graph"
    )
