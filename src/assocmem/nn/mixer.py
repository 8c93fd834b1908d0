"""What every layer that mixes tokens shares: heads, and the projections into and out of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from assocmem.arguments import check_counts
from assocmem.nn.streaming import Streaming
from assocmem.nn.tokens import check_tokens
from assocmem.ops.backend import check_known
from assocmem.ops.inputs import check_packed


def scan_on(group: dist.ProcessGroup | None, here: Callable, split: Callable) -> Callable:
    """The operator for a sequence that is whole here, or for one split over the ranks of a group.

    (In `assocmem.distributed`, None stands for all ranks.)
    """
    return here if group is None else partial(split, group=group)


def check_parts(state: Any, names: tuple[str, ...]) -> None:
    """Raise unless a state is a tuple of as many parts as there are names."""
    if not isinstance(state, tuple):
        raise TypeError(f"state must be ({', '.join(names)}), got {type(state).__name__}")
    if len(state) != len(names):
        raise ValueError(f"state must be ({', '.join(names)}), got {len(state)} parts")


class HeadNorm(nn.RMSNorm):
    """RMSNorm of what heads read, in the dtype of its weights, with ε = 10⁻⁵.

    Under autocast the readings have another dtype, for which PyTorch has no kernel of one pass.
    """

    def __init__(self, d_value: int) -> None:
        super().__init__(d_value, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """From `[B, T, H, V]` to the same shape."""
        return super().forward(x.to(self.weight.dtype))


class Mixer(Streaming):
    """The projections of a multi-head layer around an operator of `assocmem.ops`.

    q = W_q x, k = W_k x, v = W_v x, split into heads, and y = W_o o for the heads' outputs o.

    Args:
        d_model: size of the tokens.
        n_heads: number of heads H.
        d_key: size K of a head's keys, d_model / n_heads when None.
        d_value: size V of a head's values, d_model / n_heads when None.
        backend: passed to the operator.

    Weights, without bias and with `nn.Linear`'s initialisation: q_proj and k_proj
    `[H·K, d_model]`, v_proj `[H·V, d_model]`, o_proj `[d_model, H·V]`.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, the backend is unknown, or
            d_model is not a multiple of n_heads and a head's size is not given.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        d_key: int | None = None,
        d_value: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_counts(d_model=d_model, n_heads=n_heads)
        check_known(backend)
        if d_model % n_heads and (d_key is None or d_value is None):
            raise ValueError(
                f"d_model must be a multiple of n_heads = {n_heads} unless d_key and d_value are "
                f"given, got {d_model}"
            )
        self.d_model = d_model
        self.n_heads = n_heads
        self.d_key = d_model // n_heads if d_key is None else d_key
        self.d_value = d_model // n_heads if d_value is None else d_value
        check_counts(d_key=self.d_key, d_value=self.d_value)
        self.backend = backend
        self.q_proj = nn.Linear(d_model, n_heads * self.d_key, bias=False)
        self.k_proj = nn.Linear(d_model, n_heads * self.d_key, bias=False)
        self.v_proj = nn.Linear(d_model, n_heads * self.d_value, bias=False)
        self.o_proj = nn.Linear(n_heads * self.d_value, d_model, bias=False)

    def extra_repr(self) -> str:
        """Heads and their sizes, as they are printed."""
        return f"n_heads={self.n_heads}, d_key={self.d_key}, d_value={self.d_value}"

    def project(self, x: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys `[B, T, H·K]` and values `[B, T, H·V]` of tokens `[B, T, d_model]`.

        Raises:
            TypeError, ValueError: when x is not a tensor of floats, not `[B, T, d_model]`, not in
                the weights' dtype (but under autocast) or on their device, or not one row of packed
                sequences where cu_seqlens are given.
        """
        check_tokens(x, self.d_model, self.q_proj, dims="B, T")
        check_packed(cu_seqlens, x, "x")
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def heads(self, x: Tensor) -> Tensor:
        """From `[B, T, H·n]` to `[B, T, H, n]`."""
        return x.unflatten(-1, (self.n_heads, -1))
