"""What all kernel functions have in common, and the two ways in which one is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from assocmem.arguments import check_device, check_floats, check_positive


@dataclass(frozen=True)
class Similarity:
    """A kernel function κ(q, k): how alike a query and a key are."""

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """κ of every query `[..., T, d]` with every key `[..., N, d]`, `[..., T, N]`."""
        raise NotImplementedError(f"{type(self).__name__} must define scores(q, k)")

    @property
    def feature_map(self) -> Callable[[Tensor], Tensor] | None:
        """φ with κ(q, k) = φ(q)ᵀφ(k), from `[..., d]` to `[..., m]`; None where m is not finite."""
        return None

    def __call__(self, q: Tensor, k: Tensor) -> Tensor:
        """Scores κ(q_t, k_i) of every query with every key.

        Args:
            q: queries `[..., T, d]`, or one query `[d]`.
            k: keys `[..., N, d]`; leading sizes broadcast against those of q.

        Returns:
            Scores `[..., T, N]`, or `[..., N]` of one query.

        Raises:
            TypeError: when q or k is not a tensor of floats, or their dtypes differ.
            ValueError: when the shapes of q and k do not go together, d = 0, their devices differ,
                or `scores` are of another shape.
        """
        check_floats(q=q, k=k)
        if q.ndim == 1:
            return self(q[None], k)[..., 0, :]
        for name, x, rows in (("q", q, "T"), ("k", k, "N")):
            if x.ndim < 2 or x.shape[-1] == 0:
                raise ValueError(
                    f"{name} must have shape [..., {rows}, d] with d >= 1, got {list(x.shape)}"
                )
        if q.shape[-1] != k.shape[-1]:
            raise ValueError(
                f"k must have last size {q.shape[-1]} like q, got shape {list(k.shape)}"
            )
        check_device("k", k, q, "q")
        leading = q.shape[:-2] if q.shape[:-2] == k.shape[:-2] else broadcast(q, k)
        scores, expected = self.scores(q, k), (*leading, q.shape[-2], k.shape[-2])
        came = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        if came != list(expected):
            raise ValueError(
                f"scores of {self} must have shape [..., T, N] = {list(expected)}, got {came}"
            )
        return scores


@dataclass(frozen=True)
class DotProduct(Similarity):
    """A kernel function of the dot product alone, κ(q, k) = f(qᵀk), given by its `profile` f.

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> class Cube(similarity.DotProduct):
        ...     def profile(self, z, d):
        ...         return z**3
        >>> q, k = torch.tensor([[2.0]]), torch.tensor([[1.0], [-1.0]])
        >>> Cube()(q, k)
        tensor([[ 8., -8.]])
    """

    def profile(self, z: Tensor, d: int) -> Tensor:
        """f(z), elementwise, for dot products z of vectors of size d."""
        raise NotImplementedError(f"{type(self).__name__} must define profile(z, d)")

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """f(qᵀk)."""
        return self.profile(q @ k.transpose(-1, -2), q.shape[-1])


@dataclass(frozen=True)
class Tempered(DotProduct):
    """A kernel function of the dot product over a temperature, u = qᵀk / τ (τ = √d when None)."""

    tau: float | None = None

    def __post_init__(self) -> None:
        check_positive_or_none("tau", self.tau)


@dataclass(frozen=True)
class Featured(Similarity):
    """A kernel function that is given by its features, κ(q, k) = φ(q)ᵀφ(k).

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> class Signs(similarity.Featured):
        ...     def features(self, x):
        ...         return x.sign()
        >>> q, k = torch.tensor([[0.3, -2.0]]), torch.tensor([[5.0, -1.0], [1.0, 1.0]])
        >>> Signs()(q, k)
        tensor([[2., 0.]])
    """

    def features(self, x: Tensor) -> Tensor:
        """φ(x), from `[..., d]` to `[..., m]`."""
        raise NotImplementedError(f"{type(self).__name__} must define features(x)")

    @property
    def feature_map(self) -> Callable[[Tensor], Tensor]:
        """φ, which is `features`; a ValueError where these are of another shape."""
        return self._checked_features

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """φ(q)ᵀφ(k)."""
        return self.feature_map(q) @ self.feature_map(k).transpose(-1, -2)

    def _checked_features(self, x: Tensor) -> Tensor:
        phi = self.features(x)
        came = list(phi.shape) if isinstance(phi, Tensor) else type(phi).__name__
        if not isinstance(phi, Tensor) or phi.ndim != x.ndim or phi.shape[:-1] != x.shape[:-1]:
            expected = ", ".join(map(str, [*x.shape[:-1], "m"]))
            raise ValueError(
                f"features of {self} must have shape [..., m] = [{expected}], got {came}"
            )
        return phi


def broadcast(q: Tensor, k: Tensor) -> torch.Size:
    """The leading sizes of queries and keys together.

    Raises:
        ValueError: when they do not broadcast.
    """
    try:
        return torch.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    except RuntimeError as error:
        raise ValueError(
            f"k must have leading sizes that broadcast with {list(q.shape[:-2])} of q, "
            f"got shape {list(k.shape)}"
        ) from error


def temperature(tau: float | None, d: int) -> float:
    """τ, √d when None: the temperature of attention."""
    return math.sqrt(d) if tau is None else tau


def check_positive_or_none(name: str, value: float | None) -> None:
    """Raise unless `value` is None or a finite number above 0."""
    if value is not None:
        check_positive(name, value)
