"""Kernel functions that are made from a feature map of finite size, so that S can be a matrix."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from assocmem.arguments import check_count, check_floats, check_seed
from assocmem.similarity.base import (
    Featured,
    check_positive_or_none,
    temperature,
)


def elu_plus_one(x: Tensor) -> Tensor:
    """φ(x) = elu(x) + 1, a positive feature of every number (arXiv:2006.16236, Eq. 7).

    It is e^x for x < 0, and as a sum of elu and 1 would round to 0 there: at −20 in float32, at −8
    in bfloat16.

    Args:
        x: queries or keys, a tensor of floats of any shape.

    Raises:
        TypeError: when x is not a tensor of floats.

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> similarity.elu_plus_one(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0.3679, 1.0000, 2.0000])
    """
    check_floats(x=x)
    # Not clamped: from torch 2.14 on the gradient of a clamp is 0 at its bound.
    return F.relu(x) + x.masked_fill(x > 0, 0.0).exp()


@dataclass(frozen=True)
class EluPlusOne(Featured):
    """κ(q, k) = φ(q)ᵀφ(k) with φ(x) = elu(x) + 1 of size d (arXiv:2006.16236, Eq. 7).

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> q = torch.tensor([[1.0, 2.0]])
        >>> k = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
        >>> similarity.EluPlusOne()(q, k)
        tensor([[9.0000, 6.7358]])
    """

    def features(self, x: Tensor) -> Tensor:
        """φ(x) = elu(x) + 1."""
        return elu_plus_one(x)


@dataclass(frozen=True)
class DPFP(Featured):
    """Deterministic parameter-free projection, of size 2dν (Schlag et al., arXiv:2102.11174).

        φ(x) = concat_{j=1..ν} r ⊙ roll(r, j),    r = (max(0, x), max(0, −x))

    Each feature is the product of two coordinates of r, at distance j around its circle of 2d.

    Args:
        nu: the largest distance ν.

    Raises:
        TypeError, ValueError: when nu is not an integer >= 1.

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> q = torch.tensor([[1.0, 2.0]])
        >>> k = torch.tensor([[2.0, 1.0], [-1.0, 1.0]])
        >>> similarity.DPFP(nu=1)(q, k)
        tensor([[4., 0.]])
    """

    nu: int = 1

    def __post_init__(self) -> None:
        check_count("nu", self.nu)

    def features(self, x: Tensor) -> Tensor:
        """φ(x), of size 2dν."""
        r = torch.cat((x, -x), -1).clamp_min(0)
        return torch.cat([r * r.roll(j, -1) for j in range(1, self.nu + 1)], -1)


@dataclass(frozen=True)
class PositiveRandomFeatures(Featured):
    """The positive random features of FAVOR+ (Choromanski et al., arXiv:2009.14794).

        φ_l(x) = exp(w_lᵀx/√τ − ‖x‖²/2τ) / √m,    E φ(q)ᵀφ(k) = exp(qᵀk/τ)

    with w_l ~ N(0, I) independent, fixed by the seed, and τ = √d when None. FAVOR+ also makes the
    w_l orthogonal, which lowers the variance a little; it is not done here.

    Args:
        m: number of features.
        tau: temperature τ, √d when None.
        seed: of the directions w_l; equal seeds give equal features.

    Raises:
        TypeError, ValueError: when m is not an integer >= 1, tau not finite and > 0, or seed not an
            integer from 0 to 2 ** 63 − 1.

    Example:
        >>> import torch
        >>> from assocmem import similarity
        >>> x = 0.5 * torch.eye(4)
        >>> features = similarity.PositiveRandomFeatures(m=10_000)
        >>> error = features(x, x) / similarity.Exponential()(x, x) - 1
        >>> bool(error.abs().max() < 0.05)
        True
    """

    m: int = 64
    tau: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("m", self.m)
        check_positive_or_none("tau", self.tau)
        check_seed(self.seed, bits=63)  # an operator takes int64

    def features(self, x: Tensor) -> Tensor:
        """φ(x), of size m."""
        x = x / temperature(self.tau, x.shape[-1]) ** 0.5
        w = directions(self.m, x.shape[-1], self.seed).to(x)
        return torch.exp(x @ w.T - x.square().sum(-1, keepdim=True) / 2) / self.m**0.5


@torch.library.custom_op("assocmem::directions", mutates_args=())
def directions(m: int, d: int, seed: int) -> Tensor:
    """m Gaussian vectors `[m, d]`, the same for equal arguments; in a graph one operator."""
    return drawn(m, d, seed).clone()


@directions.register_fake
def _(m, d, seed):
    return torch.empty(m, d, dtype=torch.float64, device="cpu")


@lru_cache
def drawn(m: int, d: int, seed: int) -> Tensor:
    """What `directions` copies, as an operator may not hand out what it keeps."""
    # They outlive the caller, whose default device and inference mode must not stick to them.
    with torch.inference_mode(False):
        generator = torch.Generator("cpu").manual_seed(seed)
        return torch.randn(m, d, generator=generator, dtype=torch.float64, device="cpu")
