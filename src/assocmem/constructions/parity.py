"""Parity: a memory of one number that a step of the delta rule can mirror."""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem import ops
from assocmem.constructions.arguments import check_integers


def parity(bits: Tensor, backend: str = "auto") -> Tensor:
    """The number of ones so far modulo 2, by the delta rule with keys and values of size 1.

    With k = 1, v = 0 and β_t = 2 x_t a one multiplies the state by 1 − β_t = −1, and a zero by 1:

        S_t = (1 − 2 x_t) S_{t-1},    S_0 = 1

    Its sign is the parity. An eigenvalue below 0 is what makes it possible (Grazzi et al.,
    arXiv:2411.12537): with β ≤ 1 the state can only shrink.

    Args:
        bits: zeros and ones `[B, T]`, int64.
        backend: as in `ops.delta_rule`.

    Returns:
        parity `[B, T]`, int64.

    Raises:
        TypeError: bits is not an int64 tensor.
        ValueError: bits has the wrong shape, or an entry that is neither 0 nor 1.

    Example:
        >>> import torch
        >>> from assocmem import constructions
        >>> constructions.parity(torch.tensor([[1, 0, 1, 1]]))
        tensor([[1, 1, 0, 1]])
    """
    check_integers("bits", bits, 2, "[B, T]", below=2)
    one = torch.ones(*bits.shape, 1, 1, dtype=torch.float64, device=bits.device)
    start = one.new_ones(len(bits), 1, 1, 1)
    beta = 2.0 * bits[..., None].double()
    o, _ = ops.delta_rule(
        one, one, torch.zeros_like(one), beta, scale=1.0, initial_state=start, backend=backend
    )
    return (o[..., 0, 0] < 0).long()
