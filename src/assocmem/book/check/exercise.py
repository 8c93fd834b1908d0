"""The verdict on an exercise: a hint about what is wrong, never the answer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

from torch.overrides import TorchFunctionMode


class Wrong(AssertionError):
    """Raised by a check with a hint about what is wrong."""


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
