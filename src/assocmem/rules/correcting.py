"""Rules that correct: an explicit gradient step on the error ½‖S k − v‖² of the pair at hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from assocmem.rules.rule import (
    Formulas,
    Number,
    Rule,
    Write,
    as_vector,
    channels,
    energy,
    half_error,
    one,
    one_pair,
    power,
)


def correct(S: Tensor, write: Write) -> Tensor:
    """S ← S + β k (v − Sᵀk)ᵀ (eq-delta-step)."""
    one_pair(write)
    return correct_together(S, write)


def correct_together(S: Tensor, write: Write) -> Tensor:
    """S ← S + β Σ_j k_j (v_j − Sᵀk_j)ᵀ, over the pairs of a write."""
    k, v = torch.atleast_2d(write.k), torch.atleast_2d(write.v)
    return S + one("beta", write) * k.mT @ (v - k @ S)


def error(X: Tensor, _: Any, write: Write) -> Tensor:
    """½‖Xᵀk − v‖²."""
    return half_error(X, write)


def beta_of(_: Any, write: Write) -> Number:
    """η = β, a number or one per channel."""
    return channels(write.beta)


def fade(S: Tensor, write: Write) -> Tensor:
    """Diag(γ) S."""
    return channels(write.decay) * S


def fade_and_correct(S: Tensor, write: Write) -> Tensor:
    """The correction of the faded memory: (I − β k kᵀ) Diag(γ) S + β k vᵀ."""
    return correct(fade(S, write), write)


def factor(_: Any, write: Write) -> Tensor:
    """γ (1 − β‖k‖²)."""
    return as_vector(write.decay * (1 - write.beta * power(write)), write)


def factor_limit(_: Any, write: Write) -> float:
    """|γ (1 − β‖k‖²)| ≤ 1, in the channel that fades the least.

    A limit is inf where nothing is kept, or nothing written (k = 0).
    """
    return ((1 + 1 / as_vector(write.decay, write).max()) / power(write)).item()


ERROR, DECAYED = r"$\tfrac12\lVert S k - v\rVert^2$", r"explicit at $\gamma S$, $\eta = \beta$"
EXPLICIT = r"explicit, $\eta = \beta$"

DELTANET = Rule(
    "DeltaNet",
    "2102.11174",
    "explicit",
    error,
    correct,
    beta_of,
    lambda _, write: as_vector(1 - write.beta * power(write), write),
    Formulas(
        ERROR,
        EXPLICIT,
        r"$S(I - \beta k k^\top) + \beta v k^\top$",
        r"$1 - \beta\lVert k\rVert^2$",
        r"$2/\lVert k\rVert^2$",
    ),
    lambda _, write: (2 / power(write)).item(),
)
GATED_DELTANET = Rule(
    "Gated DeltaNet",
    "2412.06464",
    "explicit",
    error,
    fade_and_correct,
    beta_of,
    factor,
    Formulas(
        ERROR,
        DECAYED,
        r"$\gamma S(I - \beta k k^\top) + \beta v k^\top$",
        r"$\gamma(1 - \beta\lVert k\rVert^2)$",
        r"$(1 + 1/\gamma)/\lVert k\rVert^2$",
    ),
    factor_limit,
    faded=fade,
)
KDA = Rule(
    "KDA",
    "2510.26692",
    "explicit",
    error,
    fade_and_correct,
    beta_of,
    factor,
    Formulas(
        ERROR,
        r"explicit at $S\,\mathrm{Diag}(\gamma)$, $\eta = \beta$",
        r"$S\,\mathrm{Diag}(\gamma)(I - \beta k k^\top) + \beta v k^\top$",
        r"$\gamma_c(1 - \beta\lVert k\rVert^2)$ for equal $\gamma_c$",
        r"at least $(1 + 1/\max_c \gamma_c)/\lVert k\rVert^2$",
    ),
    factor_limit,
    faded=fade,
)


def error_and_size(X: Tensor, _: Any, write: Write) -> Tensor:
    """½‖Xᵀk − v‖² + ½ Σ_c (1 − γ_c)/β_c ‖X_c‖²: the memory fades as part of the step."""
    return half_error(X, write) + energy(X, (1 - write.decay) / write.beta)


def difference(_: Any, write: Write) -> Tensor:
    """γ − β‖k‖²."""
    return as_vector(write.decay - write.beta * power(write), write)


def difference_limit(_: Any, write: Write) -> float:
    """|γ − β‖k‖²| ≤ 1, in the channel that fades the most."""
    return ((1 + as_vector(write.decay, write).min()) / power(write)).item()


def comba_step(S: Tensor, write: Write) -> Tensor:
    """S ← γ S + β k (v − Sᵀk)ᵀ: the error is that of the memory before it fades."""
    return correct(S, write) - channels(1 - write.decay) * S


COMBA = Rule(
    "Comba",
    "2506.02475",
    "explicit",
    error_and_size,
    comba_step,
    beta_of,
    difference,
    Formulas(
        r"$\tfrac12\lVert S k - v\rVert^2 + \tfrac{1-\gamma}{2\beta}\lVert S\rVert^2$",
        EXPLICIT,
        r"$S(\gamma I - \beta k k^\top) + \beta v k^\top$",
        r"$\gamma - \beta\lVert k\rVert^2$",
        r"$(1 + \gamma)/\lVert k\rVert^2$",
    ),
    difference_limit,
    note="The model gives the erased share, β k kᵀ, a further factor, and reads with q − d k.",
)


def rwkv7_step(S: Tensor, write: Write) -> Tensor:
    """S ← Diag(γ) S + (β ⊙ k)(v − Sᵀk)ᵀ, with one β per channel."""
    k, v = one_pair(write)
    return fade(S, write) + torch.outer(write.beta * k, v - k @ S)


def rwkv7_released(S: Tensor, write: Write) -> Tensor:
    """S ← (Diag(γ) − (β ⊙ k) kᵀ) S + k̃ vᵀ, with a key k̃ of its own for the value."""
    if write.write_key is None:
        raise ValueError("write must have a write_key [K] for the released RWKV-7, got None")
    k, v = one_pair(write)
    return fade(S, write) - torch.outer(write.beta * k, k @ S) + torch.outer(write.write_key, v)


RWKV7 = Rule(
    "RWKV-7",
    "2503.14456",
    "explicit",
    error_and_size,
    rwkv7_step,
    beta_of,
    difference,
    Formulas(
        r"$\tfrac12\lVert S k - v\rVert^2 + \tfrac12\sum_c \tfrac{1-\gamma_c}{\beta_c}"
        r"\lVert S_{:c}\rVert^2$",
        r"explicit, $\eta = \mathrm{Diag}(\beta)$",
        r"$S(\mathrm{Diag}(\gamma) - k(\beta\odot k)^\top) + v(\beta\odot k)^\top$",
        r"$\gamma_c - \beta_c\lVert k\rVert^2$ for equal channels",
        r"$(1 + \gamma)/\lVert k\rVert^2$ for equal channels",
    ),
    difference_limit,
    released=rwkv7_released,
    note="The released model writes the value under a key of its own instead of β ⊙ k.",
)


def in_turn(write: Write) -> list[Write]:
    """The n pairs of a token as n writes."""
    k, v = torch.atleast_2d(write.k), torch.atleast_2d(write.v)
    beta = as_vector(write.beta, write).expand(len(k))
    return [replace(write, k=k, v=v, beta=b) for k, v, b in zip(k, v, beta, strict=True)]


def correct_in_turn(S: Tensor, write: Write) -> Tensor:
    """n corrections, each of what the one before it has left."""
    for part in in_turn(write):
        S = correct(S, part)
    return S


def powers(write: Write) -> Tensor:
    """‖k_j‖², of each pair."""
    return write.k.square().sum(-1)


DELTAPRODUCT = Rule(
    "DeltaProduct",
    "2502.10297",
    "explicit",
    error,
    correct_in_turn,
    beta_of,
    lambda _, write: 1 - as_vector(write.beta, write) * powers(write),
    Formulas(
        r"$\tfrac12\lVert S k_j - v_j\rVert^2$, $j = 1, \dots, n$",
        r"$n$ explicit steps, $\eta = \beta_j$",
        r"$n$ times $S(I - \beta_j k_j k_j^\top) + \beta_j v_j k_j^\top$",
        r"$1 - \beta_j\lVert k_j\rVert^2$ for orthogonal $k_j$",
        r"$2/\lVert k_j\rVert^2$",
    ),
    lambda _, write: (2 / powers(write).max()).item(),
    parts=in_turn,
)


def batch_power(write: Write) -> Tensor:
    """The largest eigenvalue of Σ_j k_j k_jᵀ; ‖k‖² for one pair."""
    return torch.linalg.matrix_norm(torch.atleast_2d(write.k), 2) ** 2


TTT_LINEAR = Rule(
    "TTT-Linear",
    "2407.04620",
    "explicit",
    error,
    correct_together,
    beta_of,
    lambda _, write: as_vector(1 - write.beta * batch_power(write), write),
    Formulas(
        r"$\tfrac12\sum_{j \le b}\lVert S k_j - v_j\rVert^2$",
        r"explicit at the mini-batch's start, $\eta = \beta$",
        r"$S + \beta\sum_{j \le b} (v_j - S k_j) k_j^\top$",
        r"$1 - \beta\lambda_{\max}(\sum_j k_j k_j^\top)$",
        r"$2/\lambda_{\max}(\sum_j k_j k_j^\top)$",
    ),
    lambda _, write: (2 / batch_power(write)).item(),
    note="The model also normalises the reading and adds k; then there is no closed recurrence.",
)
