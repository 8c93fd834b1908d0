"""Answers to the exercises of chapter 1: right ones, and wrong ones with the hint that fits."""

import math

import torch

from assocmem.book.check import ch1

STATE, READING = [[1, -1], [6, 3], [4, -1]], [0, 9, 3]


def half_life(n):
    gamma = 0.5 ** (1 / n)
    return gamma, 1 / (1 - gamma)


def crossing(H, H_kv, K, V):
    return 2 * H * K * V / (H_kv * (K + V))


def summaries(state):
    """An answer to exercise 4, from the state of the whole: its pieces are (a, S) and (b, R)."""
    return lambda first, second: (first[0] * second[0], state(*first, *second))


def normal_tail(z):
    return 0.5 * math.erfc(z / math.sqrt(2))


def bit_error(N, d):
    return normal_tail((1 + N / d) / math.sqrt(N / d))


def scan(q, k, v, g, own=1.0):
    """Token by token; `own` multiplies what a token writes."""
    S, o = torch.zeros(k.shape[1], v.shape[1], dtype=v.dtype), []
    for t in range(len(q)):
        S = g[t].exp() * S + own * torch.outer(k[t], v[t])
        o.append(q[t] @ S)
    return torch.stack(o)


def each_chunk_alone(q, k, v, g, C):
    pieces = zip(*(x.split(C) for x in (q, k, v, g)), strict=True)
    return torch.cat([scan(*piece) for piece in pieces])


def right_while(holds):
    """An answer to exercise 6 that is right as long as `holds(T, g, C)`."""
    return lambda q, k, v, g, C: scan(q, k, v, g) * (1.0 if holds(len(q), g, C) else 2.0)


def phi(x):
    return torch.nn.functional.elu(x) + 1


def over_window(q, k, v, w, normaliser=None, features=phi):
    """Exercise 7 by running sums; the window of the normaliser may be another one."""
    keys, v = features(k), torch.cat((v, torch.ones(len(v), 1, dtype=v.dtype)), 1)
    S = (keys[:, :, None] * v[:, None, :]).cumsum(0)
    whole = S.clone()
    S[w:] -= whole[:-w]
    if normaliser is not None:
        S[:, :, -1] = whole[:, :, -1]
        S[normaliser:, :, -1] -= whole[:-normaliser, :, -1]
    o = torch.einsum("tk,tkv->tv", features(q), S)
    return o[:, :-1] / o[:, -1:]


def all_scores(q, k, v, w):
    weights = phi(q) @ phi(k).T
    weights = weights.tril() - weights.tril(-w)
    return weights @ v / weights.sum(1, keepdim=True)


def cut_off(q, k, v, w):
    """Wrong where the window is longer than the sequence."""
    return over_window(q, k, v, w) * (1.0 if w <= len(q) else 2.0)


RIGHT = [
    (ch1.ch1_ex1, lambda: (STATE, READING)),
    (ch1.ch1_ex2, half_life),
    (ch1.ch1_ex3, crossing),
    (ch1.ch1_ex4, summaries(lambda a, S, b, R: b * S + R)),
    (ch1.ch1_ex5, bit_error),
    (ch1.ch1_ex6, lambda q, k, v, g, C: scan(q, k, v, g)),
    (ch1.ch1_ex7, over_window),
]

WRONG = [
    (ch1.ch1_ex1, lambda: ([[math.nan] * 2] * 3, READING), "row 1, column 1"),
    (ch1.ch1_ex3, lambda *x: math.ceil(crossing(*x)), "need not be a whole number"),
    (ch1.ch1_ex4, summaries(lambda a, S, b, R: math.nan * S), "reading both halves"),
    (ch1.ch1_ex1, lambda: STATE, "return two things"),
    (ch1.ch1_ex1, lambda: ("S", READING), "the state is no array"),
    (ch1.ch1_ex1, lambda: ([[1, 6, 4], [-1, 3, -1]], READING), "a row for each entry of a value"),
    (ch1.ch1_ex1, lambda: ([1, 2], READING), "the wrong shape, [2]"),
    (ch1.ch1_ex1, lambda: ([[1, -1], [0, 0], [2, -2]], READING), "of the first pair alone"),
    (ch1.ch1_ex1, lambda: ([[0, 0], [6, 3], [2, 1]], READING), "of the second pair alone"),
    (ch1.ch1_ex1, lambda: ([[1, -1], [6, 3], [4, 1]], READING), "row 3, column 2"),
    (ch1.ch1_ex1, lambda: (STATE, [0, 9, 4]), "the reading is not"),
    (ch1.ch1_ex2, lambda n: (1 - 1 / n, n), "a window of n"),
    (ch1.ch1_ex2, lambda n: (math.nan, n), "the decay is nan"),
    (ch1.ch1_ex2, lambda n: (2.0, n), "between 0 and 1"),
    (ch1.ch1_ex2, lambda n: (0.9, 10), "a pair weighs 0.9"),
    (ch1.ch1_ex2, lambda n: (half_life(n)[0], n), "do not add up to"),
    (ch1.ch1_ex3, lambda *sizes: "long", "the number of tokens must be a number, got str"),
    (ch1.ch1_ex3, lambda *sizes: -1, "-1 tokens"),
    (ch1.ch1_ex3, lambda *sizes: crossing(*sizes) / 2, "how many bytes has a number"),
    (ch1.ch1_ex3, lambda H, H_kv, K, V: crossing(H, H, K, V), "how many heads does each"),
    (ch1.ch1_ex3, lambda *sizes: 3 * crossing(*sizes), "3 times the bytes of the states"),
    (ch1.ch1_ex4, lambda first, second: (1.0, second[1]), "not the product of all"),
    (ch1.ch1_ex4, summaries(lambda a, S, b, R: S[0]), "the wrong shape, [3]"),
    (ch1.ch1_ex4, summaries(lambda a, S, b, R: S + R), "the first half has aged"),
    (ch1.ch1_ex4, summaries(lambda a, S, b, R: S + a * R), "which of the two halves ages"),
    (ch1.ch1_ex4, summaries(lambda a, S, b, R: R), "reading both halves in turn"),
    (ch1.ch1_ex5, lambda N, d: 1.5, "1.5 is no probability"),
    (ch1.ch1_ex5, lambda N, d: normal_tail(math.sqrt(d / N)), "the error without the diagonal"),
    (ch1.ch1_ex5, lambda N, d: 1 - bit_error(N, d), "that the bit is right"),
    (ch1.ch1_ex5, lambda N, d: bit_error(N, d) / 2, "not for N = 300"),
    (ch1.ch1_ex6, lambda q, k, v, g, C: v[0], "must have the shape [50, 6], got [6]"),
    (ch1.ch1_ex6, lambda q, k, v, g, C: scan(q, k, v, g, own=2.0), "it is not the parallel form"),
    (ch1.ch1_ex6, each_chunk_alone, "does the state arrive?"),
    (ch1.ch1_ex6, lambda q, k, v, g, C: scan(q, k, v, 0 * g), "inside a chunk"),
    (ch1.ch1_ex6, right_while(lambda T, g, C: not g.any() or C == T), "wrong in the second"),
    (ch1.ch1_ex6, right_while(lambda T, g, C: not g.any() or T <= 2 * C), "wrong for more"),
    (ch1.ch1_ex6, right_while(lambda T, g, C: T % C == 0), "may be shorter than C"),
    (ch1.ch1_ex6, right_while(lambda T, g, C: g.min() > -2), "does an exponential overflow"),
    (ch1.ch1_ex7, lambda q, k, v, w: v[0], "must have the shape [40, 3], got [3]"),
    (ch1.ch1_ex7, lambda q, k, v, w: scan(phi(q), phi(k), v, 0 * v[:, 0]), "these are sums"),
    (ch1.ch1_ex7, lambda *x: over_window(*x, features=torch.nn.functional.elu), "it is elu + 1"),
    (ch1.ch1_ex7, lambda *x: over_window(*x, features=torch.exp), "nothing leaves the window"),
    (ch1.ch1_ex7, lambda q, k, v, w: over_window(q, k, v, w + 1), "too long"),
    (ch1.ch1_ex7, lambda q, k, v, w: over_window(q, k, v, max(w - 1, 1)), "too short"),
    (ch1.ch1_ex7, lambda q, k, v, w: over_window(q, k, v, w, 40), "what about the normaliser?"),
    (ch1.ch1_ex7, lambda q, k, v, w: over_window(q, k, v, 40), "or the later ones are wrong"),
    (ch1.ch1_ex7, cut_off, "longer than the sequence"),
    (
        ch1.ch1_ex7,
        lambda q, k, v, w: 2 * over_window(q, k, v, w) if w == 1 else over_window(q, k, v, w),
        "its own value",
    ),
]
