"""The retrieval SNR in closed form, signal power over noise power.

All rest on one identity. When the values are independent of each other and of the keys, have
mean zero and equal power, the cross terms of ‖r‖² vanish in the mean:

    SNR⁻¹ = (N − 1) · E[κ(k_i, k_j)²] / κ(k_i, k_i)²                    (book, eq-master)

conditional on k_i. What remains is the law of k_iᵀk_j, for each of three kinds of keys:

- "gaussian": k_j ~ N(0, I) and ‖k_i‖² = d fixed, so k_iᵀk_j ~ N(0, d);
- "gaussian-random": k_i is drawn from N(0, I) too, and the ratio averaged over it;
- "sphere": all keys uniform on the sphere of radius √d, so k_iᵀk_j = d cos θ.

Only the linear result is the paper's (arXiv:2505.19488, Eq. 7, N/d, in the limit of large N and
d); the exact forms below are derived in the book. Where the mean of the noise is infinite the
SNR is 0; a value beyond the range of a float is inf.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from assocmem.arguments import check_count, check_fraction, check_positive
from assocmem.capacity.inputs import check_keys, checked
from assocmem.capacity.logarithms import log_sum_exp, snr


def snr_linear(N: int, d: int, keys: str = "gaussian") -> float:
    """SNR of κ(q, k) = qᵀk: d/(N − 1) (arXiv:2505.19488, Eq. 7: SNR⁻¹ ≈ N/d; exact form ours).

    E(k_iᵀk_j)² = ‖k_i‖² for both Gaussian kinds and d on the sphere, against c² = ‖k_i‖⁴. With a
    random k_i, E[1/χ²_d] = 1/(d − 2) makes it (d − 2)/(N − 1).

    Assumes independent keys, and values of mean zero and equal power that are independent of
    them and of each other.

    Args:
        N: stored pairs.
        d: size of a key.
        keys: "gaussian", "gaussian-random" or "sphere".

    Raises:
        TypeError, ValueError: when N or d is not an integer >= 1, or keys is unknown.

    Example:
        >>> from assocmem import capacity
        >>> capacity.snr_linear(N=65, d=64)  # as loud as the crosstalk of 64 others
        1.0
    """
    return snr_polynomial(N, d, 1, keys)


def snr_polynomial(N: int, d: int, degree: int = 2, keys: str = "gaussian") -> float:
    """SNR of κ(q, k) = (qᵀk)^p, p = degree (we derive).

    With Gaussian keys E z^{2p} = (2p − 1)!! d^p, so SNR = Π_{m<p} d/(2m + 1) / (N − 1). On the
    sphere E cos^{2p}θ = (2p − 1)!!/(d(d + 2)…(d + 2p − 2)) replaces d by d + 2m; with a random k_i
    E[(χ²_d)^{−p}] replaces it by d − 2m − 2, and the mean noise is infinite for d ≤ 2p.

    Assumes independent keys, and values of mean zero and equal power that are independent of
    them and of each other.

    Args:
        N: stored pairs.
        d: size of a key.
        degree: p, at least 1.
        keys: "gaussian", "gaussian-random" or "sphere".

    Raises:
        TypeError, ValueError: when N, d or degree is not an integer >= 1, or keys is unknown.

    Example:
        >>> from assocmem import capacity
        >>> round(capacity.snr_polynomial(N=65, d=64, degree=2), 2)
        21.33
    """
    N, d, degree = check_count("N", N), check_count("d", d), check_count("degree", degree)
    check_keys(keys)
    shift = {
        "gaussian": lambda m: 0,
        "gaussian-random": lambda m: -2 * m - 2,
        "sphere": lambda m: 2 * m,
    }
    # The factors fall. Taken from the end that leads back to 1, their product leaves the range of a
    # float only where the whole does.
    factors = deque(max(0, d + shift[keys](m)) / (2 * m + 1) for m in range(degree))
    gain = 1.0
    while factors:
        gain *= factors.pop() if gain > 1 else factors.popleft()
    return math.inf if N == 1 else gain / (N - 1)


def snr_relu(N: int, d: int, power: int = 1, keys: str = "gaussian") -> float:
    """SNR of κ(q, k) = max(0, qᵀk)^p, p = power: twice that of (qᵀk)^p (we derive).

    k_iᵀk_j is symmetric about 0, so that half of E κ² is cut away while c is untouched. For p = 1
    and Gaussian keys it is 2d/(N − 1).

    Assumes independent keys, and values of mean zero and equal power that are independent of
    them and of each other.

    Args:
        N: stored pairs.
        d: size of a key.
        power: p, at least 1.
        keys: "gaussian", "gaussian-random" or "sphere".

    Raises:
        TypeError, ValueError: when N, d or power is not an integer >= 1, or keys is unknown.

    Example:
        >>> from assocmem import capacity
        >>> capacity.snr_relu(N=65, d=64)
        2.0
    """
    check_count("power", power)
    return 2 * snr_polynomial(N, d, power, keys)


def snr_taylor(
    N: int, d: int, degree: int = 2, tau: float | None = None, keys: str = "gaussian"
) -> float:
    """SNR of κ(q, k) = Σ_{p ≤ degree} (qᵀk/τ)^p / p!, τ = √d when None (we derive).

        SNR⁻¹ = (N − 1) Σ_{p+r even} E z^{p+r} / (p! r! τ^{p+r}) / (Σ_p (d/τ)^p / p!)²

    with the even moments E z^{2n} of z = k_iᵀk_j: (2n − 1)!! d^n for Gaussian keys, and
    (2n − 1)!! d^{2n} / (d(d + 2)…(d + 2n − 2)) on the sphere. With degree 2, Gaussian keys and
    ς = d/τ², the sum is 1 + 2ς + ¾ς².

    Assumptions as in `snr_linear`.

    Args:
        N: stored pairs.
        d: size of a key.
        degree: of the polynomial, at least 1.
        tau: temperature τ, in units of qᵀk.
        keys: "gaussian" or "sphere".

    Raises:
        TypeError, ValueError: when N, d or degree is not an integer >= 1, tau is not finite and
            > 0, or keys is unknown.

    Example:
        >>> from assocmem import capacity
        >>> round(capacity.snr_taylor(N=65, d=64), 2)
        7.0
    """
    degree = check_count("degree", degree)
    check_keys(keys, ("gaussian", "sphere"))
    N, d, tau = checked(N, d, tau, keys)
    # In logarithms, as factorials and powers of τ are soon beyond the range of a float.
    log_u, step = math.log(d) - math.log(tau), 2 if keys == "sphere" else 0
    log_moments = [0.0]  # of z/τ: ln E (z/τ)^{2n}
    for m in range(degree):
        factor = math.log(2 * m + 1) - math.log(d + step * m)
        log_moments.append(log_moments[-1] + factor + 2 * log_u)
    log_factorial = [math.lgamma(p + 1) for p in range(degree + 1)]
    log_noise = log_sum_exp(
        [
            log_moments[(p + r) // 2] - log_factorial[p] - log_factorial[r]
            for p in range(degree + 1)
            for r in range(p % 2, degree + 1, 2)
        ]
    )
    log_signal = log_sum_exp([p * log_u - log_factorial[p] for p in range(degree + 1)])
    return snr(N, log_noise - 2 * log_signal)


def snr_round(N: int, d: int) -> float:
    """SNR of κ(q, k) = cos θ rounded to an integer, for keys uniform on a sphere (we derive).

        SNR⁻¹ = (N − 1) P(|cos θ| ≥ ½) = (N − 1) I_{3/4}((d − 1)/2, ½)

    with I the regularised incomplete beta function. κ is 1, 0 or −1, and 1 for the key itself.

    Assumptions as in `snr_linear`.

    Args:
        N: stored pairs.
        d: size of a key, at least 2.

    Raises:
        TypeError, ValueError: when N is not an integer >= 1, or d not an integer >= 2.

    Example:
        >>> from assocmem import capacity
        >>> capacity.snr_round(N=65, d=64) > 100
        True
    """
    N, d = check_count("N", N), check_count("d", d, at_least=2)
    # θ has density sin^{d−2} θ; by Gauss and Legendre on [0, π/3] and on [π/3, π/2].
    x, weight = np.polynomial.legendre.leggauss(200)
    near = weight @ np.sin(np.pi / 6 * (1 + x)) ** (d - 2) * np.pi / 6
    far = weight @ np.sin(np.pi / 3 + np.pi / 12 * (1 + x)) ** (d - 2) * np.pi / 12
    share = float(near / (near + far)) if near else 0.0  # where both underflow, no 0 / 0
    return math.inf if N == 1 or share == 0 else 1 / ((N - 1) * share)


def snr_cone(N: int, d: int, key_cosine: float, value_cosine: float = 0.0) -> float:
    """SNR of κ(q, k) = qᵀk when keys, and values, have a mean (we derive; book, eq-cone-snr).

        SNR⁻¹ = (N − 1)[ρ² + (1 − ρ)²/(d − 1)] + (N − 1)(N − 2) ρ² ν

    for keys and values drawn by `cone` with mean cosines ρ and ν. The second term is coherent:
    it grows as N², and needs a mean on both sides.

    Args:
        N: stored pairs.
        d: size of a key, at least 2.
        key_cosine: ρ in [0, 1].
        value_cosine: ν in [0, 1].

    Raises:
        TypeError, ValueError: when an argument is out of range.

    Example:
        >>> from assocmem import capacity
        >>> round(capacity.snr_cone(N=65, d=64, key_cosine=0.5), 4)
        0.0615
    """
    N, d = check_count("N", N), check_count("d", d, at_least=2)
    check_fraction("key_cosine", key_cosine)
    check_fraction("value_cosine", value_cosine)
    rho, nu = float(key_cosine), float(value_cosine)
    noise = (N - 1) * (rho**2 + (1 - rho) ** 2 / (d - 1))
    noise += (N - 1) * (N - 2) * rho**2 * nu
    return math.inf if noise == 0 else 1 / noise


def snr_decay(age: int, d: int, decay: float, N: int | None = None) -> float:
    """SNR of an item of that age in a linear memory that forgets (we derive; book, eq-decay-snr).

    After S ← γ S + v kᵀ an item of age a has amplitude γ^a, and all N items together the power
    N_eff = Σ_a γ^{2a} = (1 − γ^{2N})/(1 − γ²), so that

        SNR(a) = d γ^{2a} / (N_eff − γ^{2a}),

    where the noise is summed over the newer items and the older ones, without taking a difference.

    Args:
        age: a, in steps since the item was written; 0 is the newest.
        d: size of a key (all of norm √d, as in "gaussian" and "sphere").
        decay: γ in (0, 1].
        N: pairs written so far; None for a memory that has run for ever (needs γ < 1).

    Raises:
        TypeError, ValueError: when an argument is out of range, or N is None with γ = 1.

    Example:
        >>> from assocmem import capacity
        >>> round(capacity.snr_decay(age=10, d=64, decay=0.9), 3)
        1.513
    """
    age, d = check_count("age", age, at_least=0), check_count("d", d)
    check_fraction("decay", decay)
    check_positive("decay", decay)
    decay = float(decay)
    if N is None and decay == 1:
        raise ValueError("N must be given when decay is 1: the noise grows without bound")
    older = math.inf if N is None else check_count("N", N, at_least=age + 1) - age - 1
    noise = faded_power(age, decay) + decay ** (2 * age + 2) * faded_power(older, decay)
    return math.inf if noise == 0 else d * decay ** (2 * age) / noise


def faded_power(n: float, decay: float) -> float:
    """Σ_{a<n} γ^{2a} = (1 − γ^{2n})/(1 − γ²), for n items or without end."""
    if decay == 1:
        return n
    return math.expm1(2 * n * math.log(decay)) / math.expm1(2 * math.log(decay))
