"""Sequence operators: tokens in, tokens out, one backend behind one function."""

from assocmem.ops.backend import backend_for
from assocmem.ops.linear_attention import linear_attention

__all__ = ["backend_for", "linear_attention"]
