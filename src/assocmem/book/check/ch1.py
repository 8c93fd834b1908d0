"""Checks of chapter 1: linear attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from assocmem import ops
from assocmem.book.check.answer import as_array, number, of_shape, pair
from assocmem.book.check.exercise import Wrong, exercise


def relative_error(got: Tensor, expected: Tensor) -> float:
    """‖got − expected‖ / ‖expected‖."""
    return ((got - expected).norm() / expected.norm()).item()


@exercise
def ch1_ex1(state_and_reading: Callable[[], tuple[Any, Any]]) -> None:
    """S of two pairs, d_v × d, and its reading at (1, 1)."""
    k = torch.tensor([[1.0, -1.0], [2.0, 1.0]], dtype=torch.float64)
    v = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]], dtype=torch.float64)
    S, reading = pair(state_and_reading(), "the state and the reading")
    S, reading = as_array("the state", S), as_array("the reading", reading)
    expected = v.T @ k
    if S.shape == (2, 3):
        raise Wrong("the state has a row for each entry of a value, and a column for each of a key")
    if S.shape != expected.shape:
        raise Wrong(f"the state has the wrong shape, {list(S.shape)}")
    for name, i in (("first", 0), ("second", 1)):
        if torch.equal(S, torch.outer(v[i], k[i])):
            raise Wrong(f"this is the outer product of the {name} pair alone; the state is a sum")
    if not torch.allclose(S, expected):
        row, column = ((S - expected).abs() <= 1e-6).logical_not().nonzero()[0].tolist()
        raise Wrong(
            f"look at row {row + 1}, column {column + 1} of the state again: entry {row + 1} of "
            f"each value times entry {column + 1} of its key, added up"
        )
    if reading.shape != (3,) or not torch.allclose(reading, expected.sum(1)):
        raise Wrong("the state is right, the reading is not: it has the size of a value; what are "
                    "the dot products of the query with the two keys?")  # fmt: skip


@exercise
def ch1_ex2(half_life: Callable[[int], tuple[float, float]]) -> None:
    """The decay with a half-life of n tokens, and its effective window."""
    for n in (1, 10, 700):
        gamma, window = pair(half_life(n), "the decay and the window")
        gamma, window = number("the decay", gamma), number("the window", window)
        if math.isclose(gamma, 1 - 1 / n, rel_tol=1e-6, abs_tol=1e-12):
            raise Wrong(f"for n = {n} this decay gives a window of n, not a half-life of n")
        if not 0 < gamma < 1:
            raise Wrong(f"for n = {n} the decay is {gamma:.4g}: must it not lie between 0 and 1?")
        if not math.isclose(gamma**n, 0.5, rel_tol=1e-4):
            raise Wrong(f"after n = {n} tokens a pair weighs {gamma**n:.4g}")
        if not math.isclose(window, 1 / (1 - gamma), rel_tol=1e-4):
            raise Wrong(
                f"the decay is right; for n = {n} its weights do not add up to {window:.4g}"
            )


@exercise
def ch1_ex3(crossing: Callable[[int, int, int, int], float]) -> None:
    """The length at which a shared 2-byte cache and unshared 4-byte states are equally large."""
    for H, H_kv, K, V in ((32, 8, 128, 128), (8, 8, 64, 64), (16, 2, 64, 128)):
        T = number("the number of tokens", crossing(H, H_kv, K, V))
        if T <= 0:
            raise Wrong(f"{T:.4g} tokens")
        ratio = (T * H_kv * (K + V) * 2) / (H * K * V * 4)
        if math.isclose(ratio, 1, rel_tol=1e-6):
            continue
        case = f"H = {H}, H_kv = {H_kv}, K = {K}, V = {V}: at your T the cache takes"
        hint = f"{case} {ratio:.4g} times the bytes of the states"
        if abs(T - T / ratio) <= 1:
            hint += "; T need not be a whole number"
        elif math.isclose(ratio, 0.5, rel_tol=1e-6):
            hint += "; how many bytes has a number of each?"
        elif H_kv != H and math.isclose(ratio, H_kv / H, rel_tol=1e-6):
            hint += "; how many heads does each of them keep?"
        raise Wrong(hint)


@exercise
def ch1_ex4(combine: Callable[[Any, Any], tuple[Any, Tensor]]) -> None:
    """The summary (decay, state) of two consecutive pieces of a sequence."""
    g = torch.Generator().manual_seed(0)
    k, v = torch.randn(2, 12, 3, generator=g, dtype=torch.float64)
    decay = torch.rand(12, generator=g, dtype=torch.float64)

    def summary(start: int, end: int) -> tuple[Tensor, Tensor]:
        S = torch.zeros(3, 3, dtype=torch.float64)
        for t in range(start, end):
            S = decay[t] * S + torch.outer(v[t], k[t])
        return decay[start:end].prod(), S

    first, second, whole = summary(0, 5), summary(5, 12), summary(0, 12)
    a, S = pair(combine(first, second), "the decay and the state of the whole")
    a, S = number("the decay of the whole", a), as_array("the state of the whole", S)
    if not math.isclose(a, whole[0].item(), rel_tol=1e-6):
        raise Wrong("the decay of the whole is not the product of all its decays")
    if S.shape != whole[1].shape:
        raise Wrong(f"the state of the whole has the wrong shape, {list(S.shape)}")
    if relative_error(S, first[1] + second[1]) < 1e-6:
        raise Wrong("the first half has aged while the second was read")
    if relative_error(S, first[1] + first[0] * second[1]) < 1e-6:
        raise Wrong("which of the two halves ages while the other is read?")
    if not relative_error(S, whole[1]) <= 1e-6:  # also for NaN
        raise Wrong("the state is not the one that reading both halves in turn would leave")


@exercise
def ch1_ex5(bit_error: Callable[[int, int], float]) -> None:
    """The one-step bit error of a Hopfield network that keeps its diagonal."""

    def Q(z: float) -> float:
        return 0.5 * math.erfc(z / math.sqrt(2))

    for N, d in ((300, 1000), (138, 1000), (5000, 10000), (2000, 1000)):
        p, load = number("the probability", bit_error(N, d)), N / d
        if not 0 <= p <= 1:
            raise Wrong(f"{p:.4g} is no probability")
        # N or N − 1, d or d − 1: for large N and d all are right, and differ by less than this.
        if math.isclose(p, Q((1 + load) / math.sqrt(load)), rel_tol=0.1):
            continue
        if math.isclose(p, Q(1 / math.sqrt(load)), rel_tol=0.05):
            raise Wrong("this is the error without the diagonal; what does W_bb do to bit b?")
        if math.isclose(p, 1 - Q((1 + load) / math.sqrt(load)), rel_tol=0.05):
            raise Wrong("this is the probability that the bit is right")
        raise Wrong(
            f"not for N = {N}, d = {d}: find the mean of (W x)_b times the right bit, and the "
            "standard deviation of the crosstalk"
        )


@exercise
def ch1_ex6(chunk_with_decay: Callable[..., Tensor]) -> None:
    """The chunk form with one decay per token, against the recurrence."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 50, 8, generator=generator, dtype=torch.float64)
    v = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    g = -torch.rand(50, generator=generator, dtype=torch.float64)

    def error(g: Tensor, C: int) -> float:
        x = (x[None, :, None] for x in (q, k, v, g))
        expected, _ = ops.linear_attention(*x, scale=1.0, backend="recurrent")
        o = of_shape("the output", chunk_with_decay(q, k, v, g, C), v.shape)
        return relative_error(o, expected[0, :, 0])

    def right(g: Tensor, C: int) -> bool:
        return error(g, C) <= 1e-6  # false for NaN

    if not right(torch.zeros_like(g), 50):
        raise Wrong("without decay and with one chunk it is not the parallel form")
    if not right(torch.zeros_like(g), 10):
        raise Wrong("without decay it is right in the first chunk only: does the state arrive?")
    if not right(g, 50):
        raise Wrong("inside a chunk: a token reads its own pair undecayed, the one before it with "
                    "its own decay, and so on")  # fmt: skip
    if not right(g, 25):
        raise Wrong("right inside the first chunk, wrong in the second: how much has the state "
                    "aged when token t reads it, and each pair when its chunk ends?")  # fmt: skip
    if not right(g, 10):
        raise Wrong("right for two chunks, wrong for more: what happens to the old state when a "
                    "chunk ends?")  # fmt: skip
    if not right(g, 16):
        raise Wrong("the last chunk may be shorter than C")
    if not right(torch.full_like(g, -50.0), 25):
        raise Wrong("with g = −50 at every token it is no longer right: does an exponential "
                    "overflow, or do you divide by one that has become zero?")  # fmt: skip


@exercise
def ch1_ex7(over_window: Callable[..., Tensor]) -> None:
    """Normalised readings over the last w tokens, against the weights of all scores."""
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 40, 5, generator=generator, dtype=torch.float64)
    v = torch.randn(40, 3, generator=generator, dtype=torch.float64)

    def summed(w: int, plus: float = 1.0) -> Tensor:
        phi_q, phi_k = (torch.nn.functional.elu(x) + plus for x in (q, k))
        scores = phi_q @ phi_k.T
        return scores.tril() - scores.tril(-w)

    def read(weights: Tensor) -> Tensor:
        return weights @ v / weights.sum(1, keepdim=True)

    def same(w: int, expected: Tensor) -> bool:
        got = of_shape("the output", over_window(q.clone(), k.clone(), v.clone(), w), v.shape)
        return relative_error(got, expected) <= 1e-6  # false for NaN

    if not same(40, read(summed(40))):
        if same(40, summed(40) @ v):
            raise Wrong("these are sums; which memory gives what they are to be divided by?")
        if same(40, read(summed(40, plus=0.0))):
            raise Wrong("this takes elu, whose features are negative, too; it is elu + 1")
        if same(40, read(summed(39))):
            raise Wrong("the window is one token too short: the token itself is one of its w")
        raise Wrong("with w = T nothing leaves the window, and it is not the normalised reading")
    if not same(7, read(summed(7))):
        if same(7, read(summed(8))):
            raise Wrong("the window is one token too long: the token itself is one of its w")
        if same(7, summed(7) @ v / summed(40).sum(1, keepdim=True)):
            raise Wrong("the state has lost what left the window; what about the normaliser?")
        raise Wrong("with w = 7 the first 7 tokens or the later ones are wrong: a token's average "
                    "is over itself and the w − 1 before it")  # fmt: skip
    if not same(50, read(summed(40))):
        raise Wrong("a window may be longer than the sequence")
    T = 300_000  # all scores would take 720 GB
    x = torch.randn(T, 2, generator=generator, dtype=torch.float64)
    if not torch.allclose(as_array("the output", over_window(x, x, x, 1)), x, rtol=1e-4, atol=1e-4):
        raise Wrong("in a window of one token every token reads its own value, which running sums "
                    "over 300,000 tokens lose in float32")  # fmt: skip
