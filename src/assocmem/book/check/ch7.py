"""Checks of chapter 7: what memories can compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from assocmem.book.check.answer import number, pair, same
from assocmem.book.check.exercise import Wrong, exercise
from assocmem.tasks.graphs import reachability


def vector(name: str, x: Any, n: int) -> Tensor:
    """A list or tensor of n numbers as float64."""
    try:
        x = torch.as_tensor(x, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{name} must be {n} numbers") from None
    if x.shape != (n,):
        raise Wrong(f"{name} must be {n} numbers, got shape {list(x.shape)}")
    return x


def unit(name: str, k: Tensor) -> None:
    """Refuse a key whose length is not 1, up to rounding in float32."""
    length = k.norm().item()
    if not math.isclose(length, 1.0, rel_tol=1e-6):
        raise Wrong(f"{name} has length {length:.8g}, not 1")


def correction(k: Tensor, beta: float) -> Tensor:
    """I − β k kᵀ: what writing the value 0 under k makes of a memory."""
    return torch.eye(len(k), dtype=k.dtype) - beta * torch.outer(k, k)


@exercise
def ch7_ex1(unit_swap: Callable[[int, int, int], Any]) -> None:
    """The unit key and the step size that swap two places."""
    for n, i, j in ((3, 0, 1), (5, 3, 1)):
        k, beta = pair(unit_swap(n, i, j), "the key and β")
        k, beta = vector("the key", k, n), number("β", beta)
        swapped = torch.eye(n, dtype=torch.float64)
        swapped[[i, j]] = swapped[[j, i]]
        unit("the key", k)
        if same(correction(k, 2.0), swapped):
            if same(correction(k, beta), swapped):
                continue
            raise Wrong("the key is right; which β makes the eigenvalue along it −1?")
        if k[i] * k[j] > 0:
            raise Wrong("this key changes the sum of the two places; a swap keeps it")
        raise Wrong(f"for n = {n} this does not swap places {i} and {j}")


@exercise
def ch7_ex2(lasts: Callable[[float, float], int]) -> None:
    """Ones after which two successive states of a fading sign are closer than `least`."""
    for beta, least in ((1.9, 1e-3), (1.5, 0.1), (1.99, 2**-8)):
        t, difference = 1, beta
        while difference >= least:
            t, difference = t + 1, difference * (beta - 1)
        got = number("the answer", lasts(beta, least))
        if got == t:
            continue
        size = math.ceil(math.log(least) / math.log(beta - 1))
        if abs(got - size) <= 1:
            raise Wrong("this looks at the size of a state; two states of unequal sign differ by "
                        "the sum of their sizes")  # fmt: skip
        if abs(got - t) == 1:
            raise Wrong(f"off by one for β = {beta}: the first one makes a difference of β")
        raise Wrong(f"not for β = {beta} and {least:.2g}: after t ones the state is (1 − β)^t")


@exercise
def ch7_ex3(mirrors: Callable[[int], Any]) -> None:
    """Two unit keys in the plane whose reflections make a rotation by 2π/m."""
    for m in (3, 5, 8):
        keys = pair(mirrors(m), "two keys")
        first, second = (vector("a key", k, 2) for k in keys)
        for k in (first, second):
            unit("a key", k)
        turn = correction(first, 2.0) @ correction(second, 2.0)
        cosine = (turn[0, 0] + turn[1, 1]).item() / 2
        if math.isclose(cosine, math.cos(2 * math.pi / m), abs_tol=1e-6):
            continue
        if math.isclose(cosine, 1.0, abs_tol=1e-6):
            raise Wrong("the same mirror twice: nothing turns")
        if math.isclose(cosine, math.cos(4 * math.pi / m), abs_tol=1e-6):
            raise Wrong("twice as far as asked: by how much do two mirrors at an angle turn?")
        turned = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
        raise Wrong(f"for m = {m} it turns by {turned:.1f} degrees, not by {360 / m:.1f}")


@exercise
def ch7_ex4(dimensions: Callable[[int], int]) -> None:
    """The smallest d = 4^s whose unbiased bases hold n keys with ε below 1/8."""
    for n, d in ((4352, 256), (4353, 1024), (33_793, 4096), (10, 256)):
        got = number("the answer", dimensions(n))
        if got == d:
            continue
        if n == 10 and got < 256:
            raise Wrong(f"{got:g} dimensions have keys enough for 10 places, but is ε below 1/8?")
        if got > d and n == 4352:
            raise Wrong("too many: there are √d + 1 bases of d keys each")
        if got < d and n > 4352:
            raise Wrong(f"{got:g} dimensions do not have {n:,} keys")
        raise Wrong(f"not for {n:,} places: d is a power of 4")


@exercise
def ch7_ex5(weights_of_exponentials: Callable[[Tensor], Any]) -> None:
    """Weights of four exponentials that agree with x at −1, 0, 1 and 2."""
    x = torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
    for rates in ((-1.0, -0.5, 0.5, 1.0), (-0.7, 0.2, 0.4, 1.3)):
        b = torch.tensor(rates, dtype=torch.float64)
        a = vector("the weights", weights_of_exponentials(b), 4)
        made = torch.exp(x[:, None] * b) @ a
        if torch.allclose(made, x, rtol=0, atol=1e-5):
            continue
        if same(torch.exp(x[:, None] * b).mT @ a, x):
            raise Wrong("the equations are transposed: one for each point, one weight per rate")
        wrong = (made - x).abs().argmax()
        raise Wrong(f"at x = {x[wrong]:.0f} the sum is {made[wrong]:.8g}")


@exercise
def ch7_ex6(reached_from_0: Callable[[Tensor, Callable[..., Tensor]], Any]) -> None:
    """What node 0 reaches, by ⌈log₂ n⌉ Boolean products."""
    # 39 steps take six doublings; for 32 steps, of 33 nodes, one fewer than ⌈log₂ n⌉ would do.
    chain = torch.zeros(40, 40, dtype=torch.bool)
    chain[range(1, 40), range(39)] = True
    drawn = reachability(1, 24, 0.08, torch.Generator().manual_seed(7))
    expected = torch.ones(40, dtype=torch.bool)
    for A, right in ((drawn.adjacency[0], drawn.reachable[0]), (chain, expected)):
        calls = 0

        def multiply(X: Tensor, Y: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return X.double() @ Y.double() > 0

        got = reached_from_0(A.clone(), multiply)
        allowed = math.ceil(math.log2(len(A)))
        if calls > allowed:
            raise Wrong(f"{calls} products for {len(A)} nodes, and {allowed} are allowed")
        if not isinstance(got, Tensor) or got.shape != (len(A),) or got.dtype != torch.bool:
            raise Wrong(f"return a Boolean tensor of shape [{len(A)}]")
        if torch.equal(got, right):
            if calls:
                continue
            raise Wrong("use multiply: a loop over nodes takes as many steps as there are nodes")
        if not got[0]:
            raise Wrong("node 0 reaches itself, by staying")
        if torch.equal(got, torch.arange(len(A)) == 0):
            raise Wrong("only node 0 itself: are rows and columns exchanged?")
        if bool((got & ~right).any()):
            raise Wrong("a node counts as reached that no path leads to")
        raise Wrong("a path of many steps is missing: does every product double the length?")
