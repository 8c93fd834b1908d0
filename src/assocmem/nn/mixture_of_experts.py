"""A mixture of experts: a feed-forward memory of which only a few blocks answer a token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assocmem.arguments import check_counts
from assocmem.nn.feed_forward_memory import FeedForwardMemory
from assocmem.nn.tokens import check_tokens


class MixtureOfExperts(nn.Module):
    """Feed-forward memories behind a router that asks the top_k best of them (arXiv:1701.06538).

        y = Σ_e G_e(x) Σ_{i in e} κ_i(x) v_i                             (book, eq-ffn-moe)

    where G_e(x) = softmax(R x)_e for the top_k experts with the largest score, and 0 for all
    others (the gate of Switch Transformers, arXiv:2101.03961, for any top_k). It is one
    `FeedForwardMemory` with a block-sparse kernel function: rows of R are coarse keys, the keys
    within an expert fine ones. Nothing here balances the load of the experts in training.

    Args:
        d_model: size of the tokens.
        d_hidden: units in each expert.
        n_experts: number of experts E.
        top_k: how many of them answer a token.
        kernel: the experts' kernel function, as for `FeedForwardMemory`.

    Weights: router, an `nn.Linear` `[n_experts, d_model]` without bias, with its initialisation;
    experts, a list of `FeedForwardMemory`.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, top_k is above n_experts, or the
            kernel is unknown.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> memory = nn.MixtureOfExperts(d_model=16, d_hidden=32, n_experts=4, top_k=2)
        >>> memory(torch.randn(2, 10, 16)).shape
        torch.Size([2, 10, 16])
    """

    def __init__(
        self, d_model: int, d_hidden: int, n_experts: int, top_k: int, kernel: str = "swiglu"
    ) -> None:
        super().__init__()
        check_counts(n_experts=n_experts, top_k=top_k)
        if top_k > n_experts:
            raise ValueError(f"top_k must be at most n_experts = {n_experts}, got {top_k}")
        self.top_k = top_k
        self.experts = nn.ModuleList(
            FeedForwardMemory(d_model, d_hidden, kernel) for _ in range(n_experts)
        )
        self.router = nn.Linear(d_model, n_experts, bias=False)

    def extra_repr(self) -> str:
        """How many experts answer, as it is printed."""
        return f"top_k={self.top_k}"

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gates and numbers of the experts that answer each token, the largest gate first.

        Args:
            x: tokens `[..., d_model]`.

        Returns:
            G_e(x) and e, each `[..., top_k]`.

        Raises:
            TypeError: when x is not a tensor of floats, or (but under autocast) in another dtype
                than the weights.
            ValueError: when x is not `[..., d_model]`, or on another device.
        """
        check_tokens(x, self.router.in_features, self.router)
        gates, experts = self.router(x).softmax(-1).topk(self.top_k, -1)
        return gates, experts

    def forward(self, x: Tensor) -> Tensor:
        """From tokens `[..., d_model]` to the memory's answers, of the same shape.

        Raises:
            TypeError, ValueError: as `route`.
        """
        gates, chosen = (y.reshape(-1, self.top_k) for y in self.route(x))
        tokens = x.reshape(-1, x.shape[-1])
        y = torch.zeros_like(tokens)
        for e, expert in enumerate(self.experts):
            token, place = torch.nonzero(chosen == e, as_tuple=True)
            answer = gates[token, place, None] * expert(tokens[token])
            y = y.index_add(0, token, answer.to(y.dtype))
        return y.view(x.shape)
