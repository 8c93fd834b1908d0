"""The verdict on an exercise: a hint about what is wrong, never the answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


class Wrong(AssertionError):
    """Raised by a check with a hint about what is wrong."""


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
