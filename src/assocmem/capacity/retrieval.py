"""The retrieval signal-to-noise ratio, measured on given pairs or on seeded random ones.

A memory with kernel function κ answers with o_i = Σ_j κ(q_i, k_j) v_j = c_i v_i + r_i, where
c_i = κ(q_i, k_i) is the scale of the signal and r_i the crosstalk of all other pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from assocmem import similarity as kernel_functions
from assocmem.arguments import check_count, check_generator
from assocmem.capacity.inputs import check_keys, check_pairs
from assocmem.capacity.vectors import sphere, unit
from assocmem.similarity import Similarity

BLOCK = 2**22  # scores held at a time: 32 MiB in float64, whatever N is


def noise_to_signal(
    keys: Tensor,
    values: Tensor,
    similarity: str | Similarity = "linear",
    queries: Tensor | None = None,
) -> Tensor:
    """How much louder than its value the crosstalk of each item is, in power.

        ‖r_i‖² / (c_i² ‖v_i‖²),    c_i = κ(q_i, k_i),    r_i = Σ_{j≠i} κ(q_i, k_j) v_j

    This is what the retrieval SNR of arXiv:2505.19488 (§2.1) averages. The scores must be finite
    in the dtype of the keys: exp(z/τ) needs z/τ < 709 in float64, < 88 in float32. A ratio beyond
    the range of the dtype is inf, or 0.

    Args:
        keys: stored keys `[N, d]`.
        values: stored values `[N, d_v]`.
        similarity: κ, a name or a `Similarity`.
        queries: the query `[N, d]` that asks for each item; the keys themselves when None.

    Returns:
        `[N]`, differentiable; inf for an item whose signal is 0, NaN for one with a score that is
        not finite.

    Raises:
        TypeError: when an argument is not a floating-point tensor, or dtypes differ.
        ValueError: when shapes or devices differ, or N = 0.

    Example:
        >>> import torch
        >>> from assocmem import capacity
        >>> keys = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        >>> capacity.noise_to_signal(keys, torch.ones(2, 1))  # the cosine, squared
        tensor([0.3600, 0.3600])
    """
    queries = check_pairs(keys, values, queries)
    kappa = kernel_functions.get(similarity)
    lengths = length(values)
    rows = max(1, BLOCK // len(keys))
    ratios = []
    for start in range(0, len(keys), rows):
        scores = relative(kappa(queries[start : start + rows], keys))
        c = scores.diagonal(offset=start)
        # The item's own score is taken out before the sum: o − c v would lose a small r to
        # rounding, and with it every SNR above 1e15.
        r = scores.diagonal_scatter(torch.zeros_like(c), offset=start) @ values
        v = lengths[start : start + rows]
        # One after the other: c ‖v‖ could be below the range of floats.
        r = r / v.masked_fill(v == 0, 1.0).unsqueeze(-1)
        ratios.append(power_ratio(r, c.masked_fill(v == 0, 0.0)))
    return torch.cat(ratios)


def length(x: Tensor) -> Tensor:
    """‖x‖ of rows `[..., d]`, also where their squares are no floats."""
    size = x.detach().abs().sum(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return (x / size).norm(dim=-1) * size.squeeze(-1)


def relative(x: Tensor) -> Tensor:
    """Rows, such as the scores of a query, over their largest entry in size: no ratio within a row
    changes, and squares are floats.
    """
    return x / x.detach().abs().amax(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


def power_ratio(noise: Tensor, signal: Tensor) -> Tensor:
    """‖noise‖²/signal² of noise `[..., d_v]` and signal `[...]`; inf where the signal is 0."""
    silent = signal == 0
    ratio = noise / signal.masked_fill(silent, 1.0).unsqueeze(-1)
    return ratio.square().sum(-1).masked_fill(silent, math.inf)


def retrieval_snr(
    keys: Tensor,
    values: Tensor,
    similarity: str | Similarity = "linear",
    queries: Tensor | None = None,
) -> Tensor:
    """The retrieval signal-to-noise ratio of a memory that holds these pairs.

        SNR⁻¹ = (1/N) Σ_i ‖r_i‖² / (c_i² ‖v_i‖²)                         (book, eq-snr)

    with signal scale c_i and crosstalk r_i as in `noise_to_signal` (arXiv:2505.19488, §2.1, with
    the expectation taken over the stored items).

    Args:
        keys: stored keys `[N, d]`.
        values: stored values `[N, d_v]`.
        similarity: κ, a name or a `Similarity`.
        queries: the query `[N, d]` that asks for each item; the keys themselves when None.

    Returns:
        The SNR, a differentiable scalar; inf when N = 1.

    Raises:
        TypeError, ValueError: as `noise_to_signal`.

    Example:
        >>> import torch
        >>> from assocmem import capacity
        >>> keys = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        >>> round(capacity.retrieval_snr(keys, torch.ones(2, 1)).item(), 3)  # 1 / 0.6²
        2.778
    """
    return 1 / noise_to_signal(keys, values, similarity, queries).mean()


@dataclass(frozen=True)
class MonteCarlo:
    """Noise-to-signal ratios of independent memories: their mean, its standard error, the median.

    The median is the typical value. Far below the mean, it says that rare draws carry the mean,
    and that the standard error cannot be trusted. `median_range` holds the median of the law that
    is sampled whatever that law is, except once in 2,000 times: the order statistics 3.5
    standard deviations of a binomial count to either side.
    """

    mean: float
    standard_error: float
    median: float
    median_range: tuple[float, float]

    @property
    def snr(self) -> float:
        """The SNR, 1 / mean; inf where there is no noise."""
        return math.inf if self.mean == 0 else 1 / self.mean


def monte_carlo(
    N: int,
    d: int,
    similarity: str | Similarity = "linear",
    *,
    keys: str = "gaussian",
    d_v: int = 64,
    draws: int = 1000,
    generator: torch.Generator | None = None,
) -> MonteCarlo:
    """‖r‖² / (c² ‖v‖²) over independent memories of N random pairs, one item read in each.

    Only one item per memory is read: the items of one memory share their crosstalk, and their
    spread would understate the error. Values are uniform on the unit sphere, so that all have
    equal power.

    Args:
        N: stored pairs, at least 2.
        d: size of a key.
        similarity: κ, a name or a `Similarity`.
        keys: "gaussian": N(0, I), the key that is read scaled to norm √d; "gaussian-random":
            N(0, I) for all; "sphere": all uniform on the sphere of radius √d.
        d_v: size of a value.
        draws: memories, at least 2.
        generator: the source of randomness; a new one with seed 0 when None, so that equal calls
            give equal numbers.

    Raises:
        TypeError, ValueError: when a size is not an integer or too small, a name is unknown,
            generator is not a `torch.Generator`, or a score is not finite.

    Example:
        >>> from assocmem import capacity
        >>> measured = capacity.monte_carlo(N=65, d=64)
        >>> abs(measured.mean - 1) < 4 * measured.standard_error  # noise over signal is (N − 1)/d
        True
    """
    N, d, d_v = check_count("N", N, 2), check_count("d", d), check_count("d_v", d_v)
    draws = check_count("draws", draws, 2)
    check_keys(keys)
    kappa = kernel_functions.get(similarity)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    check_generator(generator)
    batch = max(1, BLOCK // (N * (d + d_v)))
    ratios = torch.cat(
        [
            one_reading_each(min(batch, draws - done), N, d, d_v, kappa, keys, generator)
            for done in range(0, draws, batch)
        ]
    )
    spread = ratios.std().item() if ratios.isfinite().all() else math.inf
    ordered, aside = ratios.sort().values.tolist(), math.ceil(3.5 * draws**0.5 / 2)
    low, high = max(0, draws // 2 - aside), min(draws - 1, draws // 2 + aside)
    median = ratios.median().item()
    error = spread / draws**0.5
    return MonteCarlo(ratios.mean().item(), error, median, (ordered[low], ordered[high]))


def one_reading_each(
    memories: int,
    N: int,
    d: int,
    d_v: int,
    kappa: Similarity,
    keys: str,
    generator: torch.Generator,
) -> Tensor:
    """Noise-to-signal ratios `[memories]` of the first of N items, in independent memories."""
    like = {"device": generator.device, "dtype": torch.float64}
    k = torch.randn(memories, N, d, generator=generator, **like)
    if keys == "sphere":
        k = d**0.5 * unit(k)
    elif keys == "gaussian":
        k[:, 0] = d**0.5 * unit(k[:, 0])
    v = sphere(memories * N, d_v, generator).view(memories, N, d_v)
    scores = kappa(k[:, :1], k)
    if not scores.isfinite().all():
        raise ValueError("similarity must have scores that are finite in float64 for these keys")
    scores = relative(scores)
    r = (scores[..., 1:] @ v[:, 1:]).squeeze(1)
    return power_ratio(r, scores[:, 0, 0])
