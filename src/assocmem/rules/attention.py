"""Attention as a rule: in the feature space of the exponential kernel function, or per query.

κ(q, k) = exp(qᵀk) = φ(q)ᵀφ(k) for a φ with infinitely many features. Only the features that the
keys so far span matter, and those are as many as there are keys: `span` finds them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from assocmem.rules.correcting import beta_of
from assocmem.rules.rule import Formulas, Rule, Write, as_vector, one, one_pair


class Reading(NamedTuple):
    """What a query reads, o `[V]`, and the sum of the weights of what it has read, Z e^top.

    Both parts are floats where the sum itself is beyond their range.
    """

    o: Tensor
    Z: Tensor
    top: Tensor


def weight(state: Reading, write: Write) -> tuple[Tensor, Tensor, Tensor]:
    """κ(q, k) = exp(qᵀk) and the new Z = γ Z + κ(q, k), both over e^top, and the new top.

    Raises:
        ValueError: when the write has no query, or several pairs.
    """
    if write.q is None:
        raise ValueError("write must have a query q [K] for a rule of attention, got None")
    k, _ = one_pair(write)
    score = write.q @ k
    top = torch.maximum(state.top, score.detach())  # nothing depends on which
    own = torch.exp(score - top)
    return own, one("decay", write) * state.Z * torch.exp(state.top - top) + own, top


def share(state: Reading, write: Write) -> Tensor:
    """p = κ(q, k)/Z: the weight that softmax gives to the newest pair."""
    own, Z, _ = weight(state, write)
    return own / Z


def average(state: Reading, write: Write) -> Reading:
    """o ← o + p (v − o) (book, chapter 5, eq-softmax-step)."""
    own, Z, top = weight(state, write)
    return Reading(state.o + own / Z * (write.v - state.o), Z, top)


def reading_rule(name: str, source: str, newest: str, note: str, *gates: str) -> Rule:
    """Softmax attention with these gates."""
    return Rule(
        name,
        source,
        "explicit",
        lambda o, _, write: 0.5 * (o - write.v).square().sum(),
        lambda state, write: average(state, write.only(*gates)),
        lambda state, write: share(state, write.only(*gates)),
        lambda state, write: as_vector(1 - share(state, write.only(*gates)), write),
        Formulas(
            r"$\tfrac12\lVert o - v\rVert^2$, for each query",
            r"explicit, $\eta = p$, the newest pair's weight",
            r"$o + p\,(v - o)$, " + newest,
            r"$1 - p$",
            r"any: $p \le 1$",
        ),
        empty=lambda write: Reading(
            torch.zeros_like(write.v), write.v.new_zeros(()), write.v.new_tensor(-math.inf)
        ),
        memory=lambda state: state.o,
        faded=lambda state, _: state.o,
        note=note,
    )


SOFTMAX_ATTENTION = reading_rule(
    "Softmax attention",
    "1706.03762",
    r"$p = \kappa(q, k)/Z$, $Z \leftarrow Z + \kappa(q, k)$",
    "In feature space it is linear attention, read twice: for the values, and for the value 1.",
)
FOX = reading_rule(
    "FoX, ALiBi",
    "2503.02130",
    r"$p = \kappa(q, k)/Z$, $Z \leftarrow \gamma Z + \kappa(q, k)$",
    "In feature space it is RetNet or Mamba-2. ALiBi (2108.12409) is the constant decay.",
    "decay",
)


class Cache(NamedTuple):
    """The keys so far `[t, K]`, and what is stored under each, u `[t, V]`."""

    k: Tensor
    u: Tensor


def empty_cache(write: Write) -> Cache:
    """A cache without pairs."""
    return Cache(write.k.new_zeros(0, len(write.k)), write.v.new_zeros(0, len(write.v)))


def span(k: Tensor) -> Tensor:
    """Features `[t, t]` of t keys with φ_iᵀφ_j = exp(k_iᵀk_j); a new key adds one feature.

    This is Cholesky's factor. The feature of a key that was there before is 0.
    """
    scores = torch.exp(k @ k.mT)
    rounding = 4 * len(k) * torch.finfo(k.dtype).eps
    later = torch.ones_like(scores).tril()
    phi = scores[:, :0]
    for i in range(len(k)):
        rest = (scores[:, i] - phi @ phi[i]) * later[:, i]
        new = rest[i] > rounding * scores[i, i]
        column = torch.where(new, rest / rest[i].where(new, 1.0).sqrt(), 0.0)
        phi = torch.cat((phi, column[:, None]), 1)
    return phi


def recalled(state: Cache, write: Write) -> Tensor:
    """Σ_i κ(k, k_i) u_i."""
    k, _ = one_pair(write)
    return torch.exp(state.k @ k) @ state.u


def stored(state: Cache, write: Write, u: Tensor) -> Cache:
    """The cache with one more pair."""
    return Cache(torch.cat((state.k, write.k[None])), torch.cat((state.u, u[None])))


def with_room(state: Cache, write: Write) -> Tensor:
    """The memory with a row of zeros for the feature that the new key adds."""
    S = span(state.k).mT @ state.u
    return torch.cat((S, S.new_zeros(1, S.shape[1])))


def feature_error(X: Tensor, state: Cache, write: Write) -> Tensor:
    """½‖Xᵀφ(k) − v‖²."""
    phi = span(torch.cat((state.k, write.k[None])))[-1]
    return 0.5 * (phi @ X - write.v).square().sum()


def own_score(write: Write) -> Tensor:
    """κ(k, k)."""
    k, _ = one_pair(write)
    return torch.exp(k @ k)


def released_write(state: Cache, write: Write) -> Cache:
    """u = v − β Σ_i softmax_i(kᵀk_i) u_i: a weighted average is taken off, and all of v stored."""
    k, v = one_pair(write)
    weights = torch.softmax(state.k @ k, 0)
    return stored(state, write, v - one("beta", write) * weights @ state.u)


def deltaformer_step(state: Cache, write: Write) -> Cache:
    """u = β (v − Σ_i κ(k, k_i) u_i)."""
    return stored(state, write, one("beta", write) * (write.v - recalled(state, write)))


def deltaformer_factor(_: Any, write: Write) -> Tensor:
    """1 − β κ(k, k)."""
    return as_vector(1 - write.beta * own_score(write), write)


DELTAFORMER = Rule(
    "DeltaFormer",
    "2505.19488",
    "explicit",
    feature_error,
    deltaformer_step,
    beta_of,
    deltaformer_factor,
    Formulas(
        r"$\tfrac12\lVert S\phi(k) - v\rVert^2$",
        r"explicit, $\eta = \beta$",
        r"$S + u\,\phi(k)^\top$, $u = \beta\,(v - \sum_{i<t}\kappa(k, k_i)\,u_i)$",
        r"$1 - \beta\kappa(k, k)$",
        r"$2/\kappa(k, k)$",
    ),
    lambda _, write: 2 / own_score(write).item(),
    empty=empty_cache,
    memory=lambda state: span(state.k).mT @ state.u,
    faded=with_room,
    released=released_write,
    note="The published model stores all of v, and normalises κ over the past.",
)
