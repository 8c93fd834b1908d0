"""Sequences that are split over the ranks of a process group, and what that costs."""

from assocmem.distributed.cost import (
    Link,
    Traffic,
    attention_traffic,
    break_even,
    convolution_traffic,
    scan_traffic,
    scan_work,
    split_seconds,
)
from assocmem.distributed.piece import Piece
from assocmem.distributed.scan import delta_rule, linear_attention

__all__ = [
    "Link",
    "Piece",
    "Traffic",
    "attention_traffic",
    "break_even",
    "convolution_traffic",
    "delta_rule",
    "linear_attention",
    "scan_traffic",
    "scan_work",
    "split_seconds",
]
