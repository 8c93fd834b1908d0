"""Checks of chapter 9: choosing a memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from assocmem.book import choosing
from assocmem.book.check.answer import close, pair
from assocmem.book.check.exercise import Wrong, exercise

T_QUANTILE = 4.303  # of Student's t with two degrees of freedom, 97.5 %


@exercise
def ch9_ex1(outweighed: Callable[..., float]) -> None:
    """From which context on n caches move as much as the weights."""
    for weights, heads, K, V, n, b in ((120_000, 4, 16, 16, 1, 4), (2_600_000, 6, 32, 64, 8, 2)):
        got = outweighed(weights, heads, K, V, n, b)
        pair = heads * (K + V) * b
        if close(got, weights / (n * pair) - 1):
            continue
        if close(got, weights / (n * pair)):
            raise Wrong("nearly: a token also writes its own pair")
        if close(got, weights / pair - 1):
            raise Wrong("the weights are read once for all sequences, each cache for its own")
        if close(got, n * weights / pair - 1):
            raise Wrong("the more sequences, the sooner the caches outweigh the weights")
        if close(got, weights / (n * heads * K * b) - 1) or close(
            got, weights / (2 * n * heads * K * b) - 1
        ):
            raise Wrong("a pair is a key of size K and a value of size V")
        raise Wrong(f"not for weights of {weights:,} bytes and n = {n}: what moves for one token, "
                    "besides the weights?")  # fmt: skip


@exercise
def ch9_ex2(bits_to_store: Callable[[int, int, int], float]) -> None:
    """The logarithm of the number of different lists of pairs."""
    for N, keys, values in ((16, 32, 16), (3, 10, 5)):
        got = float(bits_to_store(N, keys, values))
        which, what = math.log2(math.comb(keys, N)), N * math.log2(values)
        if close(got, which + what):
            continue
        if close(got, what):
            raise Wrong("these are the bits of the values; which keys are there?")
        if close(got, math.log2(math.perm(keys, N)) + what):
            raise Wrong("this counts lists in every order, and the order changes no answer")
        if close(got, N * math.log2(keys) + what):
            raise Wrong("this lets a key come twice")
        if close(got, (which + what) * math.log(2)):
            raise Wrong("right, but in nats")
        raise Wrong(f"not for {N} pairs of {keys} keys and {values} values: how many different "
                    "lists are there?")  # fmt: skip


@exercise
def ch9_ex3(difference: Callable[..., tuple[float, float]]) -> None:
    """A paired interval of three differences."""
    a, b = [0.91, 0.75, 0.84], [0.85, 0.71, 0.79]
    low, high = sorted(float(x) for x in pair(difference(list(a), list(b)), "both ends"))
    x, y = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    d = x - y
    mean, s = d.mean().item(), d.std().item()
    half = T_QUANTILE * s / math.sqrt(3)

    def near(middle: float, width: float) -> bool:
        return abs(low - middle + width) < 1e-5 and abs(high - middle - width) < 1e-5

    if near(mean, half):
        return
    apart = math.hypot(x.std().item(), y.std().item())
    if near(-mean, half):
        raise Wrong("this is the interval for b − a")
    if near(mean, T_QUANTILE * s):
        raise Wrong("this is where a fourth difference may lie; the mean of three varies less")
    if near(mean, T_QUANTILE * d.std(correction=0).item() / math.sqrt(3)):
        raise Wrong("s² has n − 1 below the line, since the mean comes from the same numbers")
    if near(mean, 1.96 * s / math.sqrt(3)):
        raise Wrong("1.96 is for many seeds; for three, take the quantile of Student's t")
    if near(mean, T_QUANTILE * apart / math.sqrt(3)):
        raise Wrong("this forgets which scores share a seed, and is too wide: subtract first")
    raise Wrong("not the interval: mean of the three differences, give or take 4.303 s/√3")


@exercise
def ch9_ex4(layers_with_cache: Callable[..., int]) -> None:
    """How many layers of a hybrid may have a cache."""
    exactly_two = 36_438_016  # bytes of two caches and 22 states
    cases = (24, 4096, 52_000_000), (24, 4096, 19_846_000), (6, 512, 10**9), (24, 4096, exactly_two)
    for layers, T, budget in cases:
        heads, K, V, b = 16, 64, 64, 2
        state, cache = heads * K * V * b, heads * (K + V) * T * b
        got = layers_with_cache(budget, layers, heads, K, V, T, b)
        left = budget - layers * state
        expected = min(layers, left // (cache - state))
        if close(got, expected):
            continue
        if budget == exactly_two and got == 1:
            raise Wrong("22 states and two caches of T pairs take exactly this budget; it is "
                        "moving that takes T + 1")  # fmt: skip
        if close(got, left // (cache - state)):
            raise Wrong("there are not that many layers")
        if close(got, min(layers, left // cache)):
            raise Wrong("a layer that gets a cache gives its state back")
        if close(got, min(layers, budget // cache)):
            raise Wrong("the other layers have a state, and that takes memory too")
        if close(got, min(layers, left / (cache - state))):
            raise Wrong("a whole number of layers, please")
        raise Wrong(f"not for {layers} layers, T = {T} and {budget:,} bytes: a state takes "
                    f"{state:,} bytes, a cache {cache:,}")  # fmt: skip


@exercise
def ch9_ex5(best_ranks: Callable[..., int]) -> None:
    """The number of ranks with the least time."""
    cases = ((10_000, 1e-6, 1e-4, 64), (10_000, 1e-6, 1e-4, 8), (1_000, 1e-6, 2.6e-4, 64),
             (1_000, 1e-6, 2e-4, 64))  # fmt: skip
    for T, t, hop, most in cases:
        extra = 1 + 0.25 * (3 - 1)

        def seconds(R: int, T: int = T, t: float = t, hop: float = hop, w: float = extra) -> float:
            return T * t * (w if R > 1 else 1) / R + (R - 1) * hop

        got = best_ranks(T, t, 0.25, 3.0, hop, most)
        best = min(range(1, most + 1), key=seconds)
        if got == best:
            continue
        at = math.sqrt(T * t * extra / hop)
        if close(got, at):
            raise Wrong("a whole number of ranks, please")
        if got > most:
            raise Wrong(f"there are only {most} ranks")
        if best == 1:
            raise Wrong("here a single rank is the fastest, since it scans only once")
        if got == round(math.sqrt(T * t / hop)):
            raise Wrong("split pieces are scanned twice: where does w come in?")
        raise Wrong(f"not for T = {T}, t = {t:g} s, c = {hop:g} s: {got} ranks are not the fastest")


@exercise
def ch9_ex6(my_design: Callable[[], Sequence[tuple[str, dict[str, Any]]]]) -> None:
    """Two layers that may separate keys and reflect, with a bounded memory."""
    design = list(my_design())
    if len(design) != 2:
        raise Wrong(f"two layers, please, not {len(design)}")
    shape = choosing.configuration()["model"]
    model = choosing.Model(shape, design, vocab_size=1).to(torch.get_default_dtype())
    short, long = (choosing.decoding(model, T)["state_bytes"] for T in (64, 128))
    held = long * 4 / torch.get_default_dtype().itemsize  # in float32
    if held > 40_000:
        raise Wrong(f"{held:,.0f} bytes at 128 tokens")
    if short == long:
        raise Wrong("no memory grows here: a state of 16 × 16 tells 16 keys apart")
    if not any(options.get("allow_negative_eigenvalues") for _, options in design):
        raise Wrong("no layer has eigenvalues below 0: none can follow swaps")
