"""Sequence operators: tokens in, tokens out, one backend behind one function."""

from assocmem.ops.backend import backend_for
from assocmem.ops.delta_rule import delta_rule
from assocmem.ops.deltaformer import deltaformer
from assocmem.ops.linear_attention import linear_attention
from assocmem.ops.softmax_attention import softmax_attention

__all__ = ["backend_for", "delta_rule", "deltaformer", "linear_attention", "softmax_attention"]
