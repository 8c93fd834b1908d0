"""Checks of chapter 5: update rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from assocmem.book.check.answer import as_array, close, of_shape, pair, same
from assocmem.book.check.exercise import Refused, Wrong, exercise
from assocmem.rules import RULES, Write


def pairs(n: int, d: int = 5, d_v: int = 4) -> tuple[Tensor, Tensor]:
    """Keys of any length `[n, d]` and values `[n, d_v]`."""
    g = torch.Generator().manual_seed(n)
    k = torch.randn(n, d, generator=g, dtype=torch.float64)
    return k, torch.randn(n, d_v, generator=g, dtype=torch.float64)


@exercise
def ch5_ex1(readings: Callable[[], Any]) -> None:
    """Two writes by the delta rule, and the readings at both keys."""
    k = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    v = torch.tensor([[1.0, 2.0], [2.0, 0.0]], dtype=torch.float64)
    both = pair(readings(), "the readings at the first key and at the second")
    first, second = (as_array("a reading", x) for x in both)
    if first.shape != (2,) or second.shape != (2,):
        raise Wrong("a reading is a list of two numbers")
    got = torch.stack([first, second])
    if same(got, k @ (k.T @ v)):
        raise Wrong("this is what adding gives; the second write must see what k_2 recalls")
    if not same(got[1], v[1]):
        raise Wrong("with β = 1 and a key of length 1, what does the last key read?")
    if same(got[0], v[0]):
        raise Wrong("the second write has a component along the first key: what does it change?")
    correction = v[1] - (k[1] @ k[0]) * v[0]
    if not same(got[0], v[0] + (k[1] @ k[0]) * correction):
        raise Wrong("the second reading is right; the first moves by k_1ᵀk_2 times the correction")


@exercise
def ch5_ex2(largest_step: Callable[[float, float], float]) -> None:
    """The largest stable β of Gated DeltaNet, from the key's length and the decay."""
    for length, gamma in ((1.0, 1.0), (2.0, 1.0), (1.5, 0.8)):
        got, squared = float(largest_step(length, gamma)), length**2
        if length != 1 and close(got * length, (1 + 1 / gamma)):
            raise Wrong("the eigenvalue has the squared length of the key in it")
        if gamma != 1 and close(got, 2 / squared):
            raise Wrong("right without decay; what does the decay do to the eigenvalue?")
        if gamma != 1 and close(got, (1 + gamma) / squared):
            raise Wrong("this is for γ − β‖k‖²; here the decay multiplies the whole factor")
        if close(got, 1 / squared):
            raise Wrong("at this β the eigenvalue is 0; it may go on to −1")
        if not close(got, (1 + 1 / gamma) / squared):
            raise Wrong(f"not for ‖k‖ = {length}, γ = {gamma}: solve γ(1 − β‖k‖²) = −1")


@exercise
def ch5_ex3(implicit_step: Callable[..., Tensor]) -> None:
    """The minimiser of ½‖X − S‖² + β/2 ‖Xᵀk − v‖²."""
    (k, *_), (v, *_) = pairs(3)
    S = torch.outer(k.flip(0), v.flip(0)) + 0.3
    for beta in (0.5, 7.0):
        X = of_shape("the new memory", implicit_step(S.clone(), k, v, beta), (5, 4))
        error = v - k @ S
        if same(X, S + beta * torch.outer(k, error)):
            raise Wrong("this is the explicit step: the gradient is taken before the step")
        if same(X, S + beta / (1 + beta) * torch.outer(k, error)):
            raise Wrong("right for keys of length 1 only")
        slope = X - S + beta * torch.outer(k, k @ X - v)
        if not same(slope, torch.zeros_like(slope)):
            size = slope.abs().max().item()
            raise Wrong(f"for β = {beta} the objective still has a slope of {size:.2g} there")


@exercise
def ch5_ex4(best_step: Callable[[float, float], float]) -> None:
    """The β that lowers the expected excess error the most, from the error and the noise."""
    for e, noise in ((1.0, 0.25), (0.01, 0.25), (3.0, 0.01)):
        got = float(best_step(e, noise))
        if close(got, math.sqrt(e) / (math.sqrt(e) + math.sqrt(noise))):
            raise Wrong("the noise is given as a variance, and the error is a square already")
        if close(got, noise / (e + noise)):
            raise Wrong("the noisier the values, the smaller the step should be")
        if close(got, e / noise):
            raise Wrong("without noise the best step would be infinite; it is 1")
        if not close(got, e / (e + noise)):
            raise Wrong(f"not for e = {e}, σ² = {noise}: which β minimises the right-hand side?")


@exercise
def ch5_ex5(objective: Callable[..., tuple[float, Callable[..., Tensor]]]) -> None:
    """Gated DeltaNet as one explicit step from S itself: rate and loss."""
    (k, *_), (v, *_) = pairs(4)
    k = k / k.norm()
    S = torch.outer(k.flip(0), v.flip(0)) + 0.3
    for gamma, beta in ((1.0, 0.5), (0.8, 0.5), (0.6, 1.2)):
        rate, objective_of = pair(objective(k, v, gamma, beta), "the step size and a function of S")
        if not callable(objective_of):
            raise Wrong("the second thing is the loss, a function of S")
        X = S.clone().requires_grad_(True)
        loss = objective_of(X)
        if not isinstance(loss, Tensor) or loss.shape != ():
            raise Wrong("the loss must be one number, as a tensor")
        (gradient,) = torch.autograd.grad(loss, X)
        got = S - rate * gradient
        write = Write(k, v, beta=beta, decay=gamma)
        if same(got, RULES["gated_deltanet"].step(S, write)):
            continue
        if gamma == 1:
            raise Wrong("with γ = 1 it must be the step of DeltaNet")
        if same(got, RULES["deltanet"].step(S, write)):
            raise Wrong("right for γ = 1; nothing fades in your step")
        if same(got, RULES["comba"].step(S, write)):
            raise Wrong("this is Comba: the error is taken before the fading, and not after it")
        raise Wrong(f"not for γ = {gamma}: expand γS(I − βkkᵀ) + βvkᵀ − S and compare the terms "
                    "with S, with Skkᵀ and with vkᵀ")  # fmt: skip


def is_diagonal(x: Tensor) -> bool:
    """Whether a matrix is diagonal, as that with which the memory starts."""
    return x.ndim == 2 and torch.equal(x, x.diagonal().diag())


SOLVERS = Refused(
    ("cholesky_inverse", "cholesky_solve", "inverse", "linalg_inv", "linalg_inv_ex",
     "linalg_lstsq", "linalg_lu_solve", "linalg_pinv", "linalg_solve", "linalg_solve_ex",
     "linalg_solve_triangular", "lu_solve", "pinverse", "triangular_solve"),
    "no system is to be solved: what does the formula make of the last P?",
    unless=is_diagonal,
)  # fmt: skip


@exercise
def ch5_ex6(fit: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Ridge regression token by token, without solving a system: all memories `[T, d, d_v]`."""
    k, v = pairs(9)
    T, d = k.shape

    with SOLVERS:
        found = fit(k, v, 0.5)
    S = of_shape("the memories", found, (T, d, v.shape[1]))
    eye = torch.eye(d, dtype=k.dtype)

    def minimiser(t: int, ridge: float) -> Tensor:
        return torch.linalg.solve(k[:t].T @ k[:t] + ridge * eye, k[:t].T @ v[:t])

    if same(S, S[-1].expand_as(S)):
        raise Wrong("all memories are the same: is it one tensor, changed in place?")
    if not same(S[0], minimiser(1, 0.5)):
        if same(S[0], minimiser(1, 2.0)):
            raise Wrong("P starts as the inverse of the ridge")
        raise Wrong("wrong after the first pair: what are P before it, and the step P k/(1 + kᵀPk)")
    if not same(S[1], minimiser(2, 0.5)):
        raise Wrong("right for the first pair, wrong for the second: has P learnt that it was "
                    "there?")  # fmt: skip
    for t in range(2, T):
        if not same(S[t], minimiser(t + 1, 0.5)):
            raise Wrong(f"wrong from pair {t + 1} on")
