"""Checks of the tokens that a layer gets, before its weights meet them."""

from __future__ import annotations

from torch import Tensor, nn

from assocmem.arguments import DTYPES, check_device, check_floats
from assocmem.ops.autocast import under_autocast
from assocmem.ops.inputs import check_tensor


def check_tokens(x: Tensor, d_model: int, first: nn.Module, dims: str = "...") -> None:
    """Raise unless x is a tensor of floats `[..., d_model]`, or `[B, T, d_model]` where dims says
    so, that the module which gets it first can take.
    """
    if dims != "...":  # a layer that takes each token by itself takes jagged tensors, too
        check_tensor("x", x)
    check_floats(x=x)
    if x.shape[-1:] != (d_model,) or (dims != "..." and x.ndim != 3):
        raise ValueError(
            f"x must have shape [{dims}, d_model] with d_model = {d_model}, got {list(x.shape)}"
        )
    if is_plain(first):
        check_like_weight(x, first.weight)  # pyright: ignore[reportArgumentType]


def is_plain(module: nn.Module) -> bool:
    """Whether a module has a weight of floats, and nothing that brings or makes another first.

    What shards, moves, quantises or parametrises weights sets another class or a hook.
    """
    if type(module) not in (nn.Linear, nn.RMSNorm) or module._forward_pre_hooks:
        return False
    return module.weight is not None and module.weight.dtype in DTYPES


def check_like_weight(x: Tensor, weight: Tensor) -> None:
    """Raise unless x is where a weight is, and in its dtype or cast to it by autocast."""
    check_device("x", x, weight, "the weights")
    if x.dtype == weight.dtype:
        return
    cast = x.dtype in DTYPES[:3] and weight.dtype in DTYPES[:3]
    if not (cast and under_autocast(x.device.type)):
        raise TypeError(f"x must be {weight.dtype} like the weights, got {x.dtype}")
