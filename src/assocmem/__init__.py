"""Transformers as associative memory: sequence operators, layers and the theory behind them."""

from assocmem import (
    capacity,
    constructions,
    distributed,
    hopfield,
    nn,
    ops,
    rules,
    similarity,
    tasks,
    train,
)
from assocmem.memory import AssociativeMemory

__version__ = "0.1.0"

__all__ = [
    "AssociativeMemory",
    "capacity",
    "constructions",
    "distributed",
    "hopfield",
    "nn",
    "ops",
    "rules",
    "similarity",
    "tasks",
    "train",
]
