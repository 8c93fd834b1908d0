"""The checks of the exercises: right answers pass, typical wrong ones get the hint that fits."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch

from assocmem.book import check
from assocmem.book.check import ch1, ch4
from tests.book import answers_ch1, answers_ch4, answers_ch6
from tests.book.chapter import CHAPTERS

ANSWERS = [import_module(f"tests.book.answers_ch{n}") for n, _ in enumerate(CHAPTERS, 1)]
RIGHT = [case for chapter in ANSWERS for case in chapter.RIGHT]
WRONG = [case for chapter in ANSWERS for case in chapter.WRONG]
CHECKS = [getattr(check, name) for name in check.__all__]


def given(answer):
    """The answer as the check gets it: a kernel is made from its source."""
    return answer.made() if isinstance(answer, answers_ch6.Kernel) else answer


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_pass(check, answer, capsys):
    assert check(given(answer)) is True
    assert f"{check.__name__}: correct" in capsys.readouterr().out


def single(x):
    """Numbers and tensors in float32."""
    return torch.as_tensor(x).float()


def of_numpy(x):
    """Arrays, and scalars of a type of NumPy's."""
    return x.detach().numpy() if isinstance(x, torch.Tensor) else np.array(x)[()]


def with_gradient(x):
    """Tensors of which a gradient is wanted."""
    return torch.as_tensor(x).double().requires_grad_()


def written_as(form, x):
    """An answer in another form: truth values, functions, text and None stay what they are."""
    if isinstance(x, tuple | list):
        return type(x)(written_as(form, y) for y in x)
    if isinstance(x, torch.Tensor) and x.dtype != torch.bool:
        return form(x)
    return form(x) if isinstance(x, int | float) and not isinstance(x, bool) else x


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.filterwarnings("ignore:Creating a tensor from a list")
@pytest.mark.parametrize("form", [single, of_numpy, with_gradient])
@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_pass_in_other_forms(check, answer, form):
    if isinstance(answer, answers_ch6.Kernel) or check.__name__ == "ch9_ex6":
        pytest.skip("a kernel and a design have one form")
    assert check(lambda *x: written_as(form, answer(*x))) is True


@pytest.mark.parametrize(("check", "answer", "hint"), WRONG)
def test_wrong_answers_get_their_hint(check, answer, hint, capsys):
    assert check(given(answer)) is False
    said = capsys.readouterr().out
    assert f"{check.__name__}: not yet" in said
    assert hint in said


def test_all_scores_at_once_do_not_fit(capsys):
    assert ch1.ch1_ex7(answers_ch1.all_scores) is False
    assert "can't allocate memory" in capsys.readouterr().out


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
