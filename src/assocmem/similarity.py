"""Kernel functions κ(q, k): how alike a query and a key are, and the feature map behind it.

A memory that stores pairs (k_i, v_i) answers a query with Σ_i κ(q, k_i) v_i. The kernel function
κ is all that separates linear attention from softmax attention and from a feed-forward layer.
Every function here depends on the dot product alone, κ(q, k) = f(qᵀk), and is given by its
`profile` f. Where κ(q, k) = φ(q)ᵀφ(k) with φ of finite size, `feature_map` is φ; otherwise it
is None, and the memory has to keep its keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Similarity:
    """A kernel function of the dot product, κ(q, k) = f(qᵀk)."""

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z), elementwise, for dot products z of vectors of size d."""
        raise NotImplementedError

    @property
    def feature_map(self) -> Callable[[Tensor], Tensor] | None:
        """φ with κ(q, k) = φ(q)ᵀφ(k), from `[..., d]` to `[..., m]`; None where m is not finite."""
        return None

    def __call__(self, q: Tensor, k: Tensor) -> Tensor:
        """Scores κ(q_t, k_i) of every query with every key.

        Args:
            q: queries `[..., T, d]`.
            k: keys `[..., N, d]`.

        Returns:
            Scores `[..., T, N]`.

        Raises:
            ValueError: when the last sizes of q and k differ.
        """
        if q.shape[-1] != k.shape[-1]:
            raise ValueError(
                f"k must have last size {q.shape[-1]} like q, got shape {list(k.shape)}"
            )
        return self.profile(q @ k.transpose(-1, -2), q.shape[-1])


@dataclass(frozen=True)
class Linear(Similarity):
    """κ(q, k) = qᵀk, with φ(x) = x: linear attention (arXiv:2505.19488, Eq. 1)."""

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z) = z."""
        return z

    @property
    def feature_map(self) -> Callable[[Tensor], Tensor]:
        """φ(x) = x, of size d."""
        return lambda x: x


@dataclass(frozen=True)
class Polynomial(Similarity):
    """κ(q, k) = (qᵀk)^degree, with φ(x) = x ⊗ … ⊗ x of size d^degree (arXiv:1606.01164)."""

    degree: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.degree, int) or self.degree < 1:
            raise ValueError(f"degree must be an integer >= 1, got {self.degree!r}")

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z) = z^degree."""
        return z**self.degree

    @property
    def feature_map(self) -> Callable[[Tensor], Tensor]:
        """φ(x) = the degree-fold tensor power of x, flattened to size d^degree."""

        def phi(x: Tensor) -> Tensor:
            y = x
            for _ in range(self.degree - 1):
                y = (y.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)
            return y

        return phi


@dataclass(frozen=True)
class Exponential(Similarity):
    """κ(q, k) = exp(qᵀk / τ), the kernel function of softmax attention (τ = √d when None).

    Its feature map has infinitely many components, the scaled tensor powers of every degree.
    """

    tau: float | None = None

    def __post_init__(self) -> None:
        if self.tau is not None and not self.tau > 0:
            raise ValueError(f"tau must be > 0, got {self.tau!r}")

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z) = exp(z / τ)."""
        return torch.exp(z / (d**0.5 if self.tau is None else self.tau))


@dataclass(frozen=True)
class ReLU(Similarity):
    """κ(q, k) = max(0, qᵀk)^power, the kernel function of a ReLU feed-forward layer.

    It is not positive definite, so no feature map exists: a memory with it keeps its keys.
    """

    power: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.power, int) or self.power < 1:
            raise ValueError(f"power must be an integer >= 1, got {self.power!r}")

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z) = max(0, z)^power."""
        return z.clamp_min(0) ** self.power


linear = Linear()
polynomial = Polynomial()
exponential = Exponential()
relu = ReLU()

SIMILARITIES: dict[str, Similarity] = {
    "linear": linear,
    "polynomial": polynomial,
    "exponential": exponential,
    "relu": relu,
}


def get(similarity: str | Similarity) -> Similarity:
    """The kernel function of that name, or the one given.

    Raises:
        ValueError: when the name is not in `SIMILARITIES`.
        TypeError: when it is neither a name nor a `Similarity`.
    """
    if isinstance(similarity, Similarity):
        return similarity
    if not isinstance(similarity, str):
        raise TypeError(
            f"similarity must be a name or a Similarity, got {type(similarity).__name__}"
        )
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity must be one of {sorted(SIMILARITIES)}, got {similarity!r}")
    return SIMILARITIES[similarity]
