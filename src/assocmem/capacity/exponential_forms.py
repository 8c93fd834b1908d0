"""The retrieval SNR of the exponential kernel functions in closed form, and where it freezes.

The assumptions and the three kinds of keys are those of `closed_forms`. All values here are means
over draws. Well below the freezing temperature, rare draws carry the mean, and a typical memory
does better by orders of magnitude: `snr_typical`.
"""

from __future__ import annotations

import math

import torch

from assocmem.arguments import check_count, check_positive
from assocmem.capacity.inputs import check_keys, checked
from assocmem.capacity.logarithms import log_sum_exp, snr
from assocmem.similarity.exponentials import check_width


def snr_exponential(N: int, d: int, tau: float | None = None, keys: str = "gaussian") -> float:
    """SNR of κ(q, k) = exp(qᵀk/τ), τ = √d when None (we derive).

    Given k_i, with s² = ‖k_i‖²: E e^{2z/τ} = e^{2s²/τ²} against c² = e^{2s²/τ}. With s² = d that
    is SNR = exp(2d(τ − 1)/τ²)/(N − 1). With s² ~ χ²_d, SNR = (1 − 4a)^{d/2}/(N − 1) where
    a = (1 − τ)/τ², and 0 where 4a ≥ 1 (τ ≤ 2√2 − 2). On the sphere, with β = d/τ,

        SNR = e^{2β} / ((N − 1) · ₀F₁(; d/2; β²)),    E e^{2β cos θ} = ₀F₁(; d/2; β²).

    Assumes independent keys, and values of mean zero and equal power that are independent of
    them and of each other.

    Args:
        N: stored pairs.
        d: size of a key.
        tau: temperature τ, in units of qᵀk.
        keys: "gaussian", "gaussian-random" or "sphere".

    Raises:
        TypeError, ValueError: when N or d is not an integer >= 1, tau is not finite and > 0, or
            keys is unknown.

    Example:
        >>> from assocmem import capacity
        >>> round(capacity.snr_exponential(N=65, d=64), 1)
        18790.7
    """
    N, d, tau = checked(N, d, tau, keys)
    return snr(N, log_noise(d, tau, keys))


def snr_solu(N: int, d: int, tau: float | None = None, keys: str = "gaussian") -> float:
    """SNR of κ(q, k) = qᵀk exp(qᵀk/τ), τ = √d when None (we derive).

    With Gaussian keys the noise is that of the exponential times 1/d + 4/τ²; with a random k_i,
    times (1 − 4a)/(d − 2) + 4/τ², where a = (1 − τ)/τ². On the sphere, with β = d/τ,

        SNR⁻¹ = (N − 1) e^{−2β} [₀F₁(; d/2 + 1; β²)/d + 4β² ₀F₁(; d/2 + 2; β²)/(d(d + 2))].

    Assumptions as in `snr_linear`.

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
    N, d, tau = checked(N, d, tau, keys)
    if keys == "sphere":
        beta = inverse_temperature(d, tau)
        near = damped_log_0f1(d / 2 + 1, beta) - math.log(d)
        far = damped_log_0f1(d / 2 + 2, beta) - math.log(d) - math.log(d + 2)
        return snr(N, log_sum_exp([near, far + 2 * math.log(2 * beta)]))
    if keys == "gaussian":
        factor = 1 / d + 4 / tau / tau
    elif d <= 2:
        factor = math.inf
    else:
        factor = (1 - 4 * (1 - tau) / tau / tau) / (d - 2) + 4 / tau / tau
    noise = log_noise(d, tau, keys)
    return snr(N, noise if noise == math.inf else noise + math.log(factor))


def snr_rbf(N: int, d: int, sigma: float | None = None, keys: str = "gaussian") -> float:
    """SNR of κ(q, k) = exp(−‖q − k‖²/2σ²), σ² = √d when None (we derive).

    κ(k, k) = 1. With Gaussian keys E κ² = (1 + 2/σ²)^{−d/2} e^{−d/(σ² + 2)}; with a random k_i,
    (1 + 4/σ²)^{−d/2}. On the sphere it is the exponential with τ = σ².

    Assumptions as in `snr_linear`.

    Args:
        N: stored pairs.
        d: size of a key.
        sigma: width σ, in units of ‖q − k‖, from 1e-150 to 1e150.
        keys: "gaussian", "gaussian-random" or "sphere".

    Raises:
        TypeError, ValueError: when N or d is not an integer >= 1, sigma is out of range, or keys is
            unknown.

    Example:
        >>> from assocmem import capacity
        >>> round(capacity.snr_rbf(N=65, d=64), 1)
        11869.3
    """
    if sigma is not None:
        check_positive("sigma", sigma)
        check_width(sigma)
    N, d, variance = checked(N, d, None if sigma is None else sigma**2, keys)
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
        TypeError, ValueError: when N or d is not an integer or too small, or keys is unknown.

    Example:
        >>> from assocmem import capacity
        >>> round(capacity.freezing_temperature(N=1000, d=64), 2)  # softmax's is 8
        4.3
    """
    N, d = check_count("N", N, at_least=2), check_count("d", d)
    check_keys(keys, ("gaussian", "sphere"))
    if keys == "gaussian":
        return math.sqrt(2 * d / math.log(N))
    exponent = -2 * math.log(N) / d  # of 1 − t²
    return 2 * math.exp(exponent) / math.sqrt(-math.expm1(exponent))


def inverse_temperature(d: int, tau: float) -> float:
    """β = d/τ.

    Raises:
        ValueError: when τ is so small that β is beyond the range of a float.
    """
    beta = d / tau
    if beta == math.inf:
        raise ValueError(f"tau must be such that d/tau is a float, got {tau!r} for d = {d}")
    return beta


def log_noise(d: int, tau: float, keys: str) -> float:
    """ln of E κ²/c² for κ = exp(qᵀk/τ)."""
    # Divided by τ twice: τ² could be beyond the range of a float.
    if keys == "gaussian":
        return 2 * d * (1 - tau) / tau / tau
    if keys == "sphere":
        return damped_log_0f1(d / 2, inverse_temperature(d, tau))
    inside = 1 - 4 * (1 - tau) / tau / tau
    return -d / 2 * math.log(inside) if inside > 0 else math.inf


def log_0f1(b: float, beta: float) -> float:
    """ln ₀F₁(; b; β²) = ln Σ_n β^{2n} / (n! (b)_n), for b > 0 and β > 0."""
    return damped_log_0f1(b, beta) + 2 * beta


def damped_log_0f1(b: float, beta: float) -> float:
    """ln of e^{−2β} ₀F₁(; b; β²), for b > 0 and β > 0: ln E e^{2β(cos θ − 1)} where b = d/2.

    It is summed where e^{2β} is far from the range of a float, and all terms are positive. Beyond,
    ₀F₁ = Γ(b) β^{1−b} I_ν(2β), ν = b − 1, with Debye's expansion of the Bessel function, which is
    uniform in ν, and Stirling's of Γ. With s = √(ν² + 4β²) that is

        s − b − 2β − ν ln((s + ν)/2b) − ½ ln(s/b) + R(b) + Σ_k D_k(ν²/s²)/s^k

    after all that is large and cancels has been cancelled by hand.
    """
    nu = b - 1
    s = math.hypot(nu, 2 * beta)
    if s < 400:
        n = torch.arange(1, 500, dtype=torch.float64, device="cpu")
        return (beta**2 / (n * (nu + n))).cumprod(0).sum().log1p().item() - 2 * beta
    # s − b − 2β and s − b as quotients, s² − (b + 2β)² and s² − b² over the sums.
    total = s + b + 2 * beta
    damped = 1 / total - (1 + 2 * beta) * (2 * b / total)
    rise = 2 * beta * (2 * beta / (s + b)) - (2 * b - 1) / (s + b)
    bulk = damped - nu * math.log1p((rise - 1) / (2 * b)) - math.log1p(rise / b) / 2
    return bulk + stirling_remainder(b) + debye_remainder((nu / s) ** 2, s)


def stirling_remainder(b: float) -> float:
    """R(b) = ln Γ(b) − [(b − ½) ln b − b + ½ ln 2π], by its series where it is small."""
    if b < 30:
        return math.lgamma(b) - (b - 0.5) * math.log(b) + b - math.log(2 * math.pi) / 2
    x = (1 / b) ** 2
    return (1 / 12 - x * (1 / 360 - x * (1 / 1260 - x / 1680))) / b


def debye_remainder(y: float, s: float) -> float:
    """Σ_k D_k(y)/s^k, ln of Debye's series in y = ν²/s², to an error of 1e-14 where s ≥ 400."""
    first = (3 - 5 * y) / 24
    second = (1 - y) * (1 - 5 * y) / 16
    third = (375 - y * (4779 - y * (9945 - 5525 * y))) / 5760
    fourth = (1 - y) * (13 - y * (271 - y * (791 - 565 * y))) / 128
    return (first + (second + (third + fourth / s) / s) / s) / s
