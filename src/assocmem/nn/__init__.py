"""Layers made of the sequence operators: `forward(x, state=None) -> (y, state)`."""

from assocmem.nn.linear_attention import LinearAttention

__all__ = ["LinearAttention"]
