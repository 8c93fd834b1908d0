"""Rules that do more than one explicit step: implicit, with momentum, or to the minimum."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from assocmem.rules.correcting import beta_of, correct, fade
from assocmem.rules.rule import (
    Formulas,
    Rule,
    Write,
    as_vector,
    empty_matrix,
    energy,
    half_error,
    one,
    one_pair,
    power,
)


def proximal_rate(beta: float | Tensor, k: Tensor) -> Tensor:
    """δ = β/(1 + β‖k‖²), the explicit step size of the implicit step of size β (Longhorn).

    Args:
        beta: step sizes `[...]`, or a number.
        k: keys `[..., K]`.

    Returns:
        δ `[...]`, in float32 where k is in half precision, which may not hold ‖k‖².
    """
    k = k.to(torch.promote_types(k.dtype, torch.float32))
    return beta / (1 + beta * k.square().sum(-1))


def longhorn_step(S: Tensor, write: Write) -> Tensor:
    """S ← (I − δ k kᵀ) S + δ k vᵀ."""
    k, v = one_pair(write)
    return S + proximal_rate(one("beta", write), k) * torch.outer(k, v - k @ S)


def longhorn_released(S: Tensor, write: Write) -> Tensor:
    """S ← (I − δ Diag(k ⊙ k)) S + δ k vᵀ: the diagonal of k kᵀ alone, so that a scan is cheap."""
    k, v = one_pair(write)
    delta = proximal_rate(write.beta, k)
    return (1 - delta * k.square())[:, None] * S + delta * torch.outer(k, v)


LONGHORN = Rule(
    "Longhorn",
    "2407.14207",
    "implicit",
    lambda X, S, write: 0.5 * (X - S).square().sum() + write.beta * half_error(X, write),
    longhorn_step,
    lambda _, write: proximal_rate(write.beta, write.k),
    lambda _, write: as_vector(1 / (1 + write.beta * power(write)), write),
    Formulas(
        r"$\tfrac12\lVert S - S_{t-1}\rVert^2 + \tfrac\beta2\lVert S k - v\rVert^2$",
        "implicit: its minimiser",
        r"$S(I - \delta k k^\top) + \delta v k^\top$, "
        r"$\delta = \frac{\beta}{1+\beta\lVert k\rVert^2}$",
        r"$\frac{1}{1+\beta\lVert k\rVert^2}$",
        "any",
    ),
    released=longhorn_released,
    note="The released model keeps only the diagonal of k kᵀ, with one β per channel of v.",
)


class WithMomentum(NamedTuple):
    """A memory S `[K, V]`, and the step M `[K, V]` that made it."""

    S: Tensor
    M: Tensor


def titans_step(state: WithMomentum, write: Write) -> WithMomentum:
    """M ← μ M + 2 β k (v − Sᵀk)ᵀ,  S ← γ S + M."""
    S, M = state
    M = write.momentum * M + 2 * (correct(S, write) - S)
    return WithMomentum(fade(S, write) + M, M)


def titans_objective(X: Tensor, state: WithMomentum, write: Write) -> Tensor:
    """‖Xᵀk − v‖² + (1 − γ)/(2β) ‖X‖² − (μ/β) ⟨M, X⟩: momentum is a linear term."""
    inertia = write.momentum / write.beta * (state.M * X).sum()
    return 2 * half_error(X, write) + energy(X, (1 - write.decay) / write.beta) - inertia


def titans_factors(_: Any, write: Write) -> Tensor:
    """The two eigenvalues of (S, M) along the key: λ² − (γ + μ − 2β‖k‖²) λ + γμ = 0."""
    decay, momentum = as_vector(write.decay, write), as_vector(write.momentum, write)
    half = (decay + momentum - 2 * write.beta * power(write)) / 2
    root = torch.sqrt((half.square() - decay * momentum).to(torch.complex128))
    return torch.cat((half + root, half - root))


def titans_limit(_: Any, write: Write) -> float:
    """|λ| ≤ 1, in the channel that fades the most."""
    decay = as_vector(write.decay, write).min()
    return float((1 + decay) * (1 + write.momentum) / (2 * power(write)))


TITANS = Rule(
    "Titans",
    "2501.00663",
    "explicit",
    titans_objective,
    titans_step,
    beta_of,
    titans_factors,
    Formulas(
        r"$\lVert S k - v\rVert^2 + \tfrac{1-\gamma}{2\beta}\lVert S\rVert^2"
        r" - \tfrac{\mu}{\beta}\langle M, S\rangle$",
        r"explicit, $\eta = \beta$, momentum $\mu$",
        r"$\gamma S + M$, $M \leftarrow \mu M + 2\beta(v - S k)k^\top$",
        r"$\lambda^2 - (\gamma+\mu-2\beta\lVert k\rVert^2)\lambda + \gamma\mu = 0$",
        r"$(1+\gamma)(1+\mu)/(2\lVert k\rVert^2)$",
    ),
    titans_limit,
    empty=lambda write: WithMomentum(empty_matrix(write), empty_matrix(write)),
    memory=lambda state: state.S,
    faded=lambda state, _: state.S,
    note="The linear memory; the deep one has no closed form. The loss is not halved.",
)


class Moments(NamedTuple):
    """G = Σ γ^… k vᵀ `[K, V]`, H = Σ γ^… k kᵀ `[K, K]`, and the ridge Λ, a number or `[K]`."""

    G: Tensor
    H: Tensor
    ridge: float | Tensor

    def regularised(self) -> Tensor:
        """H + Λ."""
        return self.H + torch.diag(as_vector_of(self.ridge, self.H))


def as_vector_of(ridge: float | Tensor, H: Tensor) -> Tensor:
    """The ridge as one number per channel, `[K]`."""
    return torch.as_tensor(ridge, dtype=H.dtype, device=H.device).expand(len(H))


def mesa_step(state: Moments, write: Write) -> Moments:
    """G ← γ G + k vᵀ,  H ← γ H + k kᵀ; the memory is (H + Λ)⁻¹ G."""
    (k, v), γ = one_pair(write), one("decay", write)  # H stays symmetric
    return Moments(γ * state.G + torch.outer(k, v), γ * state.H + torch.outer(k, k), state.ridge)


def mesa_objective(X: Tensor, state: Moments, write: Write) -> Tensor:
    """½ Σ_j γ^{t−j} ‖Xᵀk_j − v_j‖² + ½⟨X, Λ X⟩ up to a constant, from the moments of the past."""
    past = 0.5 * (X * (state.H @ X)).sum() - (state.G * X).sum()
    ridge = energy(X, as_vector_of(state.ridge, state.H))
    return write.decay * past + half_error(X, write) + ridge


def mesa_factor(state: Moments, write: Write) -> Tensor:
    """1/(1 + kᵀ P k) with P = (H + Λ)⁻¹ before the write: exact without decay."""
    k, _ = one_pair(write)
    return as_vector(1 / (1 + k @ torch.linalg.solve(state.regularised(), k)), write)


MESANET = Rule(
    "MesaNet",
    "2506.05233",
    "exact",
    mesa_objective,
    mesa_step,
    lambda state, write: torch.linalg.inv(mesa_step(state, write).regularised()),
    mesa_factor,
    Formulas(
        r"$\tfrac12\sum_j \gamma^{t-j}\lVert S k_j - v_j\rVert^2"
        r" + \tfrac12\mathrm{tr}\,S\Lambda S^\top$",
        "exact: its minimiser",
        r"$G(H+\Lambda)^{-1}$, $G \leftarrow \gamma G + v k^\top$, "
        r"$H \leftarrow \gamma H + k k^\top$",
        r"$\frac{1}{1+k^\top(H_{t-1}+\Lambda)^{-1}k}$ for $\gamma = 1$",
        "any",
    ),
    empty=lambda write: Moments(
        empty_matrix(write), write.k.new_zeros(write.k.shape[-1], write.k.shape[-1]), write.ridge
    ),
    memory=lambda state: torch.linalg.solve(state.regularised(), state.G),
    note="Without decay this is recursive least squares (book, chapter 5, eq-rls). The model "
    "weighs each pair by a gate β besides; here it is 1.",
)
