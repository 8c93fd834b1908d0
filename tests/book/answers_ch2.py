"""Answers to the exercises of chapter 2: right ones, and wrong ones with the hint that fits."""

import math

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


def of_a_grid(d):
    """The decay with the longest horizon among many."""
    effective = torch.linspace(1.01, d, 20_000, dtype=torch.float64)
    best = (torch.log((d + 1) / effective) / -torch.log1p(-1 / effective)).argmax()
    return math.sqrt(1 - 1 / effective[best].item())


RIGHT = [
    (ch2.ch2_ex1, lambda c: 1 / c**2),
    (ch2.ch2_ex2, lambda N, d, c: (N - 1) / (d * c**2)),
    (ch2.ch2_ex3, key_size),
    (ch2.ch2_ex3, lambda *x: (d := key_size(*x)) and float(d)),
    (ch2.ch2_ex4, lambda S, k: (k - k.mean(0)) @ S.T),
    (ch2.ch2_ex4, lambda S, k: 3 * (k - k.mean(0)) @ S.T),
    (ch2.ch2_ex5, lambda d: math.sqrt(1 - math.e / (d + 1))),
    (ch2.ch2_ex5, lambda d: math.sqrt(1 - math.e / d)),  # d is large
    (ch2.ch2_ex5, lambda d: 1 - math.e / (2 * d)),
    (ch2.ch2_ex5, of_a_grid),
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
    (ch2.ch2_ex3, lambda N, rho, snr: None if N == 1000 else 65.5, "an integer, got 65.5"),
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
    (ch2.ch2_ex5, lambda d: math.sqrt(1 - 2.5 / d), "for d = 64"),
    (ch2.ch2_ex5, lambda d: math.sqrt(1 - 1 / (3 * d)), "older than 0.0 steps"),
    (ch2.ch2_ex6, lambda x: x[0], "[N, d] to features"),
    (ch2.ch2_ex6, lambda x: (x[:, :, None] * x[:, None, :]).flatten(1), "still have a mean"),
    (ch2.ch2_ex6, lambda x: x, "must be a multiple"),
    (ch2.ch2_ex6, traceless, "5 are enough"),
]
