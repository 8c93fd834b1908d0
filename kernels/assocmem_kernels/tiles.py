"""Tiles of rows: what every kernel of a sequence loads, stores and multiplies.

Tensors are contiguous `[B, T, H, D]`, read as rows `(b T + t) H + h` of D numbers.
"""

import triton
import triton.language as tl


@triton.jit
def load(x, row, ok, col, D: tl.constexpr):
    """Rows × columns of x, zero outside the sequence and beyond D."""
    p = x + row[:, None] * D + col[None, :]
    return tl.load(p, mask=ok[:, None] & (col < D)[None, :], other=0.0)


@triton.jit
def store(x, row, ok, col, D: tl.constexpr, tile):
    """Store a tile in x's own dtype."""
    p = x + row[:, None] * D + col[None, :]
    tl.store(p, tile.to(x.dtype.element_ty), mask=ok[:, None] & (col < D)[None, :])


@triton.jit
def dot(a, b):
    """a @ b in float32, the operands in a's dtype; float32 operands are not rounded to TF32."""
    return tl.dot(a, b.to(a.dtype), input_precision="ieee")


@triton.jit
def poison(X):
    """0 where X is finite, else NaN.

    Not X − X: fused with the product that gave X, it is what was rounded away there.
    """
    return X * 0.0


@triton.jit
def beyond(X, dtype: tl.constexpr):
    """0 where X is finite and a dtype holds it, else NaN. bfloat16 reaches as far as float32."""
    if dtype != tl.bfloat16:
        X = X.to(dtype)
    return poison(X).to(tl.float32)


def padded(K: int) -> int:
    """Size of a tile that holds K: a power of two, and at least 16 for `tl.dot`."""
    return max(16, 1 << (K - 1).bit_length())
