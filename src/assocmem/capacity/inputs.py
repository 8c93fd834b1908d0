"""Checks of keys and values in `assocmem.capacity`: each says what was expected and what came."""

from __future__ import annotations

import math

from torch import Tensor

from assocmem.arguments import check_count, check_device, check_floats, check_positive

KEYS = ("gaussian", "gaussian-random", "sphere")


def check_keys(keys: str, known: tuple[str, ...] = KEYS) -> None:
    """Raise unless `keys` names one of the known distributions of keys."""
    if keys not in known:
        raise ValueError(f"keys must be one of {list(known)}, got {keys!r}")


def checked(N: int, d: int, tau: float | None, keys: str) -> tuple[int, int, float]:
    """N, d and τ, √d when None, as numbers of Python, after all arguments have been checked."""
    N, d = check_count("N", N), check_count("d", d)
    check_keys(keys)
    if tau is None:
        tau = math.sqrt(d)
    check_positive("tau", tau)
    return N, d, float(tau)


def check_pairs(keys: Tensor, values: Tensor, queries: Tensor | None) -> Tensor:
    """Raise unless keys `[N, d]`, values `[N, d_v]` and queries `[N, d]` go together.

    Returns:
        The queries; the keys themselves when `queries` is None.
    """
    queries = keys if queries is None else queries
    check_floats(keys=keys, values=values, queries=queries)
    check_device("values", values, keys, "keys")
    check_device("queries", queries, keys, "keys")
    if keys.ndim != 2 or keys.shape[1] == 0:
        raise ValueError(f"keys must have shape [N, d] with d >= 1, got {list(keys.shape)}")
    if values.ndim != 2 or values.shape[0] != keys.shape[0]:
        raise ValueError(
            f"values must have shape [N, d_v] with N = {keys.shape[0]} like keys, "
            f"got {list(values.shape)}"
        )
    if queries.shape != keys.shape:
        raise ValueError(
            f"queries must have shape [N, d] = {list(keys.shape)} like keys, "
            f"got {list(queries.shape)}"
        )
    if keys.shape[0] == 0:
        raise ValueError("keys must hold at least one pair, got N = 0")
    return queries
