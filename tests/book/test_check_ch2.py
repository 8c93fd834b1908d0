"""The checks of chapter 2: right answers pass, typical wrong ones get the hint that fits."""

import math

import pytest
import torch

from assocmem import capacity
from assocmem.book.check import ch2


def helmert(d):
    start = torch.cat([torch.ones(d, 1), torch.eye(d)[:, 1:]], dim=1).double()
    return torch.linalg.qr(start).Q[:, 1:]


def quadratic_without_mean(x):
    i, j = torch.triu_indices(x.shape[-1], x.shape[-1], offset=1)
    return torch.cat([2**0.5 * x[:, i] * x[:, j], x.square() @ helmert(x.shape[-1])], dim=1)


def traceless(x):
    """(x xᵀ − I/d), flattened: right, and larger than it need be."""
    return (x[:, :, None] * x[:, None, :] - torch.eye(x.shape[-1]) / x.shape[-1]).flatten(1)


def key_size(N, rho, snr):
    return next((d for d in range(2, 5000) if capacity.snr_cone(N, d, rho) >= snr), None)


def in_place(S, keys):
    S -= S.mean(1, keepdim=True)
    return keys @ S.T


RIGHT = [
    (ch2.ch2_ex1, lambda c: 1 / c**2),
    (ch2.ch2_ex2, lambda N, d, c: (N - 1) / (d * c**2)),
    (ch2.ch2_ex3, key_size),
    (ch2.ch2_ex4, lambda S, k: (k - k.mean(0)) @ S.T),
    (ch2.ch2_ex4, lambda S, k: 3 * (k - k.mean(0)) @ S.T),
    (ch2.ch2_ex5, lambda d: math.sqrt(1 - math.e / (d + 1))),
    (ch2.ch2_ex6, quadratic_without_mean),
    (ch2.ch2_ex6, lambda x: 7 * quadratic_without_mean(x)),
]

WRONG = [
    (ch2.ch2_ex1, lambda c: c**2, "noise over signal"),
    (ch2.ch2_ex1, lambda c: 1 / abs(c), "compares powers"),
    (ch2.ch2_ex1, lambda c: 2 / c**2, "disturbed by one other"),
    (ch2.ch2_ex1, lambda c: 1.0, "write down"),
    (ch2.ch2_ex2, lambda N, d, c: (N - 1) / d, "the cosine must matter"),
    (ch2.ch2_ex2, lambda N, d, c: (N - 1) / (d * c), "amplitude"),
    (ch2.ch2_ex2, lambda N, d, c: (N - 1) / d * c**2, "cannot make the answer cleaner"),
    (ch2.ch2_ex2, lambda N, d, c: N / d / c**2, "does not disturb its own"),
    (ch2.ch2_ex2, lambda N, d, c: 1 / c, "change how it meets"),
    (ch2.ch2_ex3, lambda N, rho, snr: N, "no key size"),
    (ch2.ch2_ex3, lambda N, rho, snr: None, "can be reached"),
    (ch2.ch2_ex3, lambda N, rho, snr: None if N == 1000 else 65.0, "an integer, got float"),
    (ch2.ch2_ex3, lambda N, rho, snr: None if N == 1000 else 64, "does not reach"),
    (ch2.ch2_ex3, lambda N, rho, snr: None if N == 1000 else 4000, "and so does less"),
    (ch2.ch2_ex4, in_place, "must stay as it is"),
    (ch2.ch2_ex4, lambda S, k: k, "shape [N, d_v]"),
    (ch2.ch2_ex4, lambda S, k: k @ S.T, "plain reading"),
    (ch2.ch2_ex4, lambda S, k: 0.5 * k @ S.T, "noise over signal is"),
    (ch2.ch2_ex5, lambda d: 1.0, "between 0 and 1"),
    (ch2.ch2_ex5, lambda d: math.sqrt(1 - 1 / (d + 1)), "newest item itself"),
    (ch2.ch2_ex5, lambda d: 1 - math.e / (d + 1), "adds up in power"),
    (ch2.ch2_ex5, lambda d: 0.9, "another decay keeps more"),
    (ch2.ch2_ex6, lambda x: x[0], "[N, d] to features"),
    (ch2.ch2_ex6, lambda x: (x[:, :, None] * x[:, None, :]).flatten(1), "still have a mean"),
    (ch2.ch2_ex6, lambda x: x, "must be a multiple"),
    (ch2.ch2_ex6, traceless, "5 are enough"),
]

CHECKS = [getattr(ch2, f"ch2_ex{i}") for i in range(1, 7)]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_pass(check, answer, capsys):
    assert check(answer) is True
    assert f"{check.__name__}: correct" in capsys.readouterr().out


@pytest.mark.parametrize(("check", "answer", "hint"), WRONG)
def test_wrong_answers_get_their_hint(check, answer, hint, capsys):
    assert check(answer) is False
    said = capsys.readouterr().out
    assert f"{check.__name__}: not yet" in said
    assert hint in said


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
