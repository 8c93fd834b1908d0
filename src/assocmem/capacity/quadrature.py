"""The SNR of any kernel function of the dot product, by quadrature: its mean and its typical value.

Both need nothing but the law of z = k_iᵀk_j: N(0, d) for Gaussian keys and a k_i of norm √d, or
d cos θ for keys on the sphere of radius √d. The assumptions are those of `closed_forms`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from assocmem.arguments import check_count
from assocmem.capacity.inputs import check_keys
from assocmem.capacity.logarithms import exponential, snr
from assocmem.similarity import DotProduct

NODES = 40_000
REACH = 38.0  # standard deviations: the density is down to 1e-313 there
# Where cos θ varies by 1/√d, a step of π/NODES in θ still leaves an error below 1e-13.
LARGEST_SPHERE = 10**8
NOTHING = -1e300  # for ln 0, so that no difference is inf − inf


def snr_by_quadrature(N: int, d: int, similarity: DotProduct, keys: str = "gaussian") -> float:
    """SNR of κ(q, k) = f(qᵀk) for any f, by the midpoint rule (book, eq-master).

        SNR⁻¹ = (N − 1) E f(z)² / f(d)²

    Exact to 1e-6 where f is continuous and E f² is carried by dot products within 38√d of 0, as
    it is for every f that grows no faster than e^{15z/√d}. For GELU at τ = √d and Gaussian
    keys, E f² = 1/3 + 1/(2π√3).

    Args:
        N: stored pairs.
        d: size of a key, at least 2; for "sphere" at most 10⁸.
        similarity: κ; f must be finite in float64 on [−38√d, 38√d] or, for "sphere", [−d, d], and
            f(d) not 0.
        keys: "gaussian" or "sphere".

    Returns:
        The SNR; inf when N = 1.

    Raises:
        TypeError, ValueError: when N or d is not an integer or out of range, similarity is not a
            function of the dot product or out of range, or keys is unknown.

    Example:
        >>> from assocmem import capacity, similarity
        >>> round(capacity.snr_by_quadrature(65, 64, similarity.relu), 4)
        2.0
    """
    log_p, log_w = log_probability_and_noise(N, d, similarity, keys)
    return snr(int(N), torch.logsumexp(log_p + log_w, 0).item())


def snr_typical(N: int, d: int, similarity: DotProduct, keys: str = "gaussian") -> float:
    """The SNR that half of all memories exceed, an estimate (we derive; book, eq-typical).

        noise = w_N + (N − 1) E[w(z); w(z) < w_N],    w(z) = f(z)²/f(d)²,

    with w_N the median of the largest of N − 1 draws, P(w ≥ w_N) = 1 − 2^{−1/(N−1)}.

    This is the loudest of N − 1 keys at its median, plus the mean of all that are less loud. Where
    many keys have a say it is close to the mean; where one key has, to that key. For the
    exponential with τ ≥ 1, at d = 64 and N = 16,384, the median of 200 memories agrees with it
    within its standard error (book, eq-typical).

    Args:
        N: stored pairs.
        d: size of a key, as in `snr_by_quadrature`.
        similarity: κ, as in `snr_by_quadrature`.
        keys: "gaussian" or "sphere".

    Returns:
        The SNR; inf when N = 1.

    Raises:
        TypeError, ValueError: as `snr_by_quadrature`.

    Example:
        >>> from assocmem import capacity, similarity
        >>> sharp = similarity.Exponential(tau=1.0)
        >>> capacity.snr_typical(65, 64, sharp) > 1e6 * capacity.snr_exponential(65, 64, tau=1.0)
        True
    """
    log_p, log_w = log_probability_and_noise(N, d, similarity, keys)
    if N == 1:
        return math.inf
    log_w, order = log_w.sort(descending=True)
    log_p = log_p[order]
    log_tail = torch.logcumsumexp(log_p, 0)
    # P(w ≥ w_N) = 1 − 2^{−1/(N−1)}, without the cancellation.
    log_target = math.log(-math.expm1(-math.log(2) / (N - 1)))
    after = int(torch.searchsorted(log_tail, log_target).clamp(max=len(log_w) - 1))
    loudest = log_w[0]  # of so many keys even the rarest node has one
    if after > 0:
        between = log_tail[after - 1 : after + 1]
        share = ((log_target - between[0]) / (between[1] - between[0])).clamp(0, 1)
        loudest = torch.lerp(log_w[after - 1], log_w[after], share)
    rest = torch.logsumexp((log_p + log_w)[after:], 0) + math.log(N - 1)
    return exponential(-torch.logaddexp(loudest, rest).item())


def log_probability_and_noise(
    N: int, d: int, similarity: DotProduct, keys: str
) -> tuple[Tensor, Tensor]:
    """ln of the probability of each node z, and ln f(z)²/f(d)² there."""
    check_count("N", N)
    d = check_count("d", d, at_least=2)
    check_keys(keys, ("gaussian", "sphere"))
    if keys == "sphere" and d > LARGEST_SPHERE:
        raise ValueError(f"d must be at most {LARGEST_SPHERE} on the sphere, got {d}")
    if not isinstance(similarity, DotProduct):
        raise TypeError(
            f"similarity must be a function of the dot product, got {type(similarity).__name__}"
        )
    middle = (torch.arange(NODES, dtype=torch.float64, device="cpu") + 0.5) / NODES
    if keys == "gaussian":
        x = REACH * (2 * middle - 1)
        z, log_p = d**0.5 * x, -x.square() / 2
    else:
        z, log_p = d * (math.pi * middle).cos(), (d - 2) * (math.pi * middle).sin().log()
    signal = similarity.profile(torch.tensor(float(d), dtype=torch.float64, device="cpu"), d)
    f = similarity.profile(z, d)
    if signal == 0 or not (f.isfinite().all() and signal.isfinite()):
        raise ValueError(
            f"similarity must be finite in float64 up to z = {z.abs().max().item():.4g} and not 0 "
            f"at z = d = {d}, got {f.abs().max().item()} and {signal.item()}"
        )
    # abs before log: f² would overflow where f does not.
    log_w = 2 * (f.abs().log() - signal.abs().log())
    return log_p - log_p.logsumexp(0), log_w.clamp_min(NOTHING)
