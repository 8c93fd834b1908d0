"""SNRs from logarithms, as signal and noise are soon beyond the range of a float."""

from __future__ import annotations

import math


def snr(N: int, log_noise: float) -> float:
    """e^{−log_noise} / (N − 1): inf beyond the range of a float, and for a single pair."""
    if N == 1:
        return math.inf
    return exponential(-log_noise - math.log(N - 1))


def exponential(x: float) -> float:
    """e^x, inf beyond the range of a float."""
    return math.exp(x) if x < 709 else math.inf


def log_sum_exp(x: list[float]) -> float:
    """ln Σ_i e^{x_i}."""
    top = max(x)
    return top + math.log(math.fsum(math.exp(y - top) for y in x))
