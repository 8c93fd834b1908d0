"""Answers to the exercises of chapter 7: right ones, and wrong ones with the hint that fits."""

import math

import torch

from assocmem.book.check import ch7


def unit_key(n, i, j, sign=-1.0):
    k = torch.zeros(n, dtype=torch.float64)
    k[i], k[j] = sign * 0.5**0.5, 0.5**0.5
    return k


def counted(beta, least):
    t, difference = 1, beta
    while difference >= least:
        t, difference = t + 1, difference * (beta - 1)
    return t


def at_angle(factor):
    """An answer to exercise 3: two keys at an angle of factor · π/m."""

    def mirrors(m):
        return (1.0, 0.0), (math.cos(factor * math.pi / m), math.sin(factor * math.pi / m))

    return mirrors


def enough(n):
    d = 256
    while d * (math.isqrt(d) + 1) < n:
        d *= 4
    return d


def one_basis(n):
    d = 256
    while d < n:
        d *= 4
    return d


def exponentials(b):
    return torch.exp(torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64)[:, None] * b)


POINTS = torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64)


def doubling(A, multiply, rounds=None, stay=True):
    R = A | torch.eye(len(A), dtype=torch.bool) if stay else A
    for _ in range(math.ceil(math.log2(len(A))) if rounds is None else rounds):
        R = multiply(R, R)
    return R


def step_by_step(A, multiply):
    R = A | torch.eye(len(A), dtype=torch.bool)
    M = R
    for _ in range(4):
        M = multiply(R, M)
    return M[:, 0]


def node_by_node(A, multiply):
    reached = torch.arange(len(A)) == 0
    for _ in A:
        reached = reached | (A & reached).any(1)
    return reached


RIGHT = [
    (ch7.ch7_ex1, lambda n, i, j: (unit_key(n, i, j), 2.0)),
    (ch7.ch7_ex1, lambda n, i, j: ((-unit_key(n, i, j)).tolist(), 2)),
    (ch7.ch7_ex1, lambda n, i, j: (unit_key(n, i, j).float(), torch.tensor(2.0))),
    (ch7.ch7_ex2, counted),
    (ch7.ch7_ex2, lambda b, x: 1 + math.floor(1 + math.log(x / b) / math.log(b - 1))),
    (ch7.ch7_ex3, at_angle(1)),
    (ch7.ch7_ex3, at_angle(-1)),
    (ch7.ch7_ex3, lambda m: [torch.tensor(k, dtype=torch.float32) for k in at_angle(1)(m)]),
    (ch7.ch7_ex4, enough),
    (ch7.ch7_ex5, lambda b: torch.linalg.solve(exponentials(b), POINTS)),
    (ch7.ch7_ex6, lambda A, multiply: doubling(A, multiply)[:, 0]),
]

WRONG = [
    (
        ch7.ch7_ex6,
        lambda A, multiply: doubling(A, multiply, math.ceil(math.log2(len(A))) - 1)[:, 0],
        "every product double",
    ),
    (ch7.ch7_ex1, lambda n, i, j: unit_key(n, i, j), "two things, the key and β"),
    (ch7.ch7_ex1, lambda n, i, j: ("a", 2.0), "the key must be 3 numbers"),
    (ch7.ch7_ex1, lambda n, i, j: ([1.0], 2.0), "got shape [1]"),
    (ch7.ch7_ex1, lambda n, i, j: (2**0.5 * unit_key(n, i, j), 1.0), "has length 1.41"),
    (ch7.ch7_ex1, lambda n, i, j: (unit_key(n, i, j), 1.0), "which β"),
    (ch7.ch7_ex1, lambda n, i, j: (unit_key(n, i, j, 1.0), 2.0), "a swap keeps it"),
    (ch7.ch7_ex1, lambda n, i, j: (torch.eye(n)[i], 2.0), "does not swap places 0 and 1"),
    (ch7.ch7_ex1, lambda n, i, j: None, "two things, the key and β"),
    (ch7.ch7_ex1, lambda n, i, j: (None, 2.0), "the key must be 3 numbers"),
    (ch7.ch7_ex1, lambda n, i, j: (unit_key(n, i, j), None), "β must be a number, got NoneType"),
    (ch7.ch7_ex1, lambda n, i, j: (1.00001 * unit_key(n, i, j), 2.0), "has length 1.00001, not 1"),
    (ch7.ch7_ex2, lambda b, x: None, "the answer must be a number, got NoneType"),
    (ch7.ch7_ex2, lambda b, x: math.ceil(math.log(x) / math.log(b - 1)), "sum of their sizes"),
    (ch7.ch7_ex2, lambda b, x: counted(b, x) - 1, "off by one"),
    (ch7.ch7_ex2, lambda b, x: 0, "the state is (1 − β)^t"),
    (ch7.ch7_ex3, lambda m: (1.0, 0.0, 1.0), "two keys"),
    (ch7.ch7_ex3, lambda m: None, "two keys"),
    (ch7.ch7_ex3, lambda m: (None, None), "a key must be 2 numbers"),
    (ch7.ch7_ex3, lambda m: ((2.0, 0.0), (0.0, 1.0)), "has length 2"),
    (ch7.ch7_ex3, lambda m: ((1.0, 0.0), (1.0, 0.0)), "the same mirror twice"),
    (ch7.ch7_ex3, lambda m: at_angle(2)(5 * m), "by 48.0 degrees, not by 120.0"),
    (ch7.ch7_ex3, lambda m: at_angle(1 if m == 3 else 2)(m), "twice as far"),
    (ch7.ch7_ex4, lambda n: torch.ones(2), "the answer must be a number, got Tensor"),
    (ch7.ch7_ex4, lambda n: None, "the answer must be a number, got NoneType"),
    (ch7.ch7_ex4, lambda n: enough(n) if n > 10 else 16, "is ε below"),
    (ch7.ch7_ex4, one_basis, "√d + 1 bases"),
    (ch7.ch7_ex4, lambda n: 256, "do not have 4,353 keys"),
    (ch7.ch7_ex4, lambda n: max(n // 17, 256) if n < 4353 else 1025, "a power of 4"),
    (ch7.ch7_ex5, lambda b: None, "the weights must be 4 numbers"),
    (ch7.ch7_ex5, lambda b: torch.linalg.solve(exponentials(b), 1.00001 * POINTS), "2.00002"),
    (ch7.ch7_ex5, lambda b: b[0], "the weights must be 4 numbers"),
    (ch7.ch7_ex5, lambda b: torch.linalg.solve(exponentials(b).mT, POINTS), "transposed"),
    (ch7.ch7_ex5, lambda b: torch.ones(4), "the sum is"),
    (ch7.ch7_ex6, lambda A, multiply: doubling(A, multiply, 32)[:, 0], "5 are allowed"),
    (ch7.ch7_ex6, lambda A, multiply: None, "a Boolean tensor of shape [24]"),
    (ch7.ch7_ex6, node_by_node, "use multiply"),
    (ch7.ch7_ex6, lambda A, multiply: A, "a Boolean tensor of shape [24]"),
    (ch7.ch7_ex6, lambda A, multiply: doubling(A, multiply, stay=False)[:, 0], "by staying"),
    (ch7.ch7_ex6, lambda A, multiply: doubling(A, multiply)[0], "rows and columns"),
    (ch7.ch7_ex6, lambda A, multiply: torch.ones(len(A)).bool(), "no path leads to"),
    (ch7.ch7_ex6, step_by_step, "a path of many steps is missing"),
]
