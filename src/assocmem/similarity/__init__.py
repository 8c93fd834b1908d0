"""Kernel functions κ(q, k): how alike a query and a key are, and the feature map behind it.

A memory that stores pairs (k_i, v_i) answers a query with Σ_i κ(q, k_i) v_i. The kernel function
κ is all that separates linear attention from softmax attention and from a feed-forward layer.
Called on queries and keys, a kernel function gives their scores. Where κ(q, k) = φ(q)ᵀφ(k) with φ
of finite size, `feature_map` is φ; otherwise it is None, and the memory has to keep its keys.
"""

from assocmem.similarity.activations import GELU, ReLU, Round, SiLU
from assocmem.similarity.base import DotProduct, Featured, Similarity
from assocmem.similarity.exponentials import RBF, Exponential, SoLU
from assocmem.similarity.features import DPFP, EluPlusOne, PositiveRandomFeatures, elu_plus_one
from assocmem.similarity.named import SIMILARITIES, exponential, get, linear, polynomial, relu
from assocmem.similarity.polynomials import Linear, Polynomial, Taylor

__all__ = [
    "DPFP",
    "GELU",
    "RBF",
    "SIMILARITIES",
    "DotProduct",
    "EluPlusOne",
    "Exponential",
    "Featured",
    "Linear",
    "Polynomial",
    "PositiveRandomFeatures",
    "ReLU",
    "Round",
    "SiLU",
    "Similarity",
    "SoLU",
    "Taylor",
    "elu_plus_one",
    "exponential",
    "get",
    "linear",
    "polynomial",
    "relu",
]
