"""Kernel functions that are polynomials of qᵀk: their features are tensor powers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assocmem.arguments import check_count
from assocmem.similarity.base import (
    DotProduct,
    Featured,
    check_positive_or_none,
    temperature,
)


@dataclass(frozen=True)
class Linear(DotProduct, Featured):
    """κ(q, k) = qᵀk, with φ(x) = x: linear attention (arXiv:2505.19488, Eq. 1).

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> q = torch.tensor([[1.0, 2.0]])
        >>> k = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
        >>> similarity.Linear()(q, k)
        tensor([[2., 1.]])
    """

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z) = z."""
        return z

    def features(self, x: Tensor) -> Tensor:
        """φ(x) = x, of size d."""
        return x


@dataclass(frozen=True)
class Polynomial(DotProduct, Featured):
    """κ(q, k) = (qᵀk)^degree, with φ(x) = x ⊗ … ⊗ x of size d^degree (arXiv:1606.01164).

    Args:
        degree: of the polynomial.

    Raises:
        TypeError, ValueError: when degree is not an integer >= 1.

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> q = torch.tensor([[1.0, 2.0]])
        >>> k = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
        >>> similarity.Polynomial(degree=2)(q, k)
        tensor([[4., 1.]])
    """

    degree: int = 2

    def __post_init__(self) -> None:
        check_count("degree", self.degree)

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z) = z^degree."""
        return z**self.degree

    def features(self, x: Tensor) -> Tensor:
        """φ(x) = the degree-fold tensor power of x, flattened to size d^degree."""
        return tensor_power(x, self.degree)


@dataclass(frozen=True)
class Taylor(DotProduct, Featured):
    """κ(q, k) = Σ_{p ≤ degree} (qᵀk/τ)^p / p!, the exponential cut off (τ = √d when None).

    Degree 2 is the feature map of Based (arXiv:2402.18668), of size 1 + d + d². For odd degrees κ
    turns negative where qᵀk/τ is well below −1.

    Args:
        degree: the last power that is kept.
        tau: temperature τ, √d when None.

    Raises:
        TypeError, ValueError: when degree is not an integer >= 1, or tau not finite and > 0.

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> q = torch.tensor([[1.0, 2.0]])
        >>> k = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
        >>> similarity.Taylor(degree=2, tau=1.0)(q, k)
        tensor([[5.0000, 2.5000]])
    """

    degree: int = 2
    tau: float | None = None

    def __post_init__(self) -> None:
        check_count("degree", self.degree)
        check_positive_or_none("tau", self.tau)

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z) = Σ_{p ≤ degree} (z/τ)^p / p!."""
        u = z / temperature(self.tau, d)
        total = torch.ones_like(u)
        for p in range(self.degree, 0, -1):  # Horner's scheme
            total = 1 + total * u / p
        return total

    def features(self, x: Tensor) -> Tensor:
        """φ(x) = all tensor powers x^{⊗p} / √(τ^p p!) up to the degree, of size Σ_p d^p."""
        scaled = x / temperature(self.tau, x.shape[-1]) ** 0.5
        parts = [torch.ones_like(x[..., :1])]
        for p in range(1, self.degree + 1):
            # One factor √p at a time: p! itself is no float beyond p = 170.
            parts.append(tensor_product(parts[-1], scaled) / p**0.5)
        return torch.cat(parts, -1)


def tensor_power(x: Tensor, degree: int) -> Tensor:
    """x ⊗ … ⊗ x, flattened to `[..., d^degree]`."""
    power = x
    for _ in range(degree - 1):
        power = tensor_product(power, x)
    return power


def tensor_product(x: Tensor, y: Tensor) -> Tensor:
    """x ⊗ y of `[..., m]` and `[..., d]`, flattened to `[..., m d]`."""
    return (x.unsqueeze(-1) * y.unsqueeze(-2)).flatten(-2)
