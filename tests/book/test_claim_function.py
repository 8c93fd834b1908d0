"""`claim` holds what it should, refuses the rest, and prints what the claims page reads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assocmem.book import claim
from assocmem.book.claims import PRINTED

numbers = st.floats(-1e6, 1e6)
widths = st.floats(0, 1e3)


def test_a_claim_that_holds_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    claim("cap-linear", 15.99, 16, rtol=0.01)
    assert (
        capsys.readouterr().out == "claim cap-linear: measured 15.99, expected 16 ± 0.16: holds\n"
    )


def test_a_claim_that_does_not_hold_says_what_came(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match=r"cap-linear: measured 15\.5, expected 16.*NOT HOLD"):
        claim("cap-linear", 15.5, 16, rtol=0.01)
    assert capsys.readouterr().out == ""


@given(measured=numbers, expected=numbers, rtol=st.floats(0, 1), atol=widths)
def test_a_value_holds_within_its_tolerance_only(
    measured: float, expected: float, rtol: float, atol: float
) -> None:
    within = abs(measured - expected) <= atol + rtol * abs(expected)
    assert holds(measured, expected, rtol=rtol, atol=atol) == within


@given(measured=numbers, low=numbers, high=numbers)
def test_bounds_hold_on_both_sides(measured: float, low: float, high: float) -> None:
    assert holds(measured, at_most=high) == (measured <= high)
    assert holds(measured, at_least=low) == (measured >= low)
    assert holds(measured, at_least=low, at_most=high) == (low <= measured <= high)


@pytest.mark.parametrize("measured", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_holds(measured: float) -> None:
    assert not holds(measured, measured, rtol=1.0)
    assert not holds(measured, at_most=math.inf)
    assert not holds(measured, at_least=-math.inf)


@pytest.mark.parametrize("two", [2, 2.0, torch.tensor(2.0), np.float32(2), torch.tensor([2])])
def test_any_number_will_do(two: float) -> None:
    assert holds(two, two, atol=0)


@pytest.mark.parametrize("name", ["", "Cap-linear", "cap_linear", "cap--linear", "-cap", "cap "])
def test_a_malformed_id_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name must be lower-case words"):
        claim(name, 1, 1, atol=0)


def test_a_claim_needs_something_claimed() -> None:
    with pytest.raises(ValueError, match="needs expected, at_most or at_least"):
        claim("nothing", 1)


def test_a_value_needs_a_tolerance_and_a_bound_none() -> None:
    with pytest.raises(ValueError, match="needs rtol or atol with expected"):
        claim("no-tolerance", 1, 1)
    with pytest.raises(ValueError, match="needs rtol or atol with expected"):
        claim("tolerance-of-nothing", 1, at_most=2, rtol=0.1)


@given(measured=numbers, expected=numbers)
def test_the_printed_line_is_read_back(measured: float, expected: float) -> None:
    from contextlib import redirect_stdout
    from io import StringIO

    with redirect_stdout(StringIO()) as out:
        claim("read-back", measured, expected, atol=1e7, at_least=-1e7)
    ((name, value, target),) = PRINTED.findall(out.getvalue())
    assert name == "read-back"
    assert float(value) == pytest.approx(measured, rel=1e-5)
    assert float(target.split()[1]) == pytest.approx(expected, rel=1e-5)


def holds(*args: object, **kw: object) -> bool:
    try:
        claim("any", *args, **kw)  # pyright: ignore[reportArgumentType]
    except AssertionError:
        return False
    return True
