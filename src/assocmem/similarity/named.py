"""Kernel functions by name."""

from __future__ import annotations

from assocmem.similarity.activations import GELU, ReLU, Round, SiLU
from assocmem.similarity.base import Similarity
from assocmem.similarity.exponentials import RBF, Exponential, SoLU
from assocmem.similarity.features import DPFP, EluPlusOne, PositiveRandomFeatures
from assocmem.similarity.polynomials import Linear, Polynomial, Taylor

linear = Linear()
polynomial = Polynomial()
exponential = Exponential()
relu = ReLU()

SIMILARITIES: dict[str, Similarity] = {
    "linear": linear,
    "polynomial": polynomial,
    "exponential": exponential,
    "relu": relu,
    "taylor": Taylor(),
    "solu": SoLU(),
    "rbf": RBF(),
    "gelu": GELU(),
    "silu": SiLU(),
    "round": Round(),
    "elu_plus_one": EluPlusOne(),
    "dpfp": DPFP(),
    "positive_random_features": PositiveRandomFeatures(),
}


def get(similarity: str | Similarity, argument: str = "similarity") -> Similarity:
    """The kernel function of that name, or the one given.

    Args:
        similarity: a name in `SIMILARITIES`, or a kernel function.
        argument: what errors call it.

    Raises:
        ValueError: when the name is not in `SIMILARITIES`.
        TypeError: when it is neither a name nor a `Similarity`.

    Example:
        >>> from assocmem import similarity
        >>> similarity.get("polynomial")
        Polynomial(degree=2)
    """
    if isinstance(similarity, Similarity):
        return similarity
    if not isinstance(similarity, str):
        raise TypeError(
            f"{argument} must be a name or a Similarity, got {type(similarity).__name__}"
        )
    if similarity not in SIMILARITIES:
        raise ValueError(f"{argument} must be one of {sorted(SIMILARITIES)}, got {similarity!r}")
    return SIMILARITIES[similarity]
