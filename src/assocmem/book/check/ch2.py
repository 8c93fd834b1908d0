"""Checks of chapter 2: memory capacity."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from assocmem import capacity
from assocmem.book.check.answer import as_array, close, integer
from assocmem.book.check.exercise import Wrong, exercise


@exercise
def ch2_ex1(snr: Callable[[float], float]) -> None:
    """The SNR of two pairs whose keys have a given cosine."""
    for cosine in (0.5, -0.2, 0.9):
        got = float(snr(cosine))
        if close(got, cosine**2):
            raise Wrong("that is noise over signal; the SNR is signal over noise")
        if close(got, 1 / abs(cosine)):
            raise Wrong("the SNR compares powers, that is squared lengths")
        if close(got, 2 / cosine**2) or close(got, 0.5 / cosine**2):
            raise Wrong("each item is disturbed by one other, and the SNR averages over the items")
        if not close(got, 1 / cosine**2):
            raise Wrong(f"not at cosine {cosine}: write down o_1 = c v_1 + r and compare lengths")


@exercise
def ch2_ex2(noise: Callable[[int, int, float], float]) -> None:
    """Noise over signal when the query only resembles the key."""
    for N, d, cosine in ((65, 16, 0.8), (2, 4, 0.5), (1000, 128, 0.1)):
        got, exact = float(noise(N, d, cosine)), (N - 1) / d
        if close(got, exact):
            raise Wrong("the cosine must matter: what is the signal κ(q, k_i) now?")
        if close(got, exact / cosine):
            raise Wrong("the signal's amplitude shrinks by the cosine; the ratio compares powers")
        if close(got, exact * cosine**2):
            raise Wrong("a worse query cannot make the answer cleaner")
        if close(got, N / d / cosine**2):
            raise Wrong("the item itself does not disturb its own reading")
        if not close(got, exact / cosine**2):
            raise Wrong(f"not at N = {N}, d = {d}, cosine {cosine}: does the query's angle to k_i "
                        "change how it meets the other keys?")  # fmt: skip


@exercise
def ch2_ex3(key_size: Callable[[int, float, float], int | None]) -> None:
    """The least d that reaches an SNR with keys in a cone, or None where none does."""
    if key_size(1000, 0.1, 1.0) is not None:
        raise Wrong("with 1000 pairs at mean cosine 0.1 no key size reaches an SNR of 1: what is "
                    "left of the noise when d grows without bound?")  # fmt: skip
    for N, rho, snr in ((65, 0.0, 1.0), (50, 0.1, 1.0), (10, 0.2, 2.0), (200, 0.02, 4.0)):
        got = key_size(N, rho, snr)
        if got is None:
            raise Wrong(f"N = {N}, ρ = {rho}, SNR {snr} can be reached")
        got = integer("a key size", got)
        if got < 2 or capacity.snr_cone(N, got, rho) < snr * (1 - 1e-12):
            raise Wrong(f"d = {got} does not reach SNR {snr} with N = {N}, ρ = {rho}")
        if got > 2 and capacity.snr_cone(N, got - 1, rho) >= snr * (1 + 1e-12):
            raise Wrong(f"d = {got} reaches SNR {snr} with N = {N}, ρ = {rho}, and so does less")


@exercise
def ch2_ex4(read: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Readings of a memory whose keys have a mean, without the mean's crosstalk."""
    g = torch.Generator().manual_seed(0)
    N, d, d_v = 256, 64, 48
    keys, values = capacity.cone(N, d, 0.4, g), capacity.sphere(N, d_v, g)
    S = values.T @ keys
    before = S.clone()
    answers = read(S, keys)
    if not torch.equal(S, before):
        raise Wrong("the memory itself must stay as it is; change how it is asked")
    answers = as_array("what you return", answers)
    if answers.shape != (N, d_v):
        raise Wrong(f"return one answer per key, shape [N, d_v] = [{N}, {d_v}]")
    if torch.allclose(answers, keys @ S.T):
        raise Wrong("this is the plain reading: what do all keys share, and who picks it up?")
    # The scale of an answer is free: compare each with the best multiple of its value.
    signal = (answers * values).sum(1, keepdim=True) * values
    ratio = ((answers - signal).square().sum(1) / signal.square().sum(1)).median().item()
    plain = 1 / capacity.snr_cone(N, d, 0.4)
    if not ratio < plain / 4:
        raise Wrong(
            f"noise over signal is {ratio:.3g} in the median; it can be below {plain / 4:.3g}"
        )


@exercise
def ch2_ex5(best_decay: Callable[[int], float]) -> None:
    """The decay that keeps the most items above SNR 1."""
    for d in (16, 64, 500):
        gamma = float(best_decay(d))
        if not 0 < gamma < 1:
            raise Wrong(f"a decay lies between 0 and 1, got {gamma} for d = {d}")
        effective = 1 / (1 - gamma**2)
        best = (d + 1) / math.e
        if close(effective, d + 1, 0.02) or close(effective, d, 0.02):
            raise Wrong(f"for d = {d} the newest item itself is at SNR 1, and no older one above")
        if close(1 / (1 - gamma), best, 0.02):
            raise Wrong("the window 1/(1 − γ) is of amplitudes; noise adds up in power")
        # The horizon is flat at its top, so the decay is compared. For a small d those that ignore
        # 1 beside d, or take the longest horizon of many, differ by a little more.
        if not close(effective, best, max(0.01, 2 / d)):
            horizon = max(0.0, math.log((d + 1) / effective) / -2 / math.log(gamma))
            raise Wrong(f"for d = {d} items older than {horizon:.1f} steps are below SNR 1; "
                        "another decay keeps more")  # fmt: skip


@exercise
def ch2_ex6(phi: Callable[[Tensor], Tensor]) -> None:
    """Features of degree 2 without their mean, of size (d − 1)(d + 2)/2."""
    g = torch.Generator().manual_seed(0)
    for d in (3, 8):
        x, m = capacity.sphere(40, d, g), (d - 1) * (d + 2) // 2
        features = as_array("what phi returns", phi(x))
        if features.ndim != 2 or len(features) != len(x):
            raise Wrong("phi maps keys [N, d] to features [N, m]")
        G, cosines = features @ features.T, x @ x.T
        G = G / G.diagonal().mean()
        if torch.allclose(G, cosines**2, atol=1e-6):
            raise Wrong("this is (xᵀy)², whose features still have a mean: E x xᵀ is not zero")
        if not torch.allclose(G, (cosines**2 - 1 / d) / (1 - 1 / d), atol=1e-6):
            raise Wrong("φ(x)ᵀφ(y) must be a multiple of (xᵀy)² − 1/d for unit vectors")
        if features.shape[1] != m:
            raise Wrong(f"right, but with {features.shape[1]} features for d = {d}; {m} are enough")
