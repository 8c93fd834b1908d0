"""Answers to the exercises of chapter 3: right ones, and wrong ones with the hint that fits."""

import math

import torch

from assocmem.book.check import ch3


def cosh(N, d, tau):
    return (N - 1) * (1 + math.exp(2 * d / tau**2)) / 2 / math.cosh(d / tau) ** 2


def pairs_of_coordinates(x, weight):
    x = torch.cat([torch.ones_like(x[:, :1]), x], dim=1)
    i, j = torch.triu_indices(x.shape[1], x.shape[1])
    return torch.where(i == j, 1.0, weight) * x[:, i] * x[:, j]


def all_products(x):
    x = torch.cat([torch.ones_like(x[:, :1]), x], dim=1)
    return (x[:, :, None] * x[:, None, :]).flatten(1)


def one_pass(scores, values):
    o, log_sum = torch.zeros_like(values[0]), torch.tensor(-math.inf, dtype=scores.dtype)
    for s, v in zip(scores, values, strict=True):
        log_sum = torch.logaddexp(log_sum, s)
        o = o + torch.exp(s - log_sum) * (v - o)
    return o


def overflowing(scores, values):
    return scores.exp() @ values / scores.exp().sum()


def running_mean(scores, values):
    return values.mean(0)


def one_pass_by_pairs(scores, values):
    """The last logarithm and a score are stacked, and looked at together."""
    o, log_sum = torch.zeros_like(values[0]), scores.new_tensor(-math.inf)
    for s, v in zip(scores, values, strict=True):
        log_sum = torch.stack((log_sum, s)).logsumexp(0)
        o = o + torch.exp(s - log_sum) * (v - o)
    return o


def paired(x, w, count=2.0):
    damping = x.square().sum(1, keepdim=True) / 2
    return torch.exp(torch.cat([x @ w.T, -x @ w.T], 1) - damping) / (count * len(w)) ** 0.5


def independent(x, w):
    """Twice as many directions, the second half from the first by a fixed rotation of space."""
    u = torch.cat([w, w.roll(1, dims=1)], 0)
    return torch.exp(x @ u.T - x.square().sum(1, keepdim=True) / 2) / len(u) ** 0.5


def undamped(x, w):
    return torch.exp(torch.cat([x @ w.T, -x @ w.T], 1)) / (2 * len(w)) ** 0.5


def trigonometric(x, w):
    angles = x @ w.T
    return torch.cat([angles.sin(), angles.cos()], 1) / len(w) ** 0.5


RIGHT = [
    (ch3.ch3_ex1, lambda N, p: math.log((N - 1) * p / (1 - p))),
    (ch3.ch3_ex2, lambda beta, cosine: math.exp(2 * beta * (1 - cosine))),
    (ch3.ch3_ex3, cosh),
    (ch3.ch3_ex4, lambda x: pairs_of_coordinates(x, 2**0.5)),
    (ch3.ch3_ex4, lambda x: -pairs_of_coordinates(x, 2**0.5)),
    (ch3.ch3_ex5, one_pass),
    (ch3.ch3_ex5, one_pass_by_pairs),
    (ch3.ch3_ex6, paired),
]

WRONG = [
    (ch3.ch3_ex5, lambda scores, values: scores.softmax(0) @ values, "sees all scores at once"),
    (ch3.ch3_ex5, lambda scores, values: torch.softmax(scores, 0) @ values, "softmax sees all"),
    (
        ch3.ch3_ex5,
        lambda scores, values: torch.softmax(input=scores, dim=0) @ values,
        "softmax sees all",
    ),
    (ch3.ch3_ex1, lambda N, p: math.log(N * p / (1 - p)), "how many others are there"),
    (ch3.ch3_ex1, lambda N, p: math.log(N - 1), "right for p = 1/2"),
    (ch3.ch3_ex1, lambda N, p: 3.0, "what do orthogonal keys score"),
    (ch3.ch3_ex2, lambda b, r: math.exp(b * (1 - r)), "compares powers"),
    (ch3.ch3_ex2, lambda b, r: math.exp(-2 * b * (1 - r)), "cannot make the answer cleaner"),
    (ch3.ch3_ex2, lambda b, r: 1 / r**2, "that is the linear memory"),
    (ch3.ch3_ex2, lambda b, r: 1.0, "do the other keys notice"),
    (ch3.ch3_ex3, lambda N, d, t: cosh(N, d, t) * N / (N - 1), "does not disturb its own"),
    (
        ch3.ch3_ex3,
        lambda N, d, t: (N - 1) * math.exp(2 * d * (1 - t) / t**2),
        "that is the exponential",
    ),
    (
        ch3.ch3_ex3,
        lambda N, d, t: (N - 1) * math.exp(d / t**2) / math.cosh(d / t) ** 2,
        "power of the mean",
    ),
    (
        ch3.ch3_ex3,
        lambda N, d, t: cosh(N, d, t) * math.cosh(d / t) ** 2,
        "what is κ(k_i, k_i)",
    ),
    (ch3.ch3_ex3, lambda N, d, t: 1.0, "write cosh² by cosh"),
    (ch3.ch3_ex4, lambda x: x[0], "[N, d] to features"),
    (ch3.ch3_ex4, lambda x: (x[:, :, None] * x[:, None, :]).flatten(1), "how can a 1"),
    (ch3.ch3_ex4, lambda x: pairs_of_coordinates(x, 1.0), "have the right weight"),
    (ch3.ch3_ex4, lambda x: x, "is not (1 + qᵀk)²"),
    (ch3.ch3_ex4, all_products, "6 are enough"),
    (ch3.ch3_ex5, lambda s, v: s, "of the size of a value"),
    (ch3.ch3_ex5, lambda s, v: s.exp() @ v, "sum to 1"),
    (ch3.ch3_ex5, running_mean, "check p_1"),
    (ch3.ch3_ex5, overflowing, "overflows, or becomes zero"),
    (ch3.ch3_ex6, lambda x, w: x @ w.T, "[N, 2m] features"),
    (ch3.ch3_ex6, trigonometric, "not positive"),
    (ch3.ch3_ex6, lambda x, w: paired(x, w, 1.0), "twice too large"),
    (ch3.ch3_ex6, undamped, "half of their squared norm"),
    (ch3.ch3_ex6, independent, "pairs w, −w have"),
]
