"""Checks of the tokens that a layer gets, before its weights meet them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from assocmem.arguments import check_floats
from assocmem.ops.inputs import NO_AUTOCAST, check_device


def check_tokens(x: Tensor, d_model: int, weight: Any, dims: str = "...") -> None:
    """Raise unless x is a tensor of floats `[..., d_model]`, or `[B, T, d_model]` where dims says
    so, which fits the weight of a layer: on its device, and in its dtype but under autocast.

    A weight that is no tensor of floats is not looked at: quantised layers keep others.
    """
    check_floats(x=x)
    if x.shape[-1:] != (d_model,) or (dims != "..." and x.ndim != 3):
        raise ValueError(
            f"x must have shape [{dims}, d_model] with d_model = {d_model}, got {list(x.shape)}"
        )
    check_like_weight("x", x, weight)


def check_like_weight(name: str, x: Tensor, weight: Any) -> None:
    """Raise unless x is where a weight is, and in its dtype or under autocast."""
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        return
    check_device(name, x, weight, "the weights")
    if x.dtype != weight.dtype and not under_autocast(x.device.type):
        raise TypeError(f"{name} must be {weight.dtype} like the weights, got {x.dtype}")


def under_autocast(device: str) -> bool:
    """Whether `torch.autocast` is on for a type of device."""
    return device not in NO_AUTOCAST and torch.is_autocast_enabled(device)
