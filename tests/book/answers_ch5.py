"""Answers to the exercises of chapter 5: right ones, and wrong ones with the hint that fits."""

import torch

from assocmem.book.check import ch5


def implicit(S, k, v, beta):
    return S + beta / (1 + beta * k @ k) * torch.outer(k, v - k @ S)


def by_solving(S, k, v, beta):
    A = torch.eye(len(k), dtype=k.dtype) + beta * torch.outer(k, k)
    return torch.linalg.solve(A, S + beta * torch.outer(k, v))


def one_loss(k, v, gamma, beta):
    rate = gamma * beta
    weight = (1 - gamma) / (2 * rate)

    def loss(S):
        return 0.5 * (k @ S - v / gamma).square().sum() + weight * S.square().sum()

    return rate, loss


def loss_of(rate, target, weight):
    """An answer to exercise 5, from three functions of γ and β."""

    def answer(k, v, gamma, beta):
        def loss(S):
            error = 0.5 * (k @ S - target(gamma, beta) * v).square().sum()
            return error + weight(gamma, beta) * S.square().sum()

        return rate(gamma, beta), loss

    return answer


def solved_anew(k, v, ridge):
    H, G = ridge * torch.eye(k.shape[1], dtype=k.dtype), 0
    return torch.stack([
        torch.linalg.solve(H := H + torch.outer(a, a), G := G + torch.outer(a, b))
        for a, b in zip(k, v, strict=True)
    ])  # fmt: skip


def inverted_anew(k, v, ridge):
    H, G = ridge * torch.eye(k.shape[1], dtype=k.dtype), 0
    return torch.stack([
        torch.inverse(H := H + torch.outer(a, a)) @ (G := G + torch.outer(a, b))
        for a, b in zip(k, v, strict=True)
    ])  # fmt: skip


def recursive(start, learns=True, until=99):
    def fit(k, v, ridge):
        P, S, found = start(ridge) * torch.eye(k.shape[1], dtype=k.dtype), 0 * k.T @ v, []
        for t, (k_t, v_t) in enumerate(zip(k, v, strict=True)):
            gain = P @ k_t / (1 + k_t @ P @ k_t)
            S = S + torch.outer(gain, v_t - k_t @ S)
            P = P - torch.outer(gain, P @ k_t) if learns and t < until else P
            found.append(S)
        return torch.stack(found)

    return fit


RIGHT = [
    (ch5.ch5_ex1, lambda: ([1.96, 0.72], [2.0, 0.0])),
    (ch5.ch5_ex2, lambda length, gamma: (1 + 1 / gamma) / length**2),
    (ch5.ch5_ex3, implicit),
    (ch5.ch5_ex3, by_solving),
    (ch5.ch5_ex4, lambda e, noise: e / (e + noise)),
    (ch5.ch5_ex5, one_loss),
    (ch5.ch5_ex5, lambda k, v, g, b: (1.0, lambda S: g * b * one_loss(k, v, g, b)[1](S))),
    (ch5.ch5_ex6, recursive(lambda ridge: 1 / ridge)),
    (ch5.ch5_ex6, recursive(lambda ridge: torch.linalg.inv(ridge * torch.eye(5).double()))),
]

WRONG = [
    (ch5.ch5_ex6, solved_anew, "no system is to be solved"),
    (ch5.ch5_ex6, inverted_anew, "no system is to be solved"),
    (
        ch5.ch5_ex6,
        lambda k, v, ridge: recursive(lambda x: 1 / x)(k, v, ridge)[-1:].repeat(9, 1, 1),
        "changed in place",
    ),
    (ch5.ch5_ex1, lambda: [1.0], "two things, the readings"),
    (ch5.ch5_ex1, lambda: ("a", "b"), "a reading is no array"),
    (ch5.ch5_ex1, lambda: (1.0, 2.0), "a list of two numbers"),
    (ch5.ch5_ex1, lambda: ([2.6, 2.0], [2.8, 1.6]), "what adding gives"),
    (ch5.ch5_ex1, lambda: ([1.0, 2.0], [1.0, 0.0]), "what does the last key read"),
    (ch5.ch5_ex1, lambda: ([1.0, 2.0], [2.0, 0.0]), "component along the first key"),
    (ch5.ch5_ex1, lambda: ([2.0, 2.0], [2.0, 0.0]), "times the correction"),
    (ch5.ch5_ex2, lambda length, g: (1 + 1 / g) / length, "squared length"),
    (ch5.ch5_ex2, lambda length, g: 2 / length**2, "right without decay"),
    (ch5.ch5_ex2, lambda length, g: (1 + g) / length**2, "the whole factor"),
    (ch5.ch5_ex2, lambda length, g: 1 / length**2, "the eigenvalue is 0"),
    (ch5.ch5_ex2, lambda length, g: 7.0, "solve"),
    (ch5.ch5_ex3, lambda S, k, v, b: S[0], "the shape [5, 4]"),
    (ch5.ch5_ex3, lambda S, k, v, b: S + b * torch.outer(k, v - k @ S), "explicit step"),
    (ch5.ch5_ex3, lambda S, k, v, b: S + b / (1 + b) * torch.outer(k, v - k @ S), "length 1"),
    (ch5.ch5_ex3, lambda S, k, v, b: S, "still has a slope"),
    (ch5.ch5_ex4, lambda e, n: e**0.5 / (e**0.5 + n**0.5), "a variance"),
    (ch5.ch5_ex4, lambda e, n: n / (e + n), "the smaller the step"),
    (ch5.ch5_ex4, lambda e, n: e / n, "without noise"),
    (ch5.ch5_ex4, lambda e, n: 1.0, "right-hand side"),
    (ch5.ch5_ex5, lambda *_: 1.0, "the step size and a function"),
    (ch5.ch5_ex5, lambda *_: (1.0, lambda S: S), "one number"),
    (
        ch5.ch5_ex5,
        loss_of(lambda g, b: g, lambda g, b: 1, lambda g, b: 0),
        "it must be the step of DeltaNet",
    ),
    (
        ch5.ch5_ex5,
        loss_of(lambda g, b: b, lambda g, b: 1, lambda g, b: 0),
        "nothing fades",
    ),
    (
        ch5.ch5_ex5,
        loss_of(lambda g, b: b, lambda g, b: 1, lambda g, b: (1 - g) / (2 * b)),
        "this is Comba",
    ),
    (
        ch5.ch5_ex5,
        loss_of(lambda g, b: g * b, lambda g, b: 1, lambda g, b: (1 - g) / (2 * g * b)),
        "compare the terms",
    ),
    (ch5.ch5_ex6, lambda k, v, r: v, "the memories must have the shape"),
    (ch5.ch5_ex6, recursive(lambda ridge: ridge), "inverse of the ridge"),
    (ch5.ch5_ex6, recursive(lambda ridge: 1.0), "wrong after the first pair"),
    (ch5.ch5_ex6, recursive(lambda ridge: 1 / ridge, learns=False), "has P learnt"),
    (ch5.ch5_ex6, recursive(lambda ridge: 1 / ridge, until=1), "wrong from pair 3 on"),
]
