"""Kernel functions with an exponential in them: their features are infinitely many."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assocmem.similarity.base import Similarity, Tempered, check_positive_or_none, temperature


@dataclass(frozen=True)
class Exponential(Tempered):
    """κ(q, k) = exp(qᵀk / τ), the kernel function of softmax attention (τ = √d when None).

    Its feature map has infinitely many components, the scaled tensor powers of every degree.

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
    exponential kernel function with τ = σ².

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
        check_positive_or_none("sigma", self.sigma)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """exp(−‖q − k‖² / 2σ²)."""
        variance = temperature(None if self.sigma is None else self.sigma**2, q.shape[-1])
        # Where q is near k the distance is a small difference of large terms.
        dtype = q.dtype
        q, k = (x.to(torch.promote_types(dtype, torch.float32)) for x in (q, k))
        q_norm, k_norm = q.square().sum(-1, keepdim=True), k.square().sum(-1).unsqueeze(-2)
        distance = q_norm + k_norm - 2 * q @ k.transpose(-1, -2)
        # Rounding can leave −1e-16 where q = k, and κ must not exceed 1.
        return torch.exp(-distance.clamp_min(0) / (2 * variance)).to(dtype)
