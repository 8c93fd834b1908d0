"""Answers to the exercises of chapter 8: right ones, and wrong ones with the hint that fits."""

import math

import torch

from assocmem.book.check import ch8


def step(drift, noise):
    x = drift / noise
    return (math.sqrt(x**2 + 4 * x) - x) / 2


def beside(S, k, v, old):
    keys = torch.cat([k, old])
    return S + torch.linalg.pinv(keys) @ (torch.cat([v, old @ S]) - keys @ S)


def by_projection(S, k, v, old):
    free = k - k @ torch.linalg.pinv(old) @ old
    return S + torch.linalg.pinv(free) @ (v - k @ S)


def from_nothing(S, k, v, old):
    return torch.linalg.pinv(torch.cat([k, old])) @ torch.cat([v, old @ S])


def affine(weight, where=True, constant=True):
    """An answer to exercise 6, from the weight that a score gets."""

    def answer(q, k, v, beta):
        w = weight((beta * k @ q).softmax(0))[:, None]
        one = torch.ones(len(k), 1, dtype=k.dtype) if constant else k[:, :0]
        X = torch.cat([one, k], 1)
        fit = torch.linalg.solve(X.T @ (w * X), X.T @ (w * v))
        return torch.cat([one[0], q if where else 0 * q]) @ fit

    return answer


def by_root(q, k, v, beta):
    p = (beta * k @ q).softmax(0)[:, None]
    K, V = k - (p * k).sum(0), v - (p * v).sum(0)
    B = torch.linalg.lstsq(p.sqrt() * K, p.sqrt() * V).solution
    return (p * v).sum(0) + (q - (p * k).sum(0)) @ B


def in_place(answer):
    """The same answer to exercise 5, as a change of the memory that it was given."""
    return lambda S, k, v, old: S.copy_(answer(S, k, v, old))


def centred_in_place(q, k, v, beta):
    p = (beta * k @ q).softmax(0)[:, None]
    mean_k, mean_v = (p * k).sum(0), (p * v).sum(0)
    B = torch.linalg.lstsq(p.sqrt() * k.sub_(mean_k), p.sqrt() * v.sub_(mean_v)).solution
    return mean_v + (q - mean_k) @ B


def constant_in_place(q, k, v, beta):
    p = (beta * k @ q).softmax(0)[:, None]
    mean_v = (p * v).sum(0)
    v.copy_(mean_v.expand_as(v))
    return mean_v


def squared(q, k, v, beta):
    p = (beta * k @ q).softmax(0)[:, None]
    K, V = k - (p * k).sum(0), v - (p * v).sum(0)
    B = torch.linalg.lstsq(p * K, p * V).solution
    return (p * v).sum(0) + (q - (p * k).sum(0)) @ B


RIGHT = [
    (ch8.ch8_ex1, lambda e, power: 2 * e / (e + power)),
    (ch8.ch8_ex2, lambda g, t: (1 + g) / (1 - g) * (1 - g**t) / (1 + g**t)),
    (ch8.ch8_ex3, lambda scores: 1 / scores.softmax(0).square().sum()),
    (ch8.ch8_ex4, lambda drift, noise: 1 - step(drift, noise)),
    (ch8.ch8_ex4, lambda drift, noise: round(1 - step(drift, noise), 3)),
    (ch8.ch8_ex5, beside),
    (ch8.ch8_ex5, by_projection),
    (ch8.ch8_ex5, in_place(beside)),
    (ch8.ch8_ex6, by_root),
    (ch8.ch8_ex6, affine(lambda p: p)),
    (ch8.ch8_ex6, centred_in_place),
]

WRONG = [
    (ch8.ch8_ex1, lambda e, p: 2 * e / p, "right for small β"),
    (ch8.ch8_ex1, lambda e, p: 2 * p / (e + p), "the more is allowed"),
    (ch8.ch8_ex1, lambda e, p: 2 * e / (e + p**0.5), "given as a power"),
    (ch8.ch8_ex1, lambda e, p: 2 * e / (e + p**2), "given as a power"),
    (ch8.ch8_ex1, lambda e, p: e, "reach e"),
    (ch8.ch8_ex2, lambda g, t: 1 / (1 - g), "whatever γ is"),
    (ch8.ch8_ex2, lambda g, t: (1 + g) / (1 - g), "infinitely many"),
    (ch8.ch8_ex2, lambda g, t: (1 - g**t) / (1 - g), "the sum of the weights"),
    (ch8.ch8_ex2, lambda g, t: 1.0, "n equal weights"),
    (ch8.ch8_ex3, lambda s: s.exp().sum() ** 2 / s.exp().square().sum(), "right for small scores"),
    (ch8.ch8_ex3, lambda s: 1 / s.softmax(0).max(), "the largest weight alone"),
    (ch8.ch8_ex3, lambda s: torch.special.entr(s.softmax(0)).sum().exp(), "the entropy"),
    (ch8.ch8_ex3, lambda s: s.softmax(0).square().sum(), "50 equal scores"),
    (ch8.ch8_ex3, lambda s: torch.tensor(50.0), "50 random scores"),
    (ch8.ch8_ex4, step, "this is the step size"),
    (ch8.ch8_ex4, lambda drift, noise: 1 - math.sqrt(drift / noise), "right for slow drift"),
    (ch8.ch8_ex4, lambda drift, noise: 1 - step(drift**2, noise**2), "given as variances"),
    (ch8.ch8_ex4, lambda drift, noise: 0.9, "a delta rule with d = 1"),
    (ch8.ch8_ex4, lambda drift, noise: math.nan, "a delta rule with d = 1"),
    (ch8.ch8_ex5, lambda S, k, v, old: S[0], "the shape [12, 4]"),
    (ch8.ch8_ex5, lambda S, k, v, old: S, "do not read their values"),
    (ch8.ch8_ex5, lambda S, k, v, old: S + torch.linalg.pinv(k) @ v, "plus the values"),
    (
        ch8.ch8_ex5,
        lambda S, k, v, old: S + torch.linalg.pinv(k) @ (v - k @ S),
        "the readings at the old keys have moved",
    ),
    (
        ch8.ch8_ex5,
        lambda S, k, v, old: from_nothing(0 * S, k, v, old),
        "the old keys read 0",
    ),
    (ch8.ch8_ex5, from_nothing, "times the smallest"),
    (ch8.ch8_ex5, in_place(from_nothing), "times the smallest"),
    (
        ch8.ch8_ex5,
        in_place(lambda S, k, v, old: S + torch.linalg.pinv(k) @ (v - k @ S)),
        "the readings at the old keys have moved",
    ),
    (ch8.ch8_ex6, lambda q, k, v, b: v, "the shape [3]"),
    (ch8.ch8_ex6, lambda q, k, v, b: (b * k @ q).softmax(0) @ v, "it fits a constant"),
    (ch8.ch8_ex6, affine(lambda p: p, where=False), "this is b"),
    (ch8.ch8_ex6, affine(lambda p: p, constant=False), "without b"),
    (ch8.ch8_ex6, affine(torch.ones_like), "all pairs alike"),
    (ch8.ch8_ex6, affine(torch.square), "enter squared"),
    (ch8.ch8_ex6, squared, "enter squared"),
    (ch8.ch8_ex6, constant_in_place, "it fits a constant"),
    (ch8.ch8_ex6, lambda q, k, v, b: v[0], "not the weighted least-squares"),
]
