"""What `torch.autocast` does to an operator: to what enters it, and to nothing within."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from assocmem.arguments import DTYPES

# Asked once, here: in torch 2.11 no compiled graph can ask.
NO_AUTOCAST = frozenset(
    device
    for device in ("cpu", "cuda", "xpu", "mps", "meta")
    if not torch.amp.is_autocast_available(device)
)


def cast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast float tensors as `torch.autocast` casts them for a matrix product, where it is on."""
    first = tensors[0]
    if not isinstance(first, Tensor):
        return tensors
    device = first.device.type
    if not under_autocast(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(
        x.to(dtype) if isinstance(x, Tensor) and x.dtype in DTYPES[:3] else x for x in tensors
    )


def under_autocast(device: str) -> bool:
    """Whether `torch.autocast` is on for a type of device."""
    return device not in NO_AUTOCAST and torch.is_autocast_enabled(device)


def without_autocast(q: Tensor) -> AbstractContextManager:
    """A context in which products keep the dtype of their operands."""
    device = q.device.type
    if device in NO_AUTOCAST:
        return nullcontext()
    return torch.autocast(device, enabled=False)
