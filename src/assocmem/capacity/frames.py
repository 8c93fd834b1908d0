"""The Welch bound on crosstalk for any feature map of size m, and the frames that attain it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from assocmem.arguments import check_count, check_generator


def welch_bound(N: int, m: int) -> float:
    """The least mean noise-to-signal ratio that N items can have with features of size m.

        (1/N) Σ_i Σ_{j≠i} κ_ij² / κ_ii² ≥ N/m − 1                         (book, thm-welch)

    for κ_ij = ψ(k_i)ᵀφ(k_j) with any φ, ψ of size m (Welch 1974 for φ = ψ of unit norm; we extend
    it to reads and writes that differ). Attained by unit-norm tight frames.

    Args:
        N: stored pairs.
        m: size of the features.

    Returns:
        max(0, N/m − 1).

    Raises:
        TypeError, ValueError: when N or m is not an integer >= 1.

    Example:
        >>> from assocmem import capacity
        >>> capacity.welch_bound(N=256, m=64)
        3.0
    """
    check_count("N", N)
    check_count("m", m)
    return max(0.0, N / m - 1)


def tight_frame(N: int, m: int, generator: torch.Generator) -> Tensor:
    """N unit vectors F in R^m with FᵀF = (N/m) I: a random unit-norm tight frame.

    Starts from random orthonormal columns, which are a tight frame with unequal norms, and turns
    pairs of rows into each other until all have norm 1: a rotation of rows leaves FᵀF as it is,
    and each of at most N − 1 rotations sets one norm for good.

    Args:
        N: how many vectors, at least m.
        m: their size.
        generator: the source of randomness.

    Returns:
        `[N, m]`, float64.

    Raises:
        TypeError, ValueError: when m is not an integer >= 1, N not an integer >= m, or generator is
            not a `torch.Generator`.

    Example:
        >>> import torch
        >>> from assocmem import capacity
        >>> F = capacity.tight_frame(N=6, m=3, generator=torch.Generator().manual_seed(0))
        >>> torch.allclose(F.T @ F, 2 * torch.eye(3, dtype=F.dtype))
        True
    """
    check_count("m", m)
    check_count("N", N, at_least=m)
    check_generator(generator)
    random = torch.randn(N, m, generator=generator, device=generator.device, dtype=torch.float64)
    F = torch.linalg.qr(random).Q * math.sqrt(N / m)
    power = F.square().sum(1)
    for _ in range(N - 1):
        short, long = int(power.argmin()), int(power.argmax())
        if power[long] - power[short] < 1e-14:
            break
        F[short], F[long] = shorten(F[short].clone(), F[long].clone())
        # The row that is done must not be picked again: its power is 1 up to rounding.
        power[short], power[long] = 1.0, F[long].square().sum()
    return F


def shorten(short: Tensor, long: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate two rows, of norms below and above 1, into each other so that the first gets norm 1.

    With a, b their squared norms and p their dot product, (short + t·long)/√(1 + t²) has norm 1
    where (b − 1)t² + 2pt + (a − 1) = 0. Of its two roots the smaller is computed, in the form
    that does not subtract what is nearly equal.
    """
    a, b, p = short @ short, long @ long, short @ long
    t = (1 - a) / (p + torch.copysign((p * p + (b - 1) * (1 - a)).sqrt(), p))
    cosine = 1 / (1 + t * t).sqrt()
    return cosine * (short + t * long), cosine * (long - t * short)
