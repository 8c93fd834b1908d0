"""A block of a sequence model: mix the tokens, then change each by itself."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from assocmem.nn.feed_forward_memory import FeedForwardMemory
from assocmem.nn.mixer import Mixer
from assocmem.nn.streaming import Streaming
from assocmem.nn.tokens import check_tokens


class Block(Streaming):
    """Two residual steps: h = x + mixer(RMSNorm(x)), y = h + memory(RMSNorm(h)).

    Args:
        mixer: a layer that mixes the tokens.
        d_hidden: units of the memory; 8/3 d_model, rounded down, when None, with which its three
            matrices have about 8 d_model² numbers, as the two of a Transformer's layer of 4 d_model
            units have.
        feed_forward: the memory, from `[..., d_model]` to the same shape, such as a
            `MixtureOfExperts`; a `FeedForwardMemory` with the kernel function "swiglu" when None.

    Weights: those of mixer and of feed_forward, the memory; mixer_norm and feed_forward_norm, each
    an `nn.RMSNorm` of size d_model with ε = 10⁻⁵, initially 1.

    Raises:
        TypeError: when mixer is not a layer with a d_model, or feed_forward not a module.
        ValueError: when both d_hidden and feed_forward are given.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> block = nn.Block(nn.DeltaNet(d_model=32, n_heads=4))
        >>> y, state = block(torch.randn(2, 10, 32))
        >>> y.shape
        torch.Size([2, 10, 32])
    """

    def __init__(
        self,
        mixer: Mixer,
        d_hidden: int | None = None,
        *,
        feed_forward: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(mixer, nn.Module) or not hasattr(mixer, "d_model"):
            raise TypeError(f"mixer must be a layer with a d_model, such as a Mixer, got {mixer!r}")
        if feed_forward is not None:
            if not isinstance(feed_forward, nn.Module):
                raise TypeError(f"feed_forward must be a module or None, got {feed_forward!r}")
            if d_hidden is not None:
                raise ValueError(f"d_hidden must be None with feed_forward, got {d_hidden}")
        d_model = mixer.d_model
        self.mixer_norm = nn.RMSNorm(d_model, eps=1e-5)
        self.mixer = mixer
        self.feed_forward_norm = nn.RMSNorm(d_model, eps=1e-5)
        if feed_forward is None:
            d_hidden = 8 * d_model // 3 if d_hidden is None else d_hidden
            feed_forward = FeedForwardMemory(d_model, d_hidden, "swiglu")
        self.feed_forward = feed_forward

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        *,
        group: dist.ProcessGroup | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """From tokens `[B, T, d_model]` to the same shape, with the mixer's state.

        Raises:
            TypeError, ValueError: as the mixer, and when it returns no (y, state), or it or
                feed_forward a y that is not like x.
        """
        check_tokens(x, self.mixer.d_model, self.mixer_norm, dims="B, T")
        mixed = self.mixer(self.mixer_norm(x), state, group=group, cu_seqlens=cu_seqlens)
        check_mixed(mixed, x, type(self.mixer).__name__)
        y, state = mixed
        h = x + y
        y = self.feed_forward(self.feed_forward_norm(h))
        check_like(y, x, type(self.feed_forward).__name__)
        return h + y, state


def check_mixed(mixed: Any, x: Tensor, name: str) -> None:
    """Raise unless what a mixer returned is (y, state), with y like its tokens x.

    Of a batch of two, y alone would come apart into y and a state.
    """
    parts = mixed if isinstance(mixed, tuple) else (mixed,)
    if len(parts) != 2 or not isinstance(parts[0], Tensor):
        came = ", ".join(type(part).__name__ for part in parts)
        raise TypeError(f"{name} must return (y, state), got {came}")
    check_like(parts[0], x, name)


def check_like(y: Any, x: Tensor, name: str) -> None:
    """Raise unless what a module returned is a tensor like its tokens x."""
    if not isinstance(y, Tensor):
        raise TypeError(f"{name} must return a tensor y, got {type(y).__name__}")
    if y.shape != x.shape:
        raise ValueError(f"{name} must return y {list(x.shape)} like x, got {list(y.shape)}")
