"""The modern Hopfield network: a state that is pulled to the stored pattern most like it.

Its update is one read of softmax attention, with the patterns as keys and as values (Ramsauer et
al., arXiv:2008.02217). Patterns are the rows of a matrix here; there they are its columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem.arguments import check_device, check_floats, check_positive

__all__ = ["energy", "update"]


def energy(x: Tensor, patterns: Tensor, beta: float) -> Tensor:
    """The energy of a state (arXiv:2008.02217, up to a constant; book, eq-energy).

        E(x) = −β⁻¹ ln Σ_i e^{β k_iᵀx} + ½‖x‖²

    Args:
        x: states `[..., d]`.
        patterns: stored patterns k_i `[N, d]`.
        beta: inverse temperature β > 0; β k_iᵀx must be within the range of the dtype.

    Returns:
        Energies `[...]`.

    Raises:
        TypeError: when x or patterns is not a tensor of floats, their dtypes differ, or beta is not
            a number.
        ValueError: when patterns is not `[N, d]` with N ≥ 1 and the d and device of x, or beta
            not finite and > 0.

    Example:
        >>> import torch
        >>> from assocmem import hopfield
        >>> patterns = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
        >>> start = torch.tensor([0.9, 0.6])
        >>> end = hopfield.update(start, patterns, beta=20.0)
        >>> before, after = (hopfield.energy(x, patterns, beta=20.0) for x in (start, end))
        >>> bool(after < before)
        True
    """
    check(x, patterns, beta)
    return x.square().sum(-1) / 2 - torch.logsumexp(beta * x @ patterns.T, -1) / beta


def update(x: Tensor, patterns: Tensor, beta: float) -> Tensor:
    """One step of the network, which is one read of softmax attention (arXiv:2008.02217, Eq. 3).

        x ← x − ∇E(x) = Σ_i softmax(β k_iᵀx)_i k_i                        (book, thm-hopfield)

    E falls by at least ½‖step‖², so it never rises.

    Args:
        x: states `[..., d]`.
        patterns: stored patterns k_i `[N, d]`.
        beta: inverse temperature β > 0; β k_iᵀx must be within the range of the dtype.

    Returns:
        New states `[..., d]`.

    Raises:
        TypeError, ValueError: as `energy`.

    Example:
        >>> import torch
        >>> from assocmem import hopfield
        >>> patterns = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
        >>> hopfield.update(torch.tensor([0.9, 0.6]), patterns, beta=20.0)
        tensor([1., 1.])
    """
    check(x, patterns, beta)
    return (beta * x @ patterns.T).softmax(-1) @ patterns


def check(x: Tensor, patterns: Tensor, beta: float) -> None:
    """Raise unless states, patterns and β go together."""
    check_floats(x=x, patterns=patterns)
    if x.ndim == 0:
        raise ValueError("x must have shape [..., d], got []")
    if patterns.ndim != 2 or len(patterns) == 0 or patterns.shape[1] != x.shape[-1]:
        raise ValueError(
            f"patterns must have shape [N, d] with N >= 1 and d = {x.shape[-1]} like x, "
            f"got {list(patterns.shape)}"
        )
    check_device("patterns", patterns, x, "x")
    check_positive("beta", beta)
