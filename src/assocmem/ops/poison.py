"""NaN and infinity stay where they are: in the rows of a product from their own on."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from assocmem.ops.readable import known


def known_to_be_finite(*tensors: Tensor) -> bool:
    """Whether no number is NaN or infinite; False where numbers must not be looked at."""

    def total(x: Tensor) -> Tensor:
        wide_enough = torch.promote_types(x.dtype, torch.float32)  # float16 ends at 65,504
        return x.detach().sum(dtype=wide_enough)

    # One look for all: on a GPU each waits for all that was launched before.
    return known(lambda: bool(reduce(torch.add, map(total, tensors)).isfinite()), *tensors)


def without_poison(X: Tensor) -> tuple[Tensor, Tensor]:
    """X with 0 for every NaN and infinity, and what brings them back: to add from their row on.

    Multiplied by a masked 0, a NaN or infinity in X_s would reach the rows before s. It is taken
    out of the product, and put back into every row that may see it. This costs as much as half of
    the product.
    """
    lost = X.detach().masked_fill(X.isfinite(), 0.0)
    return X.nan_to_num(0.0, 0.0, 0.0), lost.cumsum(-2)


def masked_product(A: Tensor, X: Tensor) -> Tensor:
    """A X for a lower triangular A, in which a NaN in X_s reaches the rows from s on only."""
    finite, lost = without_poison(X)
    return A @ finite + lost
