"""Transformers as associative memory: sequence operators, layers and the theory behind them."""

from assocmem import ops

__all__ = ["ops"]
