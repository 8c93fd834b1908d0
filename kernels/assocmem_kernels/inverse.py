"""The inverse of a chunk's triangular system, to the digits of float32 (chapter 6, eq-merge).

Not by a series in powers of L, which would lose all digits where keys are similar.
"""

import triton
import triton.language as tl

from assocmem_kernels.tiles import beyond, exact_product


@triton.jit
def by_substitution(L, C: tl.constexpr):
    """(I + L)⁻¹ in L's dtype, one row after the other."""
    r = tl.arange(0, C)
    T = tl.where(r[:, None] == r[None, :], 1.0, 0.0).to(L.dtype)
    for j in range(0, C - 1):
        pivot = tl.sum(tl.where((r == j)[:, None], T, 0.0), 0)
        factor = tl.sum(tl.where((r == j)[None, :], L, 0.0), 1)
        T -= factor[:, None] * pivot[None, :]
    return T


@triton.jit
def by_blocks(L, C: tl.constexpr, dtype: tl.constexpr):
    """(I + L)⁻¹ in float32, C of 16, 32 or 64, by products of a half precision dtype.

    Of two tokens it is I − L. Then neighbouring blocks are merged, twice as large each time: below
    the diagonal T₂₁ = −T₂₂ L₂₁ T₁₁, for all pairs of blocks at once.
    """
    r = tl.arange(0, C)
    row, col = r[:, None], r[None, :]
    T = tl.where(row == col, 1.0, 0.0) - tl.where(row // 2 == col // 2, L, 0.0)
    for level in tl.static_range(1, 6):
        if 2 << level <= C:
            pair = row // (2 << level) == col // (2 << level)
            L_21 = tl.where(pair & (row // (1 << level) > col // (1 << level)), L, 0.0)
            T -= exact_product(exact_product(T, L_21, dtype), T, dtype)
    return T


@triton.jit
def unit_lower_inverse(L, C: tl.constexpr, dtype: tl.constexpr):
    """(I + L)⁻¹ of a strictly lower triangular L `[C, C]` without NaN, for inputs in dtype.

    NaN where an entry of L is beyond float16, and its inputs are not.
    """
    if dtype == tl.float32:
        T = by_substitution(L, C)
    elif dtype == tl.bfloat16:
        T = by_blocks(L, C, dtype)
    else:
        lost = beyond(L, dtype)
        T = by_blocks(tl.where(lost == 0.0, L, 0.0), C, dtype) + lost
    return T
