"""Kernel functions that cut or bend qᵀk, as the activations of a feed-forward layer do.

None of them is positive definite, so no feature map exists: a memory with one keeps its keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from assocmem.arguments import check_count, check_positive
from assocmem.similarity.base import DotProduct, Tempered, temperature


@dataclass(frozen=True)
class ReLU(DotProduct):
    """κ(q, k) = max(0, qᵀk)^power, the kernel function of a ReLU feed-forward layer.

    Args:
        power: 1 for ReLU, 2 for the squared ReLU of Primer (arXiv:2109.08668).

    Raises:
        TypeError, ValueError: when power is not an integer >= 1.

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> q = torch.tensor([[1.0, 2.0]])
        >>> k = torch.tensor([[2.0, 0.0], [-2.0, 0.0]])
        >>> similarity.ReLU(power=2)(q, k)
        tensor([[4., 0.]])
    """

    power: int = 1

    def __post_init__(self) -> None:
        check_count("power", self.power)

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z) = max(0, z)^power."""
        return z.clamp_min(0) ** self.power


@dataclass(frozen=True)
class GELU(Tempered):
    """κ(q, k) = u Φ(u), u = qᵀk / τ, with Φ the normal distribution function (τ = √d when None).

    Args:
        tau: temperature τ, √d when None.

    Raises:
        TypeError, ValueError: when tau is not a number, or not finite and > 0.

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> q = torch.tensor([[1.0, 2.0]])
        >>> k = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
        >>> similarity.GELU(tau=1.0)(q, k)
        tensor([[1.9545, 0.8413]])
    """

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z) = u Φ(u), u = z / τ (arXiv:1606.08415)."""
        return F.gelu(z / temperature(self.tau, d))


@dataclass(frozen=True)
class SiLU(Tempered):
    """κ(q, k) = u σ(u), u = qᵀk / τ, with σ the logistic function (τ = √d when None).

    Args:
        tau: temperature τ, √d when None.

    Raises:
        TypeError, ValueError: when tau is not a number, or not finite and > 0.

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> q = torch.tensor([[1.0, 2.0]])
        >>> k = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
        >>> similarity.SiLU(tau=1.0)(q, k)
        tensor([[1.7616, 0.7311]])
    """

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z) = u σ(u), u = z / τ."""
        return F.silu(z / temperature(self.tau, d))


@dataclass(frozen=True)
class Round(DotProduct):
    """κ(q, k) = qᵀk / τ rounded to the nearest integer (τ = 1, for keys of norm 1).

    Keys whose cosines stay below ½ do not see each other at all, and are read without crosstalk.
    Its gradient is zero almost everywhere: it is for constructions, not for training.

    Args:
        tau: the product qᵀk that counts as 1.

    Raises:
        TypeError, ValueError: when tau is not a number, or not finite and > 0.

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> q = torch.tensor([[1.0, 2.0]])
        >>> k = torch.tensor([[0.3, 0.0], [0.2, 0.3]])
        >>> similarity.Round()(q, k)
        tensor([[0., 1.]])
    """

    tau: float = 1.0

    def __post_init__(self) -> None:
        check_positive("tau", self.tau)

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z) = z / τ, rounded; halves go to the even neighbour."""
        return (z / self.tau).round()
