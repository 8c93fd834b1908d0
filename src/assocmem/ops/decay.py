"""The decays within chunks and at one token, for each kind of gate: none, per head, per channel.

From the natural logarithms g of the C tokens' decays follow Γ_ts, the decay from token s to token
t, γ_t from the chunk's start to t, and ρ_s from s to the chunk's end. Every one is the exponential
of a sum over its own terms: as a difference of two running sums it would lose the digits that the
two share, and turn a decay of zero (g = -inf) into inf − inf. They are computed in g's dtype, and
cast to that of what they multiply.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from assocmem.ops.transforms import transformed


def lower(A: Tensor) -> Tensor:
    """A with zeros above its diagonal, in place except under `vmap`, which has no rule for that."""
    return A.tril() if transformed() else A.tril_()


class NoDecay:
    """A memory that forgets nothing: all decays are 1."""

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Q Kᵀ ⊙ Γ for s ≤ t, else 0."""
        return lower(q @ k.mT)

    def since_start(self, q: Tensor) -> Tensor:
        """γ ⊙ Q."""
        return q

    def until_end(self, k: Tensor) -> Tensor:
        """ρ ⊙ K."""
        return k

    def over_chunk(self, i: int, S: Tensor) -> Tensor:
        """γ_C S for chunk i."""
        return S

    def written(self, i: int, S: Tensor, k: Tensor, U: Tensor) -> Tensor:
        """γ_C S + (ρ ⊙ K)ᵀ U for chunk i, whose keys are k."""
        return torch.baddbmm(S, k.mT, U)


class HeadDecay:
    """One decay per head and token, `[n, N, C]` for n chunks."""

    def __init__(self, g: Tensor) -> None:
        self.Γ, self.γ = log_decay_matrix(g).exp(), g.cumsum(-1).exp()
        self.ρ = self.Γ[..., -1, :, None]
        self.γ_C, self.ρ_of_chunk = self.γ[..., -1, None, None].unbind(), self.ρ.unbind()

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Q Kᵀ ⊙ Γ for s ≤ t, else 0."""
        return lower(q @ k.mT * self.Γ.to(q))

    def since_start(self, q: Tensor) -> Tensor:
        """γ ⊙ Q."""
        return self.γ.to(q)[..., None] * q

    def until_end(self, k: Tensor) -> Tensor:
        """ρ ⊙ K; ρ is Γ's last row."""
        return self.ρ.to(k) * k

    def over_chunk(self, i: int, S: Tensor) -> Tensor:
        """γ_C S for chunk i."""
        return self.γ_C[i].to(S) * S

    def written(self, i: int, S: Tensor, k: Tensor, U: Tensor) -> Tensor:
        """γ_C S + Kᵀ (ρ ⊙ U) for chunk i, whose keys are k.

        With rows of ρ ⊙ K, each rounded in its own way, equal keys would no longer be equal, and
        where β is near 2 the errors in the gradient of U would not cancel.
        """
        return torch.baddbmm(self.over_chunk(i, S), k.mT, self.ρ_of_chunk[i].to(U) * U)


class ChannelDecay:
    """One decay per channel of the keys, head and token, `[n, N, C, K]` for n chunks.

    Neighbouring blocks are merged, of 1, 2, 4, … tokens. The decay from s in the earlier block to
    t in the later one splits at their border into a factor for the key and one for the query, both
    at most 1, so a merge is a matrix product and nothing overflows.
    """

    def __init__(self, g: Tensor) -> None:
        C = g.shape[-2]
        since = in_blocks(g)  # logarithms: from the block's start to t, t included
        after = torch.zeros_like(since)  # from s to the block's end, without s
        self.dtype, self.merges = g.dtype, []
        while since.shape[-3] > 1:
            (since_earlier, since_later), (after_earlier, after_later) = map(pairs, (since, after))
            self.merges.append((after_earlier.exp(), since_later.exp()))
            earlier, later = since_earlier[..., -1:, :], since_later[..., -1:, :]  # whole blocks
            since = torch.cat((since_earlier, since_later + earlier), -2)
            after = torch.cat((after_earlier + later, after_later), -2)
        self.γ, self.ρ = since[..., 0, :C, :].exp(), after[..., 0, :C, :].exp()
        self.γ_C = self.γ[..., -1, :, None].unbind()

    @cached_property
    def near_and_rest(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """ρ of every chunk in two parts: 1 where it exceeds ½, else 0, and what remains."""
        near = (self.ρ > 0.5).to(self.ρ)
        return near.unbind(), (self.ρ - near).unbind()

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Σ_c q_tc k_sc Γ_tsc for s ≤ t, else 0, computed in g's dtype."""
        C, dtype = q.shape[-2], q.dtype
        q, k = (in_blocks(x.to(self.dtype)) for x in (q, k))
        A = (q * k).sum(-1, keepdim=True)  # [..., blocks, b, b]
        for from_key, to_query in self.merges:
            (_, q_later), (k_earlier, _), (earlier, later) = map(pairs, (q, k, A))
            cross = (q_later * to_query) @ (k_earlier * from_key).mT
            above = torch.cat((earlier, torch.zeros_like(cross)), -1)
            A = torch.cat((above, torch.cat((cross, later), -1)), -2)
            q, k = (x.unflatten(-3, (-1, 2)).flatten(-3, -2) for x in (q, k))
        return A[..., 0, :C, :C].to(dtype)

    def since_start(self, q: Tensor) -> Tensor:
        """γ ⊙ Q."""
        return self.γ.to(q) * q

    def until_end(self, k: Tensor) -> Tensor:
        """ρ ⊙ K."""
        return self.ρ.to(k) * k

    def over_chunk(self, i: int, S: Tensor) -> Tensor:
        """γ_C S for chunk i."""
        return self.γ_C[i].to(S) * S

    def written(self, i: int, S: Tensor, k: Tensor, U: Tensor) -> Tensor:
        """γ_C S + (ρ ⊙ K)ᵀ U for chunk i, whose keys are k; ρ > ½ is split into 1 and ρ − 1."""
        near, rest = (part[i].to(k) for part in self.near_and_rest)
        S = torch.baddbmm(self.over_chunk(i, S), (near * k).mT, U)
        return torch.baddbmm(S, (rest * k).mT, U)


def decay_of(g: Tensor | None) -> NoDecay | HeadDecay | ChannelDecay:
    """The decays of n chunks from g: None, `[n, N, C]` or `[n, N, C, K]`."""
    if g is None:
        return NoDecay()
    return HeadDecay(g) if g.ndim == 3 else ChannelDecay(g)


def decayed(S: Tensor, g: Tensor) -> Tensor:
    """Diag(exp g) S for one token, S `[B, H, K, V]` and g `[B, H]` or `[B, H, K]`."""
    decay = g.to(S).exp()
    return (decay[..., None] if g.ndim == 3 else decay[..., None, None]) * S


def log_decay_matrix(g: Tensor) -> Tensor:
    """Σ_{s<r≤t} g_r for s ≤ t, else 0, from one log decay per token `[..., C]`."""
    C = g.shape[-1]
    terms = g[..., :, None].expand(*g.shape, C)
    later = torch.ones(C, C, dtype=torch.bool, device=g.device).tril(-1)  # r > s
    return terms.where(later, 0).cumsum(-2)


def in_blocks(x: Tensor) -> Tensor:
    """C tokens `[..., C, K]` as blocks of one, `[..., blocks, 1, K]`, a power of two of them.

    Rows of zeros fill the last ones up.
    """
    C = x.shape[-2]
    return F.pad(x, (0, 0, 0, (1 << (C - 1).bit_length()) - C)).unsqueeze(-2)


def pairs(x: Tensor) -> tuple[Tensor, ...]:
    """Blocks `[..., blocks, b, K]` as earlier and later ones."""
    return x.unflatten(-3, (-1, 2)).unbind(-3)


def sum_after(g: Tensor) -> Tensor:
    """Σ_{r>s} g_r along the second to last dimension, without the term at s itself."""
    later = torch.cat((g[..., 1:, :], torch.zeros_like(g[..., :1, :])), -2)
    return later.flip(-2).cumsum(-2).flip(-2)
