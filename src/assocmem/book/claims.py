"""Claims: every quantitative statement of the book is measured where it is made."""

from __future__ import annotations

import math
import re
from typing import SupportsFloat

ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# What a claim that holds prints: its id, what was measured, what was expected.
PRINTED = re.compile(r"^claim (\S+): measured (\S+), (.+): holds$", re.MULTILINE)


def claim(
    name: str,
    measured: SupportsFloat,
    expected: SupportsFloat | None = None,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    at_most: SupportsFloat | None = None,
    at_least: SupportsFloat | None = None,
) -> None:
    """Assert a statement of the text, and print one line that says what was measured.

    Either `expected` with a tolerance, |measured − expected| ≤ atol + rtol·|expected|, or a bound
    on one side or both.

    Args:
        name: the claim's id, words in lower case joined by hyphens, as in `cap-linear`.
        measured: what came out.
        expected: what the text says, when it is a value.
        rtol: allowed relative deviation from `expected`.
        atol: allowed absolute deviation from `expected`.
        at_most: upper bound on `measured`.
        at_least: lower bound on `measured`.

    Raises:
        AssertionError: when the claim does not hold; NaN never holds.
        ValueError: when the id is malformed, or nothing is claimed, or a value has no tolerance.
    """
    if not ID.fullmatch(name):
        raise ValueError(f"name must be lower-case words joined by hyphens, got {name!r}")
    if expected is None and at_most is None and at_least is None:
        raise ValueError(f"claim {name} needs expected, at_most or at_least")
    if (expected is None) != (rtol is None and atol is None):
        raise ValueError(f"claim {name} needs rtol or atol with expected, and only then")
    x = float(measured)
    holds, parts = math.isfinite(x), []
    if expected is not None:
        target, width = float(expected), (atol or 0.0) + (rtol or 0.0) * abs(float(expected))
        holds &= abs(x - target) <= width
        parts.append(f"expected {target:.6g} ± {width:.2g}")
    if at_most is not None:
        holds &= x <= float(at_most)
        parts.append(f"at most {float(at_most):.6g}")
    if at_least is not None:
        holds &= x >= float(at_least)
        parts.append(f"at least {float(at_least):.6g}")
    line = f"claim {name}: measured {x:.6g}, {', '.join(parts)}"
    if not holds:
        raise AssertionError(f"{line}: DOES NOT HOLD")
    print(f"{line}: holds")
