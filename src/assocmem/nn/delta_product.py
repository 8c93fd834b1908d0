"""DeltaProduct as a layer: DeltaNet that corrects its memory several times per token."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from assocmem.arguments import check_count
from assocmem.nn.delta_net import DeltaNet
from assocmem.nn.short_convolution import ShortConvolution


class DeltaProduct(DeltaNet):
    """Multi-head delta rule with n keys, values and step sizes per token (arXiv:2502.10297).

    As `DeltaNet`, but every token writes n pairs, one after the other, before its query reads: it
    multiplies the memory by a product of n transitions I − β k kᵀ.

    Args:
        d_model: size of the tokens.
        n_heads: number of heads H.
        n_corrections: pairs n that a token writes.
        **options: those of `DeltaNet`: d_key, d_value, allow_negative_eigenvalues, conv_width,
            backend.

    Weights: those of `DeltaNet`, with k_proj `[n·H·K, d_model]`, v_proj `[n·H·V, d_model]`,
    beta_proj `[n·H, d_model]`, and conv over the channels of q and all of k and v.

    Raises:
        TypeError, ValueError: as `DeltaNet`, or when n_corrections is not an integer >= 1.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> layer = nn.DeltaProduct(d_model=32, n_heads=4, n_corrections=3)
        >>> y, state = layer(torch.randn(2, 10, 32))
        >>> y.shape, state.S.shape
        (torch.Size([2, 10, 32]), torch.Size([2, 4, 8, 8]))
    """

    def __init__(
        self, d_model: int, n_heads: int, *, n_corrections: int = 2, conv_width: int = 4,
        **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(d_model, n_heads, conv_width=conv_width, **options)
        check_count("n_corrections", n_corrections)
        self.n_corrections = n_corrections
        writes = n_corrections * n_heads
        self.k_proj = nn.Linear(d_model, writes * self.d_key, bias=False)
        self.v_proj = nn.Linear(d_model, writes * self.d_value, bias=False)
        self.beta_proj = nn.Linear(d_model, writes, bias=False)
        channels = n_heads * self.d_key + writes * (self.d_key + self.d_value)
        self.conv = ShortConvolution(channels, conv_width)

    def in_turn(self, x: Tensor) -> Tensor:
        """From `[B, T, n·H·c]` to `[B, T·n, H, c]`: the n pairs of a token one after the other."""
        return x.unflatten(-1, (self.n_corrections, self.n_heads, -1)).flatten(1, 2)

    def corrected(
        self, qkv: tuple[Tensor, ...], x: Tensor, S: Tensor | None,
        group: dist.ProcessGroup | None, cu_seqlens: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """What is read after the last pair of every token, from a memory that all pairs correct."""
        q, k, v = qkv
        n, beta = self.n_corrections, self.in_turn(self.beta(x))[..., 0]
        q, k, v = self.heads(q).repeat_interleave(n, 1), self.in_turn(k), self.in_turn(v)
        g, borders = self.log_decay(x), None if cu_seqlens is None else n * cu_seqlens
        if g is not None:  # in a layer that fades: once per token, before its first pair
            g = torch.stack((g, *[torch.zeros_like(g)] * (n - 1)), 2).flatten(1, 2)
        o, S = self.scan(q, k, v, beta, g, S, group, borders)
        return o[:, n - 1 :: n], S
