"""Answers to the exercises of chapter 4: right ones, and wrong ones with the hint that fits."""

import math

import torch

from assocmem.book.check import ch4


def write(V, a, y):
    return V + torch.outer(y - V @ a, a) / (a @ a)


def in_place(V, a, y):
    V += torch.outer(y - V @ a, a) / (a @ a)
    return V


def through_one_unit(V, a, y):
    u = torch.zeros_like(a)
    u[0] = 1 / a[0]
    return V + torch.outer(y - V @ a, u)


def half_mean(p):
    return 2 ** (p / 2) * math.gamma((p + 1) / 2) / math.sqrt(math.pi) / 2


def half_power(p):
    return math.prod(range(1, 2 * p, 2)) / 2


def overlap(p):
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    kappa, density = z.clamp_min(0) ** p, (-z.square() / 2).exp()
    density = density / density.sum()
    return ((kappa * density).sum() ** 2 / (kappa.square() * density).sum()).item()


def best_pairs(s, t, k):
    i, j = s.topk(k).indices, t.topk(k).indices
    best = (s[i][:, None] + t[j][None, :]).flatten().topk(k).indices
    return torch.stack((i[best // k], j[best % k]), 1)


def diagonal_pairs(s, t, k):
    return torch.stack((s.topk(k).indices, t.topk(k).indices), 1)


def everything(s, t, k):
    if len(s) > 1000:
        raise MemoryError("720 GB")
    best = (s[:, None] + t[None, :]).flatten().topk(k).indices
    return torch.stack((best // len(t), best % len(t)), 1)


def write_all(V, A, Y):
    return V + torch.linalg.lstsq(A, Y - A @ V.T, driver="gelsd").solution.T


def one_by_one(V, A, Y):
    for a, y in zip(A, Y, strict=True):
        V = write(V, a, y)
    return V


def summed(V, A, Y):
    return V + sum(write(V, a, y) - V for a, y in zip(A, Y, strict=True))


def larger(V, A, Y):
    """Right on all facts, with a needless part that no fact sees."""
    free = torch.ones(A.shape[1], dtype=A.dtype)
    free -= torch.linalg.pinv(A) @ (A @ free)
    return write_all(V, A, Y) + torch.outer(torch.ones(len(V), dtype=V.dtype), free)


def clean_write(a, others):
    free = a - torch.linalg.pinv(others) @ (others @ a)
    if free.norm() < 1e-9 * a.norm():
        return None
    return free / (a @ free)


def longer(a, others):
    u = clean_write(a, others)
    if u is None:
        return None
    basis = torch.cat((others, a[None]))
    free = torch.ones_like(a)
    return u + free - torch.linalg.pinv(basis) @ (basis @ free)


def unless_inside(u):
    return lambda a, others: None if clean_write(a, others) is None else u(a, others)


RIGHT = [
    (ch4.ch4_ex1, write),
    (ch4.ch4_ex2, overlap),
    (ch4.ch4_ex2, lambda p: half_mean(p) ** 2 / half_power(p)),
    (ch4.ch4_ex3, lambda N, d, snr: max(1, math.ceil(snr * (N - 1) / d - 1e-9))),
    (ch4.ch4_ex4, best_pairs),
    (ch4.ch4_ex5, write_all),
    (ch4.ch4_ex6, clean_write),
]

WRONG = [
    (ch4.ch4_ex1, in_place, "must stay as it is"),
    (ch4.ch4_ex1, lambda V, a, y: y, "shape [4, 7], got [4]"),
    (ch4.ch4_ex1, lambda V, a, y: V + torch.outer(y, a), "how long is a?"),
    (ch4.ch4_ex1, lambda V, a, y: V + torch.outer(y - V @ a, a), "how long is a?"),
    (ch4.ch4_ex1, lambda V, a, y: V + torch.outer(y, a) / (a @ a), "write the difference"),
    (ch4.ch4_ex1, lambda V, a, y: V, "the answer to a is not y"),
    (ch4.ch4_ex1, through_one_unit, "a smaller change"),
    (ch4.ch4_ex2, half_mean, "divide by the mean square"),
    (ch4.ch4_ex2, lambda p: half_mean(p) ** 2 / half_power(p) / 2, "only half"),
    (ch4.ch4_ex2, lambda p: 2 * half_mean(p) ** 2 / half_power(p), "half of the units"),
    (ch4.ch4_ex2, lambda p: 0.0, "find E κ"),
    (ch4.ch4_ex3, lambda N, d, snr: snr * N / d + 0.5, "an integer, got 16.5"),
    (ch4.ch4_ex3, lambda N, d, snr: max(1, math.ceil(snr * N / d)), "fewer than 26"),
    (ch4.ch4_ex3, lambda N, d, snr: 0, "0 experts"),
    (ch4.ch4_ex3, lambda N, d, snr: 1, "the SNR is"),
    (ch4.ch4_ex3, lambda N, d, snr: N * 4, "reach it, too"),
    (ch4.ch4_ex4, lambda s, t, k: s.topk(k).indices, "shape [3, 2], got [3]"),
    (ch4.ch4_ex4, lambda s, t, k: torch.zeros(k, 2).long(), "occurs twice"),
    (ch4.ch4_ex4, lambda s, t, k: best_pairs(s, t, k).flip(1), "first the index into s"),
    (ch4.ch4_ex4, diagonal_pairs, "may go with the best"),
    (ch4.ch4_ex4, lambda s, t, k: best_pairs(-s, t, k), "not the best 3 pairs"),
    (ch4.ch4_ex4, lambda s, t, k: best_pairs(s, t, k).flip(0), "does not come first"),
    (
        ch4.ch4_ex4,
        lambda s, t, k: best_pairs(s, t, k) if len(s) < 99 else torch.zeros(2, 2),
        "two long lists",
    ),
    (ch4.ch4_ex5, lambda V, A, Y: V[0], "shape [4, 9], got [9]"),
    (ch4.ch4_ex5, one_by_one, "one after another"),
    (ch4.ch4_ex5, summed, "ignores what the others add"),
    (ch4.ch4_ex5, lambda V, A, Y: V, "not all answers"),
    (ch4.ch4_ex5, larger, "a smaller change"),
    (ch4.ch4_ex6, lambda a, others: a, "every write moves one of them"),
    (ch4.ch4_ex6, lambda a, others: None, "leave room"),
    (ch4.ch4_ex6, unless_inside(lambda a, others: a[:3]), "shape [12], got [3]"),
    (ch4.ch4_ex6, unless_inside(lambda a, others: a), "aᵀu must be 1"),
    (ch4.ch4_ex6, unless_inside(lambda a, others: a / (a @ a)), "the others move"),
    (ch4.ch4_ex6, longer, "a shorter u"),
]
