"""Rules as sequence operators: DeltaProduct, Longhorn and, in recurrent form, Titans and Mesa.

They take q, k, v as the operators of `assocmem.ops` do, and give back the output and the state.
"""

from assocmem.rules.operators.delta_product import delta_product
from assocmem.rules.operators.longhorn import longhorn
from assocmem.rules.operators.mesa import mesa
from assocmem.rules.operators.titans import titans

__all__ = ["delta_product", "longhorn", "mesa", "titans"]
