"""Which memory for what: every design on every task, with equally many parameters.

`configuration.json` beside this file says what is compared. Chapter 9 runs a little of it;
`benchmarks/choosing.py` runs all of it and stores the result.
"""

from assocmem.book.choosing.batches import SYMBOLS, Text, drawn
from assocmem.book.choosing.costs import costs, decoding
from assocmem.book.choosing.designs import Model, configuration, made, mixers, parameters
from assocmem.book.choosing.runs import first, run

__all__ = [
    "SYMBOLS",
    "Model",
    "Text",
    "configuration",
    "costs",
    "decoding",
    "drawn",
    "first",
    "made",
    "mixers",
    "parameters",
    "run",
]
