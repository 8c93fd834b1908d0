"""Checks of arguments: each says what was expected and what came."""

from __future__ import annotations

import math
from numbers import Integral, Real

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_count(name: str, value: int, at_least: int = 1) -> int:
    """Raise unless `value` is an integer, of Python or NumPy, of at least `at_least`.

    Returns:
        It as an integer of Python, which does not wrap.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")
    return int(value)


def check_counts(**counts: int) -> None:
    """Raise unless every one of the named numbers is an integer of at least 1."""
    for name, value in counts.items():
        check_count(name, value)


def check_bool(name: str, value: bool) -> None:
    """Raise unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {type(value).__name__}")


def check_number(name: str, value: float | Tensor) -> None:
    """Raise unless `value` is a real number, of Python or NumPy, or a tensor of one float."""
    if isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point():
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")


def check_positive(name: str, value: float) -> None:
    """Raise unless `value` is a finite number above 0."""
    check_number(name, value)
    if not (0 < value < math.inf):
        raise ValueError(f"{name} must be finite and > 0, got {value!r}")


def check_fraction(name: str, value: float) -> None:
    """Raise unless `value` lies in [0, 1]."""
    check_number(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value!r}")


def check_finite(name: str, x: Tensor) -> None:
    """Raise unless all numbers of a tensor are finite."""
    if not x.isfinite().all():
        raise ValueError(f"{name} must be finite, got {x[~x.isfinite()][0].item()}")


def check_floats(**tensors: Tensor) -> None:
    """Raise unless all are tensors of floats, in the dtype of the first."""
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
        if not x.is_floating_point():
            raise TypeError(f"{name} must be a tensor of floats, got {x.dtype}")
    first, reference = next(iter(tensors.items()))
    for name, x in tensors.items():
        if x.dtype != reference.dtype:
            raise TypeError(f"{name} must be {reference.dtype} like {first}, got {x.dtype}")


def check_device(name: str, x: Tensor, other: Tensor, like: str) -> None:
    """Raise unless a tensor is where another one is, which the message calls `like`."""
    if x.device != other.device:
        raise ValueError(f"{name} must be on {other.device} like {like}, got {x.device}")


def check_floating_dtype(dtype: torch.dtype) -> None:
    """Raise unless `dtype` is one of DTYPES: floats of 8 bits can be stored, and little else."""
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be a floating dtype, got {dtype!r}")


def check_seed(seed: int, bits: int) -> None:
    """Raise unless `seed` is an integer of at least 0 that so many bits hold."""
    check_count("seed", seed, at_least=0)
    if seed >= 2**bits:
        raise ValueError(f"seed must be below 2 ** {bits}, got {seed}")


def check_generator(generator: torch.Generator) -> None:
    """Raise unless the source of randomness is one: with None, torch would draw from its own."""
    if not isinstance(generator, torch.Generator):
        kind = type(generator).__name__
        raise TypeError(f"generator must be a torch.Generator, got {kind}")
