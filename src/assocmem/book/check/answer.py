"""What an answer is read as, and when it is right: numbers and arrays of any type and precision."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from assocmem.book.check.exercise import Wrong


def as_array(name: str, x: Any) -> Tensor:
    """Numbers, nested lists or tensors, also lists of tensors, as float64."""
    try:
        if isinstance(x, tuple | list) and any(isinstance(row, Tensor) for row in x):
            x = torch.stack([torch.as_tensor(row, dtype=torch.float64) for row in x])
        return torch.as_tensor(x, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{name} is no array of numbers") from None


def of_shape(name: str, x: Any, shape: tuple[int, ...]) -> Tensor:
    """An array of the shape that is expected, in float64."""
    x = as_array(name, x)
    if x.shape != shape:
        raise Wrong(f"{name} must have the shape {list(shape)}, got {list(x.shape)}")
    return x


def pair(x: Any, names: str) -> tuple[Any, Any]:
    """Two things, in a tuple, a list or the rows of an array."""
    try:
        first, second = x
    except (TypeError, ValueError):
        raise Wrong(f"return two things, {names}") from None
    return first, second


def integer(name: str, x: Any) -> int:
    """A whole number of any type, as NumPy and PyTorch have them too."""
    try:
        value = float(x)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{name} is an integer, got {type(x).__name__}") from None
    if isinstance(x, bool) or not value.is_integer():
        raise Wrong(f"{name} is an integer, got {x}")
    return int(value)


def number(name: str, x: Any) -> float:
    """One finite number, also NumPy's, or a tensor that holds one."""
    try:
        x = float(x)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{name} must be a number, got {type(x).__name__}") from None
    if not math.isfinite(x):
        raise Wrong(f"{name} is {x}")
    return x


def close(got: Any, expected: float, tolerance: float = 1e-6) -> bool:
    """Equal up to rounding in float32; false for NaN."""
    return math.isclose(float(got), expected, rel_tol=tolerance, abs_tol=1e-12)


def same(a: Tensor, b: Tensor) -> bool:
    """Equal up to rounding in float32; false where there is NaN."""
    return torch.allclose(a, b.to(a), rtol=1e-6, atol=1e-6)


def drawn(*shape: int, seed: int) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
