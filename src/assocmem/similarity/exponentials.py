"""Kernel functions with an exponential in them: their features are infinitely many."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assocmem.arguments import check_positive
from assocmem.similarity.base import Similarity, Tempered, temperature


@dataclass(frozen=True)
class Exponential(Tempered):
    """κ(q, k) = exp(qᵀk / τ), the kernel function of softmax attention (τ = √d when None).

    Its feature map has infinitely many components, the scaled tensor powers of every degree.

    Args:
        tau: temperature τ, √d when None.

    Raises:
        TypeError, ValueError: when tau is not a number, or not finite and > 0.

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> q = torch.tensor([[1.0, 2.0]])
        >>> k = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
        >>> similarity.Exponential(tau=1.0)(q, k)
        tensor([[7.3891, 2.7183]])
    """

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z) = exp(z / τ)."""
        return torch.exp(z / temperature(self.tau, d))


@dataclass(frozen=True)
class SoLU(Tempered):
    """κ(q, k) = qᵀk exp(qᵀk / τ): SoLU of one unit, before its normaliser (τ = √d when None).

    The softmax linear unit multiplies each score by its softmax over the units (Elhage et al.,
    Softmax Linear Units, 2022). Its sum over the units depends on all keys, and is left out here.

    Args:
        tau: temperature τ, √d when None.

    Raises:
        TypeError, ValueError: when tau is not a number, or not finite and > 0.

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> q = torch.tensor([[1.0, 2.0]])
        >>> k = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
        >>> similarity.SoLU(tau=1.0)(q, k)
        tensor([[14.7781,  2.7183]])
    """

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z) = z exp(z / τ)."""
        return z * torch.exp(z / temperature(self.tau, d))


@dataclass(frozen=True)
class RBF(Similarity):
    """κ(q, k) = exp(−‖q − k‖² / 2σ²), the Gaussian kernel function (σ² = √d when None).

    For q and k of fixed norms it is exp(qᵀk / σ²) up to a constant: on a sphere it is the
    exponential kernel function with τ = σ². σ lies between 1e-150 and 1e150, so that σ² is a float.

    Args:
        sigma: width σ, the fourth root of d when None.

    Raises:
        TypeError, ValueError: when sigma is not a number between 1e-150 and 1e150.

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> q = torch.tensor([[1.0, 2.0]])
        >>> k = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
        >>> similarity.RBF(sigma=1.0)(q, k)
        tensor([[0.0821, 0.0821]])
    """

    sigma: float | None = None

    def __post_init__(self) -> None:
        if self.sigma is not None:
            check_width(self.sigma)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """exp(−‖q − k‖² / 2σ²)."""
        variance = temperature(None if self.sigma is None else self.sigma**2, q.shape[-1])
        # Where q is near k the distance is a small difference of large terms.
        dtype = q.dtype
        q, k = q.double(), k.double()
        q_norm, k_norm = q.square().sum(-1, keepdim=True), k.square().sum(-1).unsqueeze(-2)
        distance = q_norm + k_norm - 2 * q @ k.transpose(-1, -2)
        # Rounding can leave −1e-16 where q = k, and κ must not exceed 1. The rate is bounded, so
        # that a distance of 0 is not multiplied by inf.
        rate = min(1 / (2 * variance), torch.finfo(q.dtype).max)
        return torch.exp(-distance.clamp_min(0) * rate).to(dtype)


def check_width(sigma: float) -> None:
    """Raise unless σ is a number whose square a float can hold."""
    check_positive("sigma", sigma)
    if not 1e-150 <= sigma <= 1e150:
        raise ValueError(f"sigma must lie between 1e-150 and 1e150, got {sigma!r}")
