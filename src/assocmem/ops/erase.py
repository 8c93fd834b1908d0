"""What a write erases: the weights of the earlier values, from an erase key and the earlier keys.

P_ts = κ₁(w_t, k_s) for s < t, else 0. Three kernel functions κ₁: the softmax over s < t of w_tᵀ k_s
(scaled beforehand), with which the first token erases nothing; w_tᵀ k_s; and max(0, w_tᵀ k_s).
"""

from __future__ import annotations

import torch
from torch import Tensor

ERASE = ("softmax", "linear", "relu")


def check_erase(erase: str) -> None:
    """Check the name of κ₁."""
    if erase not in ERASE:
        raise ValueError(f"erase must be one of {list(ERASE)}, got {erase!r}")


def weights(scores: Tensor, erase: str) -> Tensor:
    """κ₁ from the scores w_tᵀ k_s of all earlier tokens, in the last dimension."""
    if erase == "softmax":
        return scores.softmax(-1)
    return scores.relu() if erase == "relu" else scores


def strip(w: Tensor, k: Tensor, erase: str) -> Tensor:
    """P `[..., C, S]` of the last C of S tokens, from w `[..., C, K]` and k `[..., S, K]`."""
    C, S = w.shape[-2], k.shape[-2]
    scores = w @ k.mT
    if erase == "softmax":
        not_before = torch.ones(C, C, dtype=torch.bool, device=w.device).triu()  # s ≥ t
        scores[..., S - C :].masked_fill_(not_before, -torch.inf)
    P = weights(scores, erase)
    P[..., S - C :].tril_(-1)  # also row 0 of a sequence, whose softmax of nothing is NaN
    return P


def score_gradient(P: Tensor, dP: Tensor, dP_P: Tensor, erase: str) -> Tensor:
    """The gradient of a strip's scores from dP, which it overwrites.

    dP_P is the inner product of each row of dP with P's, `[..., C]`.
    """
    if erase == "softmax":
        return dP.sub_(dP_P[..., None]).mul_(P)
    if erase == "relu":
        return dP.mul_(P > 0)
    C, S = P.shape[-2:]
    dP[..., S - C :].tril_(-1)
    return dP
