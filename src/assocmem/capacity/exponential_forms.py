"""The retrieval SNR of the exponential kernel functions in closed form, and where it freezes.

The assumptions and the three kinds of keys are those of `closed_forms`. All values here are means
over draws. Well below the freezing temperature, rare draws carry the mean, and a typical memory
does better by orders of magnitude: `snr_typical`.
"""

from __future__ import annotations

import math

import torch

from assocmem.arguments import check_count, check_positive
from assocmem.capacity.inputs import check_keys


def snr_exponential(N: int, d: int, tau: float | None = None, keys: str = "gaussian") -> float:
    """SNR of κ(q, k) = exp(qᵀk/τ), τ = √d when None (we derive).

    Given k_i, with s² = ‖k_i‖²: E e^{2z/τ} = e^{2s²/τ²} against c² = e^{2s²/τ}. With s² = d that
    is SNR = exp(2d(τ − 1)/τ²)/(N − 1). With s² ~ χ²_d, SNR = (1 − 4a)^{d/2}/(N − 1) where
    a = (1 − τ)/τ², and 0 where 4a ≥ 1 (τ ≤ 2√2 − 2). On the sphere, with β = d/τ,

        SNR = e^{2β} / ((N − 1) · ₀F₁(; d/2; β²)),    E e^{2β cos θ} = ₀F₁(; d/2; β²).

    Args:
        N: stored pairs.
        d: size of a key.
        tau: temperature τ, in units of qᵀk.
        keys: "gaussian", "gaussian-random" or "sphere".

    Raises:
        TypeError, ValueError: when N or d is no integer >= 1, tau is not finite and > 0, or keys
            is unknown.

    Example:
        >>> from assocmem import capacity
        >>> round(capacity.snr_exponential(N=65, d=64), 1)
        18790.7
    """
    tau = checked(N, d, tau, keys)
    return snr(N, log_noise(d, tau, keys))


def snr_solu(N: int, d: int, tau: float | None = None, keys: str = "gaussian") -> float:
    """SNR of κ(q, k) = qᵀk exp(qᵀk/τ), τ = √d when None (we derive).

    With Gaussian keys the noise is that of the exponential times 1/d + 4/τ²; with a random k_i,
    times (1 − 4a)/(d − 2) + 4/τ², where a = (1 − τ)/τ². On the sphere, with β = d/τ,

        SNR⁻¹ = (N − 1) e^{−2β} [₀F₁(; d/2 + 1; β²)/d + 4β² ₀F₁(; d/2 + 2; β²)/(d(d + 2))].

    Args:
        N: stored pairs.
        d: size of a key.
        tau: temperature τ, in units of qᵀk.
        keys: "gaussian", "gaussian-random" or "sphere".

    Raises:
        TypeError, ValueError: as `snr_exponential`.

    Example:
        >>> from assocmem import capacity
        >>> round(capacity.snr_solu(N=65, d=64), 1)
        240520.9
    """
    tau = checked(N, d, tau, keys)
    if keys == "sphere":
        beta = d / tau
        near = math.log(1 / d) + log_0f1(d / 2 + 1, beta)
        far = math.log(4 * beta**2 / (d * (d + 2))) + log_0f1(d / 2 + 2, beta)
        top = max(near, far)
        return snr(N, top + math.log(math.exp(near - top) + math.exp(far - top)) - 2 * beta)
    if keys == "gaussian":
        factor = 1 / d + 4 / tau**2
    elif d <= 2:
        factor = math.inf
    else:
        factor = (1 - 4 * (1 - tau) / tau**2) / (d - 2) + 4 / tau**2
    noise = log_noise(d, tau, keys)
    return snr(N, noise if noise == math.inf else noise + math.log(factor))


def snr_rbf(N: int, d: int, sigma: float | None = None, keys: str = "gaussian") -> float:
    """SNR of κ(q, k) = exp(−‖q − k‖²/2σ²), σ² = √d when None (we derive).

    κ(k, k) = 1. With Gaussian keys E κ² = (1 + 2/σ²)^{−d/2} e^{−d/(σ² + 2)}; with a random k_i,
    (1 + 4/σ²)^{−d/2}. On the sphere it is the exponential with τ = σ².

    Args:
        N: stored pairs.
        d: size of a key.
        sigma: width σ, in units of ‖q − k‖.
        keys: "gaussian", "gaussian-random" or "sphere".

    Raises:
        TypeError, ValueError: when N or d is no integer >= 1, sigma is not finite and > 0, or
            keys is unknown.

    Example:
        >>> from assocmem import capacity
        >>> round(capacity.snr_rbf(N=65, d=64), 1)
        11869.3
    """
    if sigma is not None:
        check_positive("sigma", sigma)
    variance = checked(N, d, None if sigma is None else sigma**2, keys)
    if keys == "sphere":
        return snr(N, log_noise(d, variance, keys))
    if keys == "gaussian":
        return snr(N, -d / 2 * math.log1p(2 / variance) - d / (variance + 2))
    return snr(N, -d / 2 * math.log1p(4 / variance))


def freezing_temperature(N: int, d: int, keys: str = "gaussian") -> float:
    """τ_c, below which the exponential's crosstalk is the work of a few keys (we derive).

    A sum of N terms e^{2z/τ} is carried by the dot products near some z*, the larger the lower τ
    is; τ_c is where z* reaches the largest of N dot products, up to terms small against ln N:

        τ_c = √(2d / ln N)                         for Gaussian keys, z* = 2d/τ;
        τ_c = 2(1 − t²)/t,  t = √(1 − N^{−2/d})    on the sphere of radius √d.

    This is the freezing of the random-energy model (Derrida 1981).

    Args:
        N: stored pairs, at least 2.
        d: size of a key.
        keys: "gaussian" or "sphere".

    Raises:
        TypeError, ValueError: when N or d is no integer or too small, or keys is unknown.

    Example:
        >>> from assocmem import capacity
        >>> round(capacity.freezing_temperature(N=1000, d=64), 2)  # softmax's is 8
        4.3
    """
    check_count("N", N, at_least=2)
    check_count("d", d)
    check_keys(keys, ("gaussian", "sphere"))
    if keys == "gaussian":
        return math.sqrt(2 * d / math.log(N))
    beyond = N ** (-2 / d)  # 1 − t²
    return 2 * beyond / math.sqrt(1 - beyond)


def checked(N: int, d: int, tau: float | None, keys: str) -> float:
    """τ, √d when None, after all arguments have been checked."""
    check_count("N", N)
    check_count("d", d)
    check_keys(keys)
    if tau is None:
        tau = math.sqrt(d)
    check_positive("tau", tau)
    return tau


def log_noise(d: int, tau: float, keys: str) -> float:
    """ln of E κ²/c² for κ = exp(qᵀk/τ)."""
    if keys == "gaussian":
        return 2 * d * (1 - tau) / tau**2
    if keys == "sphere":
        return log_0f1(d / 2, d / tau) - 2 * d / tau
    inside = 1 - 4 * (1 - tau) / tau**2
    return -d / 2 * math.log(inside) if inside > 0 else math.inf


def snr(N: int, log_noise: float) -> float:
    """e^{−log_noise} / (N − 1): inf beyond the range of a float, and for a single pair."""
    if N == 1:
        return math.inf
    exponent = -log_noise - math.log(N - 1)
    return math.exp(exponent) if exponent < 709 else math.inf


def log_0f1(b: float, beta: float) -> float:
    """ln ₀F₁(; b; β²) = ln Σ_n β^{2n} / (n! (b)_n), for b > 0 and β > 0.

    All terms are positive and log-concave in n, so that nothing cancels, and the sum is its
    largest term and those within a few widths of it, however large β is. With b = d/2 this is
    Γ(b) β^{1−b} I_{b−1}(2β), the Bessel form, without its overflow.
    """
    # Neighbouring terms are equal where β² = n(b + n − 1); the curvature there gives the width.
    peak = (math.sqrt((b - 1) ** 2 + 4 * beta**2) - (b - 1)) / 2
    width = 12 * math.sqrt(peak) + 60
    n = torch.arange(max(0, math.floor(peak - width)), math.ceil(peak + width), dtype=torch.float64)
    b_tensor = torch.tensor(b, dtype=torch.float64)
    terms = (
        2 * n * math.log(beta)
        - torch.lgamma(n + 1)
        - torch.lgamma(n + b_tensor)
        + torch.lgamma(b_tensor)
    )
    return terms.logsumexp(0).item()
