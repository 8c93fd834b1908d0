"""Memories built by hand that solve a task exactly, without training."""

from assocmem.constructions.codes import unbiased_bases
from assocmem.constructions.dihedral import dihedral
from assocmem.constructions.parity import parity
from assocmem.constructions.reachability import reachability
from assocmem.constructions.swaps import swaps, swaps_of_similar_keys
from assocmem.constructions.word_problem import word_problem

__all__ = [
    "dihedral",
    "parity",
    "reachability",
    "swaps",
    "swaps_of_similar_keys",
    "unbiased_bases",
    "word_problem",
]
