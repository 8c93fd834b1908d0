"""Answers to the exercises of chapter 9: right ones, and wrong ones with the hint that fits."""

import math

import torch

from assocmem.book.check import ch9

TURNING = {"conv_width": 1, "allow_negative_eigenvalues": True}
DELTA, SOFTMAX = ("DeltaNet", {"conv_width": 1}), ("SoftmaxAttention", {"rotary": True})


def bits(n, keys, values):
    return math.log2(math.comb(keys, n)) + n * math.log2(values)


def interval(mean, half):
    return mean - half, mean + half


def paired(quantile=4.303, correction=1, root=3):
    """An answer to exercise 3 from the differences of scores with the same seed."""

    def answer(a, b):
        d = torch.tensor(a) - torch.tensor(b)
        return interval(d.mean(), quantile * d.std(correction=correction) / root**0.5)

    return answer


def apart(a, b):
    a, b = torch.tensor(a), torch.tensor(b)
    return interval((a - b).mean(), 4.303 * ((a.var() + b.var()) / 3).sqrt())


def hybrid(budget, layers, heads, K, V, T, b, whole=True, kept=True, given_back=True):
    state, cache = heads * K * V * b, heads * (K + V) * T * b
    left = budget - (layers * state if kept else 0)
    n = left / (cache - (state if given_back else 0))
    return min(layers, math.floor(n) if whole else n)


def unlimited(budget, layers, heads, K, V, T, b):
    return (budget - layers * heads * K * V * b) // (heads * b * ((K + V) * T - K * V))


def fastest(T, t, share, work, hop, most, one=1.0):
    def seconds(R):
        return T * t * (1 + share * (work - 1) if R > 1 else one) / R + (R - 1) * hop

    return min(range(1, most + 1), key=seconds)


def optimum(T, t, share, work, hop, most):
    return math.sqrt(T * t * (1 + share * (work - 1)) / hop)


RIGHT = [
    (ch9.ch9_ex1, lambda W, h, K, V, n, b: W / (n * b * h * (K + V)) - 1),
    (ch9.ch9_ex2, bits),
    (ch9.ch9_ex3, paired()),
    (ch9.ch9_ex4, hybrid),
    (ch9.ch9_ex5, fastest),
    (ch9.ch9_ex6, lambda: [SOFTMAX, ("DeltaNet", TURNING)]),
    (ch9.ch9_ex6, lambda: [("DeltaNet", TURNING), SOFTMAX]),
    (ch9.ch9_ex6, lambda: [["SoftmaxAttention", {}], ["DeltaProduct", TURNING]]),
]

WRONG = [
    (ch9.ch9_ex4, lambda *x: hybrid(*x[:5], x[5] + 1, x[6]), "exactly this budget"),
    (ch9.ch9_ex4, lambda budget, *x: hybrid(budget - 1, *x), "exactly this budget"),
    (ch9.ch9_ex1, lambda W, h, K, V, n, b: W / (n * b * h * (K + V)), "writes its own pair"),
    (ch9.ch9_ex1, lambda W, h, K, V, n, b: W / (b * h * (K + V)) - 1, "each cache for its own"),
    (ch9.ch9_ex1, lambda W, h, K, V, n, b: n * W / (b * h * (K + V)) - 1, "the sooner"),
    (ch9.ch9_ex1, lambda W, h, K, V, n, b: W / (n * b * h * K) - 1, "and a value of size V"),
    (ch9.ch9_ex1, lambda W, h, K, V, n, b: W / (2 * n * b * h * K) - 1, "and a value of size V"),
    (ch9.ch9_ex1, lambda W, h, K, V, n, b: W, "what moves for one token"),
    (ch9.ch9_ex2, lambda n, keys, values: n * math.log2(values), "which keys are there"),
    (
        ch9.ch9_ex2,
        lambda n, keys, values: math.log2(math.perm(keys, n)) + n * math.log2(values),
        "the order changes no answer",
    ),
    (ch9.ch9_ex2, lambda n, keys, values: n * math.log2(keys * values), "a key come twice"),
    (ch9.ch9_ex2, lambda *sizes: bits(*sizes) * math.log(2), "in nats"),
    (ch9.ch9_ex2, lambda *sizes: 93.0, "how many different lists"),
    (ch9.ch9_ex3, lambda a, b: paired()(b, a), "for b − a"),
    (ch9.ch9_ex3, paired(root=1), "a fourth difference"),
    (ch9.ch9_ex3, paired(correction=0), "n − 1 below the line"),
    (ch9.ch9_ex3, paired(quantile=1.96), "for many seeds"),
    (ch9.ch9_ex3, apart, "which scores share a seed"),
    (ch9.ch9_ex3, lambda a, b: (0.0, 0.1), "give or take"),
    (ch9.ch9_ex4, unlimited, "not that many layers"),
    (ch9.ch9_ex4, lambda *x: hybrid(*x, given_back=False), "gives its state back"),
    (ch9.ch9_ex4, lambda *x: hybrid(*x, kept=False, given_back=False), "takes memory too"),
    (ch9.ch9_ex4, lambda *x: hybrid(*x, whole=False), "a whole number"),
    (ch9.ch9_ex4, lambda *x: 0, "a state takes"),
    (ch9.ch9_ex5, optimum, "a whole number"),
    (ch9.ch9_ex5, lambda *x: round(optimum(*x)), "only 8 ranks"),
    (ch9.ch9_ex5, lambda *x: min(round(optimum(*x)), x[-1]), "it scans only once"),
    (ch9.ch9_ex5, lambda *x: fastest(*x, one=2.0), "it scans only once"),
    (ch9.ch9_ex5, lambda T, t, s, w, hop, most: round((T * t / hop) ** 0.5), "where does w come"),
    (ch9.ch9_ex5, lambda *x: 1, "are not the fastest"),
    (ch9.ch9_ex6, lambda: [DELTA, SOFTMAX], "eigenvalues below 0"),
    (ch9.ch9_ex6, lambda: [("DeltaNet", TURNING)], "two layers"),
    (ch9.ch9_ex6, lambda: [("DeltaNet", TURNING), DELTA], "no memory grows"),
    (ch9.ch9_ex6, lambda: [SOFTMAX, SOFTMAX], "bytes at 128 tokens"),
]
