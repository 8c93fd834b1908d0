"""Keys that are almost orthogonal, and more of them than their size."""

from __future__ import annotations

import torch
from torch import Tensor

from assocmem.arguments import check_count

# Irreducible polynomials of degree s over GF(2), as bits: the fields of 2^s elements.
POLYNOMIALS = {1: 0b11, 2: 0b111, 3: 0b1011, 4: 0b10011, 5: 0b100101}


def unbiased_bases(s: int) -> Tensor:
    """The keys of √d + 1 mutually unbiased orthonormal bases of ℝ^d, d = 4^s.

    Two keys of one basis are orthogonal, and two of different bases have |k_iᵀ k_j| = 1/√d exactly.
    The first basis is the standard one. The others are the rows of a Hadamard matrix H/√d times the
    signs (−1)^tr(a x y), one basis for each a in GF(2^s), where coordinates are numbered by (x, y)
    in GF(2^s)². They differ by the quadratic form (a − a′) x y, which is not degenerate, and the
    sum of such a sign over all coordinates, times any row of H, is ±√d.

    Args:
        s: 1 to 5: 12 keys in ℝ⁴, 80 in ℝ¹⁶, 576 in ℝ⁶⁴, 4,352 in ℝ²⁵⁶, 33,792 in ℝ¹⁰²⁴.

    Returns:
        keys `[d (√d + 1), d]`, float64.

    Raises:
        TypeError, ValueError: s is not an integer from 1 to 5.

    Example:
        >>> from assocmem import constructions
        >>> keys = constructions.unbiased_bases(2)
        >>> keys.shape, (keys @ keys.T).fill_diagonal_(0).max().item()
        (torch.Size([80, 16]), 0.25)
    """
    check_count("s", s)
    if s not in POLYNOMIALS:
        raise ValueError(f"s must be at most {max(POLYNOMIALS)}, got {s}")
    root = 2**s
    d = root * root
    number = torch.arange(d)
    # (−1)^(number of common bits) is Sylvester's Hadamard matrix.
    H = (-1.0) ** _bits(number[:, None] & number[None, :]).double() / root
    product = [[_product(x, y, s) for y in range(root)] for x in range(root)]
    bases = [torch.eye(d, dtype=torch.float64)]
    for a in range(root):
        traces = [_trace(_product(a, xy, s), s) for row in product for xy in row]
        bases.append(H * (-1.0) ** torch.tensor(traces, dtype=torch.float64))
    return torch.cat(bases)


def _bits(x: Tensor) -> Tensor:
    """How many bits of each number are set."""
    return sum(((x >> i) & 1 for i in range(12)), torch.zeros_like(x))


def _product(x: int, y: int, s: int) -> int:
    """x y in GF(2^s): the product of polynomials over GF(2), modulo an irreducible one."""
    result = 0
    while y:
        if y & 1:
            result ^= x
        y >>= 1
        x <<= 1
        if x >> s:
            x ^= POLYNOMIALS[s]
    return result


def _trace(x: int, s: int) -> int:
    """tr(x) = x + x² + x⁴ + … + x^(2^(s−1)), which lies in GF(2)."""
    total = 0
    for _ in range(s):
        total ^= x
        x = _product(x, x, s)
    return total
