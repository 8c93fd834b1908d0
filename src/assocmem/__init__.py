"""Transformers as associative memory: sequence operators, layers and the theory behind them."""

from assocmem import capacity, nn, ops, similarity
from assocmem.memory import AssociativeMemory

__all__ = ["AssociativeMemory", "capacity", "nn", "ops", "similarity"]
