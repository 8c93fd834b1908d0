"""The checks of the exercises: right answers pass, typical wrong ones get the hint that fits."""

from __future__ import annotations

import pytest

from assocmem.book.check import ch2, ch3, ch4, ch5, ch6, ch7, ch8
from tests.book import (
    answers_ch2,
    answers_ch3,
    answers_ch4,
    answers_ch5,
    answers_ch6,
    answers_ch7,
    answers_ch8,
)

ANSWERS = (
    answers_ch2,
    answers_ch3,
    answers_ch4,
    answers_ch5,
    answers_ch6,
    answers_ch7,
    answers_ch8,
)
RIGHT = [case for chapter in ANSWERS for case in chapter.RIGHT]
WRONG = [case for chapter in ANSWERS for case in chapter.WRONG]
CHECKS = [
    getattr(chapter, f"{chapter.__name__.rpartition('.')[2]}_ex{i}")
    for chapter in (ch2, ch3, ch4, ch5, ch6, ch7, ch8)
    for i in range(1, 7)
]


def given(answer):
    """The answer as the check gets it: a kernel is made from its source."""
    return answer.made() if isinstance(answer, answers_ch6.Kernel) else answer


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_pass(check, answer, capsys):
    assert check(given(answer)) is True
    assert f"{check.__name__}: correct" in capsys.readouterr().out


@pytest.mark.parametrize(("check", "answer", "hint"), WRONG)
def test_wrong_answers_get_their_hint(check, answer, hint, capsys):
    assert check(given(answer)) is False
    said = capsys.readouterr().out
    assert f"{check.__name__}: not yet" in said
    assert hint in said


def test_all_sums_at_once_do_not_fit(capsys):
    assert ch4.ch4_ex4(answers_ch4.everything) is False
    assert "MemoryError" in capsys.readouterr().out


@pytest.mark.parametrize("check", CHECKS)
def test_a_stub_is_not_solved(check, capsys):
    def stub(*_):
        raise NotImplementedError

    assert check(stub) is False
    assert "not solved yet" in capsys.readouterr().out


@pytest.mark.parametrize("check", CHECKS)
def test_an_answer_that_is_no_number_does_not_pass(check, capsys):
    assert check(lambda *_: float("nan")) is False
    assert capsys.readouterr().out
