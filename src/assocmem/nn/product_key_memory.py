"""A memory of n² keys, each a pair of sub-keys, that is searched by looking at 2n of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assocmem.arguments import check_counts
from assocmem.nn.tokens import check_tokens


class ProductKeyMemory(nn.Module):
    """A large feed-forward memory with product keys (Lample et al., arXiv:1907.05242).

        y = Σ_heads Σ_{(i, j) in top_k} softmax(q₁ᵀc_i + q₂ᵀc'_j) v_ij    (book, eq-product-score)

    The query q = W_q x has two halves, and every key (c_i, c'_j) consists of one sub-key from each
    of two lists of n. The best top_k of the n² keys are among the top_k² pairs of the best top_k
    of each list, so that no other score is computed. The softmax is over the top_k. There is no
    normalisation of the query.

    Args:
        d_model: size of the tokens, and so of the values.
        n_keys: sub-keys n in each list; the memory holds n² values, shared by all heads.
        top_k: how many values a head reads.
        d_key: size of a head's query, even; d_model when None.
        n_heads: heads, each with a query and sub-keys of its own.

    Weights: query_proj `[n_heads · d_key, d_model]` without bias, `nn.Linear`'s initialisation;
    sub_keys `[n_heads, 2, n_keys, d_key / 2]` and values `[n_keys², d_model]`, both Gaussian and of
    length about 1.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, d_key is odd, or top_k is above
            n_keys.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> memory = nn.ProductKeyMemory(d_model=16, n_keys=8, top_k=4)
        >>> memory(torch.randn(2, 10, 16)).shape
        torch.Size([2, 10, 16])
    """

    def __init__(
        self, d_model: int, n_keys: int, top_k: int, *, d_key: int | None = None, n_heads: int = 1
    ) -> None:
        super().__init__()
        d_key = d_model if d_key is None else d_key
        check_counts(d_model=d_model, n_keys=n_keys, top_k=top_k, d_key=d_key, n_heads=n_heads)
        if d_key % 2:
            raise ValueError(f"d_key must be even, got {d_key}")
        if top_k > n_keys:
            raise ValueError(f"top_k must be at most n_keys = {n_keys}, got {top_k}")
        self.top_k, self.n_keys, self.n_heads = top_k, n_keys, n_heads
        self.query_proj = nn.Linear(d_model, n_heads * d_key, bias=False)
        half = d_key // 2
        self.sub_keys = nn.Parameter(torch.empty(n_heads, 2, n_keys, half))
        self.values = nn.Parameter(torch.empty(n_keys**2, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw sub-keys and values, as when the memory is made."""
        for vectors in (self.sub_keys, self.values):
            nn.init.normal_(vectors, std=vectors.shape[-1] ** -0.5)

    def extra_repr(self) -> str:
        """Sizes, as they are printed."""
        return f"n_keys={self.n_keys}, top_k={self.top_k}, n_heads={self.n_heads}"

    def lookup(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The values that answer each token, and how much each counts, the largest first.

        Args:
            x: tokens `[..., d_model]`.

        Returns:
            Weights, and rows i · n_keys + j of the values, each `[..., n_heads, top_k]`.

        Raises:
            TypeError: when x is not a tensor of floats, or (but under autocast) in another dtype
                than the weights.
            ValueError: when x is not `[..., d_model]`, or on another device.
        """
        check_tokens(x, self.query_proj.in_features, self.query_proj)
        halves = self.query_proj(x).unflatten(-1, (self.n_heads, 2, -1))
        scores = torch.einsum("...hpd,hpnd->...hpn", halves, self.sub_keys)
        best, which = scores.topk(self.top_k, -1)
        sums = best[..., 0, :, None] + best[..., 1, None, :]
        top, pair = sums.flatten(-2).topk(self.top_k, -1)
        i = which[..., 0, :].gather(-1, pair // self.top_k)
        j = which[..., 1, :].gather(-1, pair % self.top_k)
        return top.softmax(-1), i * self.n_keys + j

    def forward(self, x: Tensor) -> Tensor:
        """From tokens `[..., d_model]` to the memory's answers, of the same shape."""
        weights, rows = self.lookup(x)
        return torch.einsum("...hk,...hkd->...d", weights, self.values[rows])
