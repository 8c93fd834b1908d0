"""Checks of chapter 3: the kernel view of softmax."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from assocmem.book.check.answer import as_array, close
from assocmem.book.check.exercise import Refused, Wrong, exercise


@exercise
def ch3_ex1(sharpness: Callable[[int, float], float]) -> None:
    """The sharpness that gives one of N orthogonal keys the weight p."""
    for N, p in ((2, 0.9), (100, 0.5), (1000, 0.25)):
        beta = float(sharpness(N, p))
        if close(beta, math.log(N * p / (1 - p))):
            raise Wrong("the right key is one of the N; how many others are there?")
        if close(beta, math.log(N - 1)) and p != 0.5:
            raise Wrong("that is right for p = 1/2; where does p come in?")
        weight = 1 / (1 + (N - 1) * math.exp(-beta))
        if not math.isclose(weight, p, rel_tol=1e-6):
            raise Wrong(f"for N = {N}, p = {p} your β gives the right value the weight "
                        f"{weight:.4g}: what do orthogonal keys score?")  # fmt: skip


@exercise
def ch3_ex2(factor: Callable[[float, float], float]) -> None:
    """By how much a noisy query makes the exponential's noise over signal larger."""
    for beta, cosine in ((4.0, 0.8), (8.0, 0.95), (1.0, -0.5)):
        got = float(factor(beta, cosine))
        if close(got, math.exp(beta * (1 - cosine))):
            raise Wrong("the signal's amplitude shrinks by that; the ratio compares powers")
        if close(got, math.exp(-2 * beta * (1 - cosine))):
            raise Wrong("a worse query cannot make the answer cleaner")
        if close(got, 1 / cosine**2):
            raise Wrong("that is the linear memory; what is the signal e^{qᵀk/τ} now?")
        if not close(got, math.exp(2 * beta * (1 - cosine))):
            raise Wrong(f"not for β = {beta}, cosine = {cosine}: compare the signal κ(q, k_i) with "
                        "κ(k_i, k_i); do the other keys notice?")  # fmt: skip


@exercise
def ch3_ex3(noise: Callable[[int, int, float], float]) -> None:
    """Noise over signal of the hyperbolic cosine with Gaussian keys."""
    for N, d, tau in ((100, 16, 4.0), (2, 9, 5.0), (1000, 64, 8.0)):
        got, signal = float(noise(N, d, tau)), math.cosh(d / tau) ** 2
        right = (N - 1) * (1 + math.exp(2 * d / tau**2)) / 2 / signal
        if close(got, right * N / (N - 1)):
            raise Wrong("the item itself does not disturb its own reading")
        if close(got, (N - 1) * math.exp(2 * d * (1 - tau) / tau**2)):
            raise Wrong("that is the exponential")
        if close(got, (N - 1) * math.exp(d / tau**2) / signal):
            raise Wrong("(E κ)² is the power of the mean; the noise is E κ²")
        if close(got, right * signal):
            raise Wrong("noise over signal: what is κ(k_i, k_i)?")
        if not close(got, right):
            raise Wrong(f"not for N = {N}, d = {d}, τ = {tau}: write cosh² by cosh of twice the "
                        "argument, and use E e^{az} for a Gaussian z")  # fmt: skip


@exercise
def ch3_ex4(phi: Callable[[Tensor], Tensor]) -> None:
    """Features of (1 + qᵀk)², as few as possible."""
    generator = torch.Generator().manual_seed(0)
    for d in (2, 5):
        x = torch.randn(30, d, generator=generator, dtype=torch.float64)
        features, m = as_array("what you return", phi(x)), (d + 1) * (d + 2) // 2
        if features.ndim != 2 or len(features) != 30:
            raise Wrong("map keys [N, d] to features [N, m]")
        G, expected = features @ features.T, (1 + x @ x.T).square()
        # Features may be made in float32, and (1 + qᵀk)² come close to 0.
        alike = functools.partial(torch.allclose, G, rtol=1e-5, atol=1e-4)
        if alike((x @ x.T).square()):
            raise Wrong("this is (qᵀk)²; how can a 1 be part of a dot product?")
        if features.shape[1] == m and not alike(expected):
            raise Wrong("the number of features is right; does a product that stands for two of "
                        "them have the right weight?")  # fmt: skip
        if not alike(expected):
            raise Wrong(f"φ(q)ᵀφ(k) is not (1 + qᵀk)² for d = {d}")
        if features.shape[1] != m:
            raise Wrong(f"right, but with {features.shape[1]} features for d = {d}; {m} are enough")


AT_ONCE = Refused(
    ("amax", "aminmax", "cummax", "log_softmax", "logcumsumexp", "logsumexp", "max", "softmax",
     "sort", "topk"),
    "{name} sees all scores at once; read one at a time",
    unless=lambda x: x.numel() <= 2,  # such as the last maximum and a score
)  # fmt: skip


@exercise
def ch3_ex5(one_pass: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Softmax attention of one query, one key at a time."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(30, generator=generator, dtype=torch.float64)
    values = torch.randn(30, 4, generator=generator, dtype=torch.float64)

    def reading(scores: Tensor) -> Tensor:
        with AT_ONCE:
            o = as_array("what you return", one_pass(scores.clone(), values.clone()))
        if o.shape != (4,):
            raise Wrong("return the answer after the last key, of the size of a value")
        return o

    def error(scores: Tensor) -> float:
        return (reading(scores) - torch.softmax(scores, 0) @ values).norm().item()

    plain = error(scores)
    if torch.allclose(reading(scores), scores.exp() @ values):
        raise Wrong("the weights have to sum to 1")
    if not plain < 1e-6:
        raise Wrong("not the softmax reading, even for small scores: check p_1, which must be 1")
    for shift in (3000.0, -3000.0):
        if not error(scores + shift) < 1e-6:
            raise Wrong(f"right for small scores; with {shift:+.0f} on all of them it is not: "
                        "which of your numbers overflows, or becomes zero?")  # fmt: skip


@exercise
def ch3_ex6(features: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Positive random features in pairs w, −w."""
    generator = torch.Generator().manual_seed(0)
    q, k = 0.15 * torch.randn(2, 1, 8, generator=generator, dtype=torch.float64)
    m, draws = 4, 2000
    estimates = []
    for _ in range(draws):
        w = torch.randn(m, 8, generator=generator, dtype=torch.float64)
        phi_q, phi_k = (as_array("what you return", features(x, w)) for x in (q, k))
        if phi_q.shape != (1, 2 * m):
            raise Wrong(f"map keys [N, d] to [N, 2m] features, here [1, {2 * m}]")
        if not (phi_q > 0).all():
            raise Wrong("a feature is not positive")
        estimates.append((phi_q * phi_k).sum())
    ratio = torch.stack(estimates) / torch.exp(q @ k.T).squeeze()
    power = (q + k).square().sum().item()
    independent = math.expm1(power) / (2 * m)
    mean, variance = ratio.mean().item(), ratio.var().item()
    if math.isclose(mean, 2, rel_tol=0.1):
        raise Wrong("the estimate is twice too large: how many products are summed?")
    if not abs(mean - 1) < 5 * (independent / draws) ** 0.5:
        raise Wrong(f"the mean over {draws} draws is {mean:.3g} of e^(qᵀk): do q and k lose half "
                    "of their squared norm in the exponent?")  # fmt: skip
    # The sample variance is good to a few percent; pairs win a factor of 3 here.
    if not variance < independent * (1 - math.exp(-power)) * 1.2:
        raise Wrong(f"unbiased, with a relative variance of {variance:.3g}; pairs w, −w have "
                    f"{independent * (1 - math.exp(-power)):.3g}")  # fmt: skip
