"""How memories learn: the unified table of update rules, and four of them as sequence operators."""

from assocmem.rules.operators import delta_product, longhorn, mesa, titans
from assocmem.rules.rule import Formulas, Rule, Write
from assocmem.rules.table import RULES, table

__all__ = [
    "RULES",
    "Formulas",
    "Rule",
    "Write",
    "delta_product",
    "longhorn",
    "mesa",
    "table",
    "titans",
]
