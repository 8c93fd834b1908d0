"""Synthetic tasks: what a memory is asked to hold, and the questions that show whether it does.

Every function draws from a `torch.Generator`: the same seed gives the same data on the CPU.
"""

from assocmem.tasks.copying import Copy, copying
from assocmem.tasks.facts import Facts, fact_storage
from assocmem.tasks.graphs import Reachability, reachability, two_trees
from assocmem.tasks.recall import (
    IGNORE,
    Recall,
    associative_recall,
    noisy_recall,
    overwrite,
)
from assocmem.tasks.states import (
    GROUPS,
    States,
    Swaps,
    modular_arithmetic,
    parity,
    swaps,
    word_problem,
)

__all__ = [
    "GROUPS",
    "IGNORE",
    "Copy",
    "Facts",
    "Reachability",
    "Recall",
    "States",
    "Swaps",
    "associative_recall",
    "copying",
    "fact_storage",
    "modular_arithmetic",
    "noisy_recall",
    "overwrite",
    "parity",
    "reachability",
    "swaps",
    "two_trees",
    "word_problem",
]
