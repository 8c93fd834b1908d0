"""The verdict on an exercise: a hint about what is wrong, never the answer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Wrong(AssertionError):
    """Raised by a check with a hint about what is wrong."""


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


class Refused(TorchFunctionMode):
    """While this is entered, some functions of PyTorch raise `Wrong`.

    Args:
        names: of the functions, as PyTorch has them: `torch.linalg.inv` is "linalg_inv".
        hint: what is said; {name} stands for the function's.
        unless: whether a function may have this as its first argument.
    """

    def __init__(self, names: Collection[str], hint: str, unless: Callable[[Any], bool]) -> None:
        self.names, self.hint, self.unless = names, hint, unless

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if name in self.names and not self.unless(next(iter((*args, *kwargs.values())))):
            raise Wrong(self.hint.format(name=name))
        return function(*args, **kwargs)


def exercise(judge: Callable[..., None]) -> Callable[..., bool]:
    """Turn a judge, which raises on a wrong answer, into a check that prints a verdict.

    The check returns True when the answer is right. A stub that raises NotImplementedError is
    `not solved yet`; a `Wrong` is shown as its hint; any other exception of the reader's code is
    shown by type and message, so that a chapter with open exercises still runs to its end.
    """

    @functools.wraps(judge)
    def check(*answer: Any) -> bool:
        try:
            judge(*answer)
        except NotImplementedError:
            verdict = "not solved yet"
        except Wrong as hint:
            verdict = f"not yet: {hint}"
        except Exception as error:  # the reader's own code may raise anything
            verdict = f"your code raised {type(error).__name__}: {error}"
        else:
            print(f"{judge.__name__}: correct")
            return True
        print(f"{judge.__name__}: {verdict}")
        return False

    return check
