"""Nearest-value decoding: how often the value most like the answer is the right one."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from assocmem import similarity as kernel_functions
from assocmem.arguments import check_count
from assocmem.capacity.inputs import check_pairs
from assocmem.capacity.retrieval import BLOCK, relative
from assocmem.capacity.vectors import unit
from assocmem.ops.readable import known
from assocmem.similarity import Similarity


def nearest_value_accuracy(
    keys: Tensor,
    values: Tensor,
    similarity: str | Similarity = "linear",
    queries: Tensor | None = None,
) -> Tensor:
    """Share of the items whose own value is the nearest in angle to what the memory answers.

        (1/N) #{ i : argmax_j v_jᵀo_i / ‖v_j‖ = i },    o_i = Σ_j κ(q_i, k_j) v_j

    The angle, not the distance: the scale of the answer is not known to its reader.

    Args:
        keys: stored keys `[N, d]`.
        values: stored values `[N, d_v]`, the candidates.
        similarity: κ, a name or a `Similarity`.
        queries: the query `[N, d]` that asks for each item; the keys themselves when None.

    Returns:
        A scalar in [0, 1], or NaN where an answer is not finite.

    Raises:
        TypeError: when an argument is not a floating-point tensor, or dtypes differ.
        ValueError: when shapes or devices differ, N = 0, or a value is 0, which has no angle.

    Example:
        >>> import torch
        >>> from assocmem import capacity
        >>> keys = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> capacity.nearest_value_accuracy(keys, values).item()
        1.0
    """
    queries = check_pairs(keys, values, queries)
    kappa = kernel_functions.get(similarity)
    if known(lambda: not bool(values.any(-1).all()), values):
        raise ValueError("values must not be 0, which has no angle, got a row of zeros")
    candidates = unit(relative(values))
    rows = max(1, BLOCK // len(keys))
    # Half precision does not count beyond 256.
    hits = torch.zeros((), dtype=torch.int64, device=keys.device)
    lost = torch.zeros((), dtype=keys.dtype, device=keys.device)  # NaN once an answer is
    for start in range(0, len(keys), rows):
        o = kappa(queries[start : start + rows], keys) @ values
        lost = lost + (o - o).sum()
        nearest = (o @ candidates.T).argmax(-1)
        items = torch.arange(start, start + len(o), device=keys.device)
        hits = hits + (nearest == items).sum()
    return (hits.double() / len(keys)).to(keys.dtype) + lost


def accuracy_linear(N: int, d: int, d_v: int) -> float:
    """Expected `nearest_value_accuracy` of a linear memory of random pairs.

    With Gaussian crosstalk of power σ² = (N − 1)/d, spread evenly over d_v directions, the right
    value scores 1 + e, e = σx/√d_v, and each of N − 1 wrong ones s·y, with x, y ~ N(0, 1),
    s² = 1/d + ‖o‖²/d_v and ‖o‖² = (1 + e)² + σ²(1 − 1/d_v). The term 1/d is there because a wrong
    value is itself part of the crosstalk. So

        accuracy = E_x Φ((1 + e)/s)^{N−1}                                (book, eq-decoding)

    The wrong scores are neither quite Gaussian nor independent: the prediction is low, by up to
    0.06 at d = 32, d_v = 64. For other sums of vectors the formula is that of Frady et al.
    (arXiv:1803.00412).

    Args:
        N: stored pairs.
        d: size of a key; keys of one norm, uniform on the sphere or Gaussian.
        d_v: size of a value; values of one norm, uniform on the sphere.

    Raises:
        TypeError, ValueError: when an argument is not an integer >= 1.

    Example:
        >>> from assocmem import capacity
        >>> [round(capacity.accuracy_linear(N, d=64, d_v=64), 3) for N in (8, 256)]
        [1.0, 0.716]
    """
    N, d, d_v = check_count("N", N), check_count("d", d), check_count("d_v", d_v)
    x, weight = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(80))
    noise = (N - 1) / d
    right = 1 + math.sqrt(noise / d_v) * x
    answer = right.square() + noise * (1 - 1 / d_v)
    spread = (1 / d + answer / d_v).sqrt()
    log_all_below = (N - 1) * torch.special.log_ndtr(right / spread)
    return (weight @ log_all_below.exp() / weight.sum()).clamp_max(1.0).item()
