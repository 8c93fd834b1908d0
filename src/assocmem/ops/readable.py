"""When the numbers in tensors may be looked at."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from assocmem.ops.transforms import batched


def known(answer: Callable[[], bool], *tensors: Tensor) -> bool:
    """What a look at the numbers of tensors answers; False where they must not be looked at."""
    return readable(*tensors) and answer()


def readable(*tensors: Tensor) -> bool:
    """Whether the numbers of tensors may be looked at: not in a graph that is traced or captured,
    not of meta or fake tensors, and not under vmap, where nothing may branch on a value.
    """
    if torch.compiler.is_compiling() or any(map(without_numbers, tensors)):
        return False
    if tensors[0].is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return not any(map(batched, tensors))


def without_numbers(x: Tensor) -> bool:
    """Whether a tensor is a shape alone, on the meta device or in `FakeTensorMode`."""
    return x.is_meta or isinstance(x, FakeTensor)
