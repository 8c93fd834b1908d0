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
def times(T, X):
    """T X in float32; summed in float64 where T is, four rows of X at a time.

    Multiplied by an X of half precision, a T in float32 is the sum of two in X's dtype. In a single
    one, entries near 2 and alike would all be wrong by the same amount: with β near 2, where
    nothing fades, and equal keys the memory would grow, in bfloat16 a thousandfold in 200 tokens.
    """
    if T.dtype == X.dtype:
        product = dot(T, X)
    elif T.dtype == tl.float32:
        high = T.to(X.dtype)
        product = dot(high, X) + dot((T - high).to(X.dtype), X)
    else:
        C: tl.constexpr = T.shape[0]
        b, product = tl.arange(0, C // 4), tl.zeros(X.shape, tl.float64)
        X_4 = tl.reshape(X.to(tl.float64), (C // 4, 4, X.shape[1]))
        T_4 = tl.reshape(T, (C, C // 4, 4))
        for s in range(0, C // 4):
            rows = tl.sum(tl.where((b == s)[:, None, None], X_4, 0.0), 0)
            columns = tl.sum(tl.where((b == s)[None, :, None], T_4, 0.0), 1)
            product += tl.sum(columns[:, None, :] * tl.trans(rows)[None, :, :], 2)
        product = product.to(tl.float32)
    return product


@triton.jit
def times_sum(T, X, dtype: tl.constexpr):
    """`times` of an X in float32, which of half precision is the sum of two in dtype as well."""
    high = X.to(dtype)
    product = times(T, high)
    if dtype != tl.float32:
        product += dot(T.to(dtype), X - high)
    return product


@triton.jit
def exact_product(A, B, dtype: tl.constexpr):
    """A B of float32, to all of its digits: two parts in float16 or three in bfloat16 have them.

    Tensor cores multiply no float32, but six pairs of parts in less time than other cores take.
    """
    A_1, A = part(A, dtype)
    B_1, B = part(B, dtype)
    A_2, A = part(A, dtype)
    B_2, B = part(B, dtype)
    Y = dot(A_1, B_2)
    Y += dot(A_2, B_1)
    if dtype == tl.bfloat16:
        Y += dot(A_2, B_2)
        Y += dot(A_1, part(B, dtype)[0])
        Y += dot(part(A, dtype)[0], B_1)
    Y += dot(A_1, B_1)
    return Y


@triton.jit
def part(X, dtype: tl.constexpr):
    """X in dtype, and what is left of X; never infinity, of which 0 times would be NaN."""
    if dtype == tl.bfloat16:  # the first half of its bits, as conversions are slow
        bits = X.to(tl.uint32, bitcast=True)
        near = (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
        rest = X - (bits & 0xFFFF0000).to(tl.float32, bitcast=True)
    else:
        near = tl.clamp(X, -65504.0, 65504.0).to(dtype)
        rest = X - near.to(tl.float32)
    return near, rest


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


@triton.jit
def from_here_on(lost, dtype: tl.constexpr):
    """0 in the rows of each column before the first that a NaN marks as lost, NaN from it on.

    A running sum, but in half precision found by the number of that row: a scan would leave the
    layout of tensor cores and come back, which a minimum need not.
    """
    if dtype == tl.float32:
        lost = tl.cumsum(lost, 0)
    else:
        C: tl.constexpr = lost.shape[0]
        r = tl.arange(0, C)[:, None]
        first = tl.min(tl.where(lost == 0.0, C, r), 0)
        lost = tl.where(r < first[None, :], 0.0, float("nan"))
    return lost


def padded(K: int) -> int:
    """Size of a tile that holds K: a power of two, and at least 16 for `tl.dot`."""
    return max(16, 1 << (K - 1).bit_length())
