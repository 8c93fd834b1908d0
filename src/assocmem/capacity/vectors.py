"""Random unit vectors: spread over the whole sphere, or crowded in a cone around one direction."""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem.arguments import check_count, check_floating_dtype, check_fraction, check_generator


def sphere(
    N: int, d: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> Tensor:
    """N independent unit vectors, uniform on the sphere: cosines have mean 0, variance 1/d.

    Args:
        N: how many.
        d: their size.
        generator: the source of randomness.
        dtype: a floating-point type.

    Returns:
        Unit vectors `[N, d]`.

    Raises:
        TypeError, ValueError: when N < 0 or d < 1, they are not integers, generator is not a
            `torch.Generator`, or dtype is not a floating dtype.

    Example:
        >>> import torch
        >>> from assocmem import capacity
        >>> x = capacity.sphere(N=3, d=64, generator=torch.Generator().manual_seed(0))
        >>> torch.allclose(x.norm(dim=-1), torch.ones(3, dtype=x.dtype))
        True
    """
    check_count("N", N, at_least=0)
    check_count("d", d)
    check_generator(generator)
    check_floating_dtype(dtype)
    return unit(torch.randn(N, d, generator=generator, device=generator.device, dtype=dtype))


def cone(
    N: int, d: int, cosine: float, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> Tensor:
    """N random unit vectors that share a mean direction, with mean cosine ρ between any two.

    x_j = √ρ u + √(1 − ρ) w_j, with u one random unit vector and w_j independent, uniform on the
    unit sphere orthogonal to u. Hence x_iᵀx_j = ρ + (1 − ρ) w_iᵀw_j (book, eq-cone).

    Args:
        N: how many.
        d: their size, at least 2.
        cosine: ρ in [0, 1]; 0 leaves vectors without a mean, in d − 1 dimensions.
        generator: the source of randomness.
        dtype: a floating-point type.

    Returns:
        Unit vectors `[N, d]`.

    Raises:
        TypeError, ValueError: when N, d or cosine is out of range, generator is not a
            `torch.Generator`, or dtype is not a floating dtype.

    Example:
        >>> import torch
        >>> from assocmem import capacity
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = capacity.cone(N=500, d=64, cosine=0.3, generator=generator)
        >>> off = (x @ x.T).sum() - 500  # less the cosines with themselves
        >>> round((off / (500 * 499)).item(), 2)
        0.3
    """
    check_count("N", N, at_least=0)
    check_count("d", d, at_least=2)
    check_fraction("cosine", cosine)
    check_generator(generator)
    u = sphere(1, d, generator, dtype)
    w = torch.randn(N, d, generator=generator, device=generator.device, dtype=dtype)
    w = unit(w - (w @ u.T) * u)
    return cosine**0.5 * u + (1 - cosine) ** 0.5 * w


def unit(x: Tensor) -> Tensor:
    """x over its norm, along the last dimension."""
    return x / x.norm(dim=-1, keepdim=True)
