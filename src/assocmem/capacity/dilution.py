"""What the normaliser of softmax does to the signal: weights that have to add up to 1.

A reading o = Σ_j p_j v_j with Σ_j p_j = 1 gives the right value the weight p_i < 1. The SNR does
not see it, because it divides by the signal; whoever takes o as it is does. Keys are uniform on
the sphere of radius √d, and the query is the key itself.
"""

from __future__ import annotations

import math

from assocmem.arguments import check_count, check_number, check_positive
from assocmem.capacity.exponential_forms import damped_log_0f1, inverse_temperature


def softmax_weight(N: int, d: int, tau: float) -> float:
    """The weight that softmax attention gives the right one of N keys (we derive).

        p = 1 / (1 + (N − 1) e^{−β} ₀F₁(; d/2; β²/4)),    β = d/τ        (book, eq-weight)

    with the crosstalk of the normaliser at its mean, E e^{β cos θ} = ₀F₁(; d/2; β²/4) ≈ e^{β²/2d}.
    By Jensen's inequality the mean of p is at least this, and close to it where many keys have a
    say.

    Args:
        N: stored pairs.
        d: size of a key.
        tau: temperature τ, in units of qᵀk.

    Raises:
        TypeError, ValueError: when N or d is not an integer >= 1, or tau is not finite and > 0.

    Example:
        >>> from assocmem import capacity
        >>> weights = [capacity.softmax_weight(N, d=64, tau=8.0) for N in (10, 1000)]
        >>> [round(weight, 3) for weight in weights]  # a longer context dilutes it
        [0.995, 0.645]
    """
    N, d = check_count("N", N), check_count("d", d)
    check_positive("tau", tau)
    return 1 / (1 + (N - 1) * math.exp(-log_gain(d, inverse_temperature(d, tau))))


def softmax_error(weight: float, snr: float) -> float:
    """Mean of ‖o − v_i‖² / ‖v_i‖² for a normalised reading (we derive; book, eq-dilution).

        (1 − p)² + p² SNR⁻¹

    given the keys, for values as in `closed_forms`.

    Args:
        weight: p in (0, 1], the share of the right value.
        snr: the retrieval SNR of the same memory.

    Raises:
        TypeError, ValueError: when an argument is not a number or not > 0, or weight is above 1.

    Example:
        >>> from assocmem import capacity
        >>> capacity.softmax_error(weight=0.5, snr=5.0)  # (1/2)² + (1/2)²/5
        0.3
    """
    check_positive("weight", weight)
    if weight > 1:
        raise ValueError(f"weight must be at most 1, got {weight!r}")
    check_number("snr", snr)
    if not snr > 0:
        raise ValueError(f"snr must be > 0, got {snr!r}")
    return (1 - weight) ** 2 + weight**2 / snr


def softmax_temperature(N: int, d: int, weight: float = 0.5) -> float:
    """The temperature at which the right one of N keys has that weight: `softmax_weight` inverted.

    For ln N well below d it is the log-length law (book, eq-log-length):

        β = d/τ ≈ ln(N p/(1 − p)) + β²/(2d)

    Args:
        N: stored pairs, at least 2.
        d: size of a key, at least 2.
        weight: p, above 1/N and below 1.

    Raises:
        TypeError, ValueError: when N or d is not an integer or too small, weight is out of range,
            or N so large that d/τ is beyond the range of a float (from 1e154 on, for d = 2).

    Example:
        >>> from assocmem import capacity
        >>> tau = capacity.softmax_temperature(N=1024, d=64)
        >>> round(capacity.softmax_weight(1024, 64, tau), 6)
        0.5
    """
    N, d = check_count("N", N, at_least=2), check_count("d", d, at_least=2)
    check_number("weight", weight)
    if not 1 / N < weight < 1:
        raise ValueError(f"weight must lie between 1/N = {1 / N:.3g} and 1, got {weight!r}")
    wanted = math.log(N - 1) + math.log(weight) - math.log1p(-weight)
    low, high = 0.0, 1.0
    while log_gain(d, high) < wanted:
        high *= 2
    if high == math.inf:  # the gain there is NaN
        raise ValueError(f"N must be smaller for d = {d}, so that d/tau is a float, got {N}")
    for _ in range(60):  # bisection: the gain grows with β
        middle = (low + high) / 2
        low, high = (middle, high) if log_gain(d, middle) < wanted else (low, middle)
    return d / high


def log_gain(d: int, beta: float) -> float:
    """ln of e^β / E e^{β cos θ}: how much more weight the key has than a random one."""
    return -damped_log_0f1(d / 2, beta / 2)
