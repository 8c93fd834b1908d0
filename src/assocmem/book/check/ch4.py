"""Checks of chapter 4: feed-forward layers as memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from assocmem.book.check.answer import as_array, drawn, integer, of_shape
from assocmem.book.check.exercise import Wrong, exercise


def same(got: Tensor, expected: Tensor, tolerance: float = 1e-6) -> bool:
    """Equal up to a tolerance relative to the norm; false for NaN."""
    return bool((got - expected).norm() <= tolerance * expected.norm())


@exercise
def ch4_ex1(write: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """The value matrix after one fact was written with the least change."""
    V, a, y = drawn(4, 7, seed=0), drawn(7, seed=1), drawn(4, seed=2)
    before = V.clone()
    new = write(V, a, y)
    if not torch.equal(V, before):
        raise Wrong("V itself must stay as it is; return a new matrix")
    new = of_shape("the result", new, (4, 7))
    if same(new, V + torch.outer(y, a)) or same(new, V + torch.outer(y - V @ a, a)):
        raise Wrong("how long is a? Its length enters when you write, and again when you read")
    if same(new, V + torch.outer(y, a) / (a @ a)):
        raise Wrong("what the layer answered before is still there: write the difference only")
    if not same(new @ a, y):
        raise Wrong("the answer to a is not y")
    if not same(new, V + torch.outer(y - V @ a, a) / (a @ a)):
        raise Wrong("the answer is right, but a smaller change of V does it: which direction of "
                    "the rows does the read at a see?")  # fmt: skip


@exercise
def ch4_ex2(overlap: Callable[[int], float]) -> None:
    """The mean cosine of strangers for the kernel function max(0, z)^p."""
    for p in (2, 3, 1):
        got = float(overlap(p))
        mean = 2 ** (p / 2) * math.gamma((p + 1) / 2) / math.sqrt(math.pi) / 2
        power = math.prod(range(1, 2 * p, 2)) / 2
        if math.isclose(got, mean, rel_tol=1e-3) or math.isclose(got, mean**2, rel_tol=1e-3):
            raise Wrong("an average overlap is a cosine: divide by the mean square activation")
        if math.isclose(got, mean**2 / power / 2, rel_tol=1e-3):
            raise Wrong("of the mean square, too, only half of the normal distribution counts")
        if math.isclose(got, 2 * mean**2 / power, rel_tol=1e-3):
            raise Wrong("half of the units are silent for each of the two inputs")
        if not math.isclose(got, mean**2 / power, rel_tol=1e-3):
            raise Wrong(f"not for p = {p}: find E κ and E κ² for a normal score")


@exercise
def ch4_ex3(experts: Callable[[int, int, float], int]) -> None:
    """The least number of experts with independent coarse keys that reaches an SNR."""
    cases = ((1024, 64, 1.0), (10_000, 32, 4.0), (50, 64, 1.0), (129, 16, 2.0), (50, 16, 8.1))
    for N, d, snr in cases:
        got = integer("a number of experts", experts(N, d, snr))
        if got < 1:
            raise Wrong(f"{got} experts")

        def noise(E: int, N: int = N, d: int = d) -> float:
            return (N - 1) / (E * d)

        if noise(got) > (1 + 1e-9) / snr:
            raise Wrong(f"with N = {N}, d = {d} and {got} experts the SNR is {1 / noise(got):.3g}, "
                        f"not {snr}")  # fmt: skip
        if got > 1 and noise(got - 1) <= (1 - 1e-9) / snr:
            raise Wrong(f"N = {N}, d = {d}, SNR {snr}: fewer than {got} experts reach it, too")


@exercise
def ch4_ex4(best_pairs: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    """The k best pairs of two lists of scores, without all n² sums."""
    for n, k in ((6, 3), (40, 8), (40, 1)):
        s, t = drawn(n, seed=n), drawn(n, seed=n + 1)
        got = of_shape(f"the result for n = {n}, k = {k}", best_pairs(s, t, k), (k, 2))
        sums = s[:, None] + t[None, :]
        rows = [tuple(row) for row in got.tolist()]
        expected = [divmod(i, n) for i in sums.flatten().topk(k).indices.tolist()]
        if len(set(rows)) < k:
            raise Wrong("a pair occurs twice")
        if set(rows) == {(j, i) for i, j in expected} and set(rows) != set(expected):
            raise Wrong("first the index into s, then the one into t")
        if set(rows) == set(zip(s.topk(k).indices.tolist(), t.topk(k).indices.tolist(),
                                strict=True)) != set(expected):  # fmt: skip
            raise Wrong("the second best of one list may go with the best of the other")
        if set(rows) != set(expected):
            raise Wrong(f"not the best {k} pairs of two lists of {n}")
        if rows != expected:
            raise Wrong("these are the best pairs, but the best does not come first")
    n = 300_000  # n² sums would take 720 GB
    s, t = drawn(n, seed=1), drawn(n, seed=2)
    top = as_array("the result", best_pairs(s, t, 2))
    if top[0].tolist() != [int(s.argmax()), int(t.argmax())]:
        raise Wrong("not the best pair of two long lists")


@exercise
def ch4_ex5(write_all: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """The value matrix after several facts were written at once with the least change."""
    V, A, Y = drawn(4, 9, seed=0), drawn(3, 9, seed=1), drawn(3, 4, seed=2)
    new = of_shape("the result", write_all(V.clone(), A, Y), (4, 9))
    one_by_one, summed = V.clone(), V.clone()
    for a, y in zip(A, Y, strict=True):
        one_by_one += torch.outer(y - one_by_one @ a, a) / (a @ a)
        summed += torch.outer(y - V @ a, a) / (a @ a)
    if same(new, one_by_one):
        raise Wrong("written one after another, the last fact is right and has moved the others")
    if same(new, summed):
        raise Wrong("each write ignores what the others add to its answer")
    if not same(new @ A.T, Y.T):
        raise Wrong("not all answers are right")
    expected = V + (torch.linalg.pinv(A) @ (Y - A @ V.T)).T
    if not same(new, expected):
        raise Wrong("all answers are right, but a smaller change of V does it")


@exercise
def ch4_ex6(clean_write: Callable[[Tensor, Tensor], Tensor | None]) -> None:
    """A direction that writes one fact and leaves the answers to given others exactly."""
    a, others = drawn(12, seed=0), drawn(7, 12, seed=1)
    inside = others.T @ drawn(7, seed=2)
    if clean_write(inside, others) is not None:
        raise Wrong("when a is a sum of the others' activations, every write moves one of them")
    u = clean_write(a, others)
    if u is None:
        raise Wrong("7 others in 12 dimensions leave room")
    u = of_shape("u", u, (12,))
    if not abs(a @ u - 1) <= 1e-6:
        raise Wrong(f"aᵀu must be 1, so that the new answer is y; it is {float(a @ u):.3g}")
    moved = (others @ u).abs().max().item()
    if not moved <= 1e-6:
        raise Wrong(f"the others move by up to {moved:.2g} times the difference that is written")
    if u.norm() > 1.0001 * best_norm(a, others):
        raise Wrong("the others stay, but a shorter u does it: take from a only what they span")


def best_norm(a: Tensor, others: Tensor) -> float:
    """The length of the shortest u with aᵀu = 1 that is orthogonal to the others."""
    free = a - torch.linalg.pinv(others) @ (others @ a)
    return 1 / free.norm().item()
