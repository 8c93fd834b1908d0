"""Checks of chapter 8: infinite context."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from assocmem.book.check.answer import close, drawn, of_shape, same
from assocmem.book.check.exercise import Wrong, exercise


@exercise
def ch8_ex1(largest_beta: Callable[[float, float], float]) -> None:
    """The largest β whose floor is e, from e and σ²."""
    for e, power in ((0.1, 0.5), (2.0, 0.3)):
        got = float(largest_beta(e, power))
        if close(got, 2 * e / power):
            raise Wrong("right for small β; the floor has a 2 − β below the line")
        if close(got, 2 * power / (e + power)):
            raise Wrong("the more is allowed, the larger the step may be")
        if close(got, 2 * e / (e + math.sqrt(power))) or close(got, 2 * e / (e + power**2)):
            raise Wrong("σ² is given as a power, and the error is a square already")
        if not close(got, 2 * e / (e + power)):
            raise Wrong(f"not for e = {e}, σ² = {power}: where does βσ²/(2 − β) reach e?")


@exercise
def ch8_ex2(effective_window: Callable[[float, int], float]) -> None:
    """How many equal weights have the variance of t weights that decay."""
    for gamma, t in ((0.5, 1), (0.9, 7), (0.99, 10_000)):
        weights = gamma ** torch.arange(t, dtype=torch.float64)
        total = weights.sum().item()
        got = float(effective_window(gamma, t))
        expected = total**2 / weights.square().sum().item()
        if close(got, expected):
            continue
        if close(got, (1 + gamma) / (1 - gamma)):
            raise Wrong("this is the window after infinitely many pairs")
        if t == 1 and got > 1:
            raise Wrong("of a single pair the average is that pair, whatever γ is")
        if close(got, total):
            raise Wrong("this is the sum of the weights; the variance has their squares in it")
        raise Wrong(f"not for γ = {gamma}, t = {t}: n equal weights 1/n have Σw² = 1/n")


@exercise
def ch8_ex3(pairs_that_answer: Callable[[Tensor], Tensor]) -> None:
    """(Σκ)²/Σκ² from the scores ln κ, however large they are."""
    scores = drawn(50, seed=3)
    for factor in (0.0, 1.0, 5000.0):
        p = (factor * scores).softmax(0)
        got, expected = float(pairs_that_answer(factor * scores)), 1 / p.square().sum().item()
        if close(got, expected):
            continue
        if close(got, 1 / p.max().item()) and factor == 1:
            raise Wrong("this counts by the largest weight alone; all weights take part")
        if close(got, torch.special.entr(p).sum().exp().item()):
            raise Wrong("this is the exponential of the entropy; the variance has squares in it")
        if factor > 1:
            raise Wrong(f"right for small scores; with scores up to 10,000 it gives {got}")
        raise Wrong(f"50 {'equal' if factor == 0 else 'random'} scores give {got:.4g}, "
                    f"not {expected:.4g}")  # fmt: skip


@exercise
def ch8_ex4(best_decay: Callable[[float, float], float]) -> None:
    """The decay that follows a drifting number best."""
    for drift, noise in ((0.01, 0.25), (0.5, 0.2), (3.0, 0.1)):
        x = drift / noise
        step = (math.sqrt(x**2 + 4 * x) - x) / 2
        got = float(best_decay(drift, noise))
        if close(got, step):
            raise Wrong("this is the step size; which decay has the same average?")
        if close(got, 1 - math.sqrt(x)):
            raise Wrong("right for slow drift; a fast one needs all of the formula")
        if close(got, 1 - (math.sqrt(x**4 + 4 * x**2) - x**2) / 2):
            raise Wrong("drift and noise are given as variances")
        if not abs(got - (1 - step)) <= 1e-3:  # a search on a grid will do; also for NaN
            raise Wrong(f"not for δ² = {drift}, σ² = {noise}: with one key of length 1, this "
                        "average is a delta rule with d = 1")  # fmt: skip


@exercise
def ch8_ex5(write_beside: Callable[..., Tensor]) -> None:
    """The smallest change that writes new pairs and leaves old readings alone."""
    S, k, v, old = (
        drawn(12, 4, seed=5),
        drawn(3, 12, seed=6),
        drawn(3, 4, seed=7),
        drawn(5, 12, seed=8),
    )
    X = of_shape("the new memory", write_beside(S.clone(), k, v, old), (12, 4))
    if not same(k @ X, v):
        if same(k @ X, k @ S + v):
            raise Wrong("the new keys read what they read before, plus the values")
        raise Wrong("the new keys do not read their values")
    if not same(old @ X, old @ S):
        if same(old @ X, torch.zeros_like(old @ S)):
            raise Wrong("the old keys read 0; they should read what they read before")
        raise Wrong("the new keys read their values, but the readings at the old keys have moved")
    keys = torch.cat([k, old])
    least = torch.linalg.pinv(keys) @ (torch.cat([v, old @ S]) - keys @ S)
    if not same(X - S, least):
        factor = ((X - S).norm() / least.norm()).item()
        raise Wrong(f"all readings are right, but the change is {factor:.3g} times the smallest: "
                    "what did S hold in directions that no key has?")  # fmt: skip


@exercise
def ch8_ex6(local_linear: Callable[..., Tensor]) -> None:
    """Weighted affine regression around a query."""
    k, q, W = drawn(60, 5, seed=9), 0.5 * drawn(5, seed=10), drawn(5, 3, seed=11)
    for v, beta in ((k @ W + 1, 0.0), (k @ W + 1, 2.0), (k.square() @ W, 2.0)):
        o = of_shape("the prediction", local_linear(q, k.clone(), v.clone(), beta), (3,))
        p = (beta * k @ q).softmax(0)[:, None]
        ones = torch.ones(60, 1, dtype=torch.float64)
        X = torch.cat([ones, k], 1)
        at = torch.cat([ones[0], q])

        def fit(weights: Tensor, X: Tensor = X, v: Tensor = v) -> Tensor:
            return torch.linalg.solve(X.T @ (weights * X), X.T @ (weights * v))

        if same(o, at @ fit(p)):
            continue
        if same(o, (p * v).sum(0)):
            raise Wrong("this is softmax attention: it fits a constant")
        if same(o, fit(p)[0]):
            raise Wrong("this is b; the prediction at the query is b + B q")
        if same(o, q @ torch.linalg.solve(k.T @ (p * k), k.T @ (p * v))):
            raise Wrong("this fits B without b: values have a mean")
        if same(o, at @ fit(ones)):
            raise Wrong("this fits all pairs alike; those near the query should weigh more")
        K, V = k - p.T @ k, v - p.T @ v
        B = torch.linalg.lstsq(p * K, p * V).solution
        if same(o, at @ fit(p**2)) or same(o, (p.T @ v + (q - p.T @ k) @ B)[0]):
            raise Wrong("the weights enter squared: a row of lstsq carries the root of its weight")
        raise Wrong("not the weighted least-squares prediction")
