"""Rules that add: the memory fades, and every pair is laid on top, whatever is there already."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from assocmem.rules.rule import (
    Formulas,
    Number,
    Rule,
    Write,
    agreement,
    as_vector,
    channels,
    energy,
    one,
    one_pair,
)


def add(S: Tensor, write: Write) -> Tensor:
    """S ← Diag(γ) S + β k vᵀ."""
    k, v = one_pair(write)
    return channels(write.decay) * S + one("beta", write) * torch.outer(k, v)


def align(X: Tensor, _: Any, write: Write) -> Tensor:
    """−β⟨Xᵀk, v⟩ + ½ Σ_c (1 − γ_c)‖X_c‖²: point along the value, and stay small."""
    return -write.beta * agreement(X, write) + energy(X, 1 - write.decay)


def unit_rate(_: Any, __: Write) -> Number:
    """η = 1."""
    return 1.0


def decay_of(_: Any, write: Write) -> Tensor:
    """The decay itself: an addition leaves what is stored as it is."""
    return as_vector(write.decay, write)


def adding(
    name: str, source: str, objective: str, recurrence: str, eigenvalue: str, *gates: str
) -> Rule:
    """A rule that has these gates of a write, and leaves the others out."""
    return Rule(
        name,
        source,
        "explicit",
        lambda X, state, write: align(X, state, write.only(*gates)),
        lambda S, write: add(S, write.only(*gates)),
        unit_rate,
        lambda state, write: decay_of(state, write.only(*gates)),
        Formulas(objective, r"explicit, $\eta = 1$", recurrence, eigenvalue, "any"),
    )


LINEAR_ATTENTION = adding(
    "Linear attention",
    "2006.16236",
    r"$-\langle S k, v\rangle$",
    r"$S + v k^\top$",
    "$1$",
)
RETNET = adding(
    "RetNet",
    "2307.08621",
    r"$-\langle S k, v\rangle + \tfrac{1-\gamma}{2}\lVert S\rVert^2$",
    r"$\gamma S + v k^\top$, $\gamma$ fixed",
    r"$\gamma$",
    "decay",
)
MAMBA2 = adding(
    "Mamba-2",
    "2405.21060",
    r"$-\beta\langle S k, v\rangle + \tfrac{1-\gamma}{2}\lVert S\rVert^2$",
    r"$\gamma S + \beta v k^\top$",
    r"$\gamma$",
    "decay",
    "beta",
)
CHANNELS = r"$-\langle S k, v\rangle + \tfrac12\sum_c (1-\gamma_c)\lVert S_{:c}\rVert^2$"
GLA = adding(
    "GLA",
    "2312.06635",
    CHANNELS,
    r"$S\,\mathrm{Diag}(\gamma) + v k^\top$",
    r"$\gamma_c$",
    "decay",
)
RWKV6 = adding(
    "RWKV-6",
    "2404.05892",
    CHANNELS,
    r"$S\,\mathrm{Diag}(\gamma) + v k^\top$; reads $S_{t-1}$ and a bonus",
    r"$\gamma_c$",
    "decay",
)


def fill(S: Tensor, write: Write) -> Tensor:
    """S_c ← γ_c S_c + (1 − γ_c) v, one row per channel: what fades makes room for the value."""
    _, v = one_pair(write)
    free = 1 - as_vector(write.decay, write).expand(S.shape[0])
    return channels(write.decay) * S + torch.outer(free, v)


def near_the_value(X: Tensor, _: Any, write: Write) -> Tensor:
    """½ Σ_c (1 − γ_c)‖X_c − v‖²."""
    return energy(X - write.v, 1 - write.decay)


HGRN2 = Rule(
    "HGRN2",
    "2404.07904",
    "explicit",
    near_the_value,
    fill,
    unit_rate,
    decay_of,
    Formulas(
        r"$\tfrac12\sum_c (1-\gamma_c)\lVert S_{:c} - v\rVert^2$",
        r"explicit, $\eta = 1$",
        r"$S\,\mathrm{Diag}(\gamma) + v (1-\gamma)^\top$",
        r"$\gamma_c$",
        "any",
    ),
    note="The key is 1 − γ: of the rules that add, the only one whose loss is an error.",
)
