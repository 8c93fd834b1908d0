"""Softmax attention as a layer: a memory that keeps every token, and so grows with them."""

from __future__ import annotations

from typing import NamedTuple

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from assocmem.arguments import check_bool, check_counts
from assocmem.distributed import Piece
from assocmem.nn.cache import checked_cache, has_borders
from assocmem.nn.mixer import Mixer
from assocmem.nn.place import Packed, following
from assocmem.nn.rotary import check_rotary, rotate
from assocmem.nn.state import saveable
from assocmem.ops.softmax_attention import attend, attend_packed


@saveable
class KVCache(NamedTuple):
    """What softmax attention remembers of S tokens: all of them.

    S is also the position of the next token: with rotary, a cache that is cut at its front turns it
    by too little. Under `torch.autocast` the cache has its dtype, and fits pieces under autocast
    only.

    Args:
        k: keys `[B, S, H, K]`, turned by their positions with rotary; with n_kv_heads, of that many
            heads.
        v: values `[B, S, H, V]`, likewise.
        g: log decays `[B, S, H]`, or None without a forget gate.
        cu_seqlens: borders `[N + 1]` of N packed sequences. After packed tokens they lie in one
            row, B = 1; after a batch in N rows, the shorter ones behind zeros. None for B sequences
            of S.
    """

    k: Tensor
    v: Tensor
    g: Tensor | None
    cu_seqlens: Tensor | None = None


class SoftmaxAttention(Mixer):
    """Multi-head causal softmax attention (Vaswani et al., arXiv:1706.03762).

    y = W_o o, with o the heads' outputs of `ops.softmax_attention` on W_q x, W_k x and W_v x. With
    a forget gate the log decay is g = log σ(W_f x + b_f) (Lin et al., arXiv:2503.02130). With fewer
    heads of keys and values than of queries, consecutive heads of queries share one (grouped-query
    attention, Ainslie et al., arXiv:2305.13245): the cache is that much smaller.

    Args:
        d_model: size of the tokens.
        n_heads: number of heads H.
        d_key: size K of a head's keys, d_model / n_heads when None.
        d_value: size V of a head's values, d_model / n_heads when None.
        n_kv_heads: number of heads of keys and values, which divides H; H when None.
        forget_gate: let the weights of earlier tokens decay.
        rotary: turn channels 2i and 2i + 1 of queries and keys by their position times
            10000^(−2i/K) (RoPE, arXiv:2104.09864); needs an even K.
        backend: as for `ops.softmax_attention`.

    Weights: `Mixer`'s projections, k_proj and v_proj of n_kv_heads heads; with forget_gate
    forget_proj `[H, d_model]` with bias, `nn.Linear`'s initialisation.

    Raises:
        TypeError, ValueError: as `Mixer`, or when n_kv_heads is not an integer that divides
            n_heads, K is odd with rotary, or forget_gate or rotary not a bool.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> layer = nn.SoftmaxAttention(d_model=32, n_heads=4)
        >>> y, state = layer(torch.randn(2, 10, 32))
        >>> y.shape, state.k.shape
        (torch.Size([2, 10, 32]), torch.Size([2, 10, 4, 8]))
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        d_key: int | None = None,
        d_value: int | None = None,
        n_kv_heads: int | None = None,
        forget_gate: bool = False,
        rotary: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(d_model, n_heads, d_key=d_key, d_value=d_value, backend=backend)
        self.n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        check_counts(n_kv_heads=self.n_kv_heads)
        if n_heads % self.n_kv_heads:
            raise ValueError(f"n_kv_heads must divide n_heads = {n_heads}, got {n_kv_heads}")
        check_bool("forget_gate", forget_gate)
        check_bool("rotary", rotary)
        if rotary:
            check_rotary(self.d_key)
        self.rotary = rotary
        if self.n_kv_heads < n_heads:
            self.k_proj = nn.Linear(d_model, self.n_kv_heads * self.d_key, bias=False)
            self.v_proj = nn.Linear(d_model, self.n_kv_heads * self.d_value, bias=False)
        self.forget_proj = nn.Linear(d_model, n_heads) if forget_gate else None

    def extra_repr(self) -> str:
        """Heads, their sizes, and positions."""
        return f"{super().extra_repr()}, n_kv_heads={self.n_kv_heads}, rotary={self.rotary}"

    def forward(
        self,
        x: Tensor,
        state: KVCache | None = None,
        *,
        group: dist.ProcessGroup | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, KVCache]:
        """Attend from every token to all tokens so far.

        With group every rank gathers the keys and values of all ranks: what is sent and kept grows
        with the sequence, and the last rank, whose queries see the most, has the most to do.

        Args:
            x: tokens `[B, T, d_model]`.
            state: what an earlier piece handed back, with S tokens; None at the start.
            group: the ranks on which the pieces x of a sequence lie, as `Streaming` says.
            cu_seqlens: borders of N packed sequences `[N + 1]`, as `Streaming` says.

        Returns:
            y `[B, T, d_model]`, and the state with S + T tokens, for the next piece.

        Raises:
            TypeError, ValueError: when x is not `[B, T, d_model]`, or the state or cu_seqlens do
                not fit it.
            NotImplementedError: when sequences are packed, and a group is given.
        """
        if group is not None and (cu_seqlens is not None or has_borders(state)):
            raise NotImplementedError("SoftmaxAttention takes no packed sequences with a group")
        q, k, v = self.project(x, cu_seqlens)
        q, k, v = self.heads(q), *(y.unflatten(-1, (self.n_kv_heads, -1)) for y in (k, v))
        g = None if self.forget_proj is None else F.logsigmoid(self.forget_proj(x))
        if state is not None:
            state = checked_cache(state, KVCache(k, v, g, cu_seqlens))
        piece = Piece(x, group)
        place = following(state, q, cu_seqlens, piece.start)
        if self.rotary:
            positions = place.positions()
            q, k = rotate(q, positions), rotate(k, positions)
        k, v, g = piece.whole(k, v, g)
        if state is not None:
            k, v = place.append(state.k, k), place.append(state.v, v)
            g = None if g is None or state.g is None else place.append(state.g, g)
        if isinstance(place, Packed):
            o = attend_packed(q, k, v, g, None, self.backend, place.new, place.borders)
        else:
            k_seen, v_seen = k[:, place.seen], v[:, place.seen]
            g_seen = None if g is None else g[:, place.seen]
            o = attend(q, k_seen, v_seen, g_seen, None, self.backend, place.hidden)
        return self.o_proj(o.flatten(-2)), KVCache(k, v, g, place.borders)
