"""Answers to the exercises of chapter 6: right ones, and wrong ones with the hint that fits."""

import importlib
import textwrap
from dataclasses import dataclass

import pytest

from assocmem.book.check import ch6
from tests.book.code import run


@dataclass(frozen=True)
class Kernel:
    """A kernel as its source, with one change."""

    source: str
    old: str = ""
    new: str = ""

    def __post_init__(self):
        assert self.old in self.source

    def made(self):
        """What Triton makes of it; where Triton is missing, the test that asks is skipped."""
        triton = pytest.importorskip("triton", reason="triton is missing")
        tiles = importlib.import_module("assocmem_kernels.tiles")
        namespace = {"triton": triton, "tl": triton.language}
        namespace |= {name: getattr(tiles, name) for name in ("dot", "load", "store")}
        run(textwrap.dedent(self.source).replace(self.old, self.new, 1), namespace)
        return list(namespace.values())[-1]


SCALE = """
@triton.jit
def scale_rows(x, y, T, scale, D: tl.constexpr, C: tl.constexpr, BD: tl.constexpr):
    row, col = tl.program_id(0) * C + tl.arange(0, C), tl.arange(0, BD)
    p = row[:, None] * D + col[None, :]
    ok = (row < T)[:, None] & (col < D)[None, :]
    tl.store(y + p, scale * tl.load(x + p, mask=ok), mask=ok)
"""

BLOCK = """
@triton.jit
def causal_block(q, k, v, o, T, D: tl.constexpr, C: tl.constexpr):
    row, col = tl.arange(0, C), tl.arange(0, D)
    Q, K = load(q, row, row < T, col, D), load(k, row, row < T, col, D)
    V = load(v, row, row < T, col, D)
    A = dot(Q, tl.trans(K))
    A = tl.where(row[:, None] >= row[None, :], A, 0.0)
    store(o, row, row < T, col, D, dot(A, V))
"""

CHUNK = """
@triton.jit
def delta_chunk(
    q, k, v, beta, inverse, o, S0, ST, T, D: tl.constexpr, C: tl.constexpr
):
    row, col = tl.arange(0, C), tl.arange(0, D)
    ok = row < T
    Q, K, V = load(q, row, ok, col, D), load(k, row, ok, col, D), load(v, row, ok, col, D)
    S = load(S0, col, col < D, col, D)
    b = tl.load(beta + row, mask=ok, other=0.0)
    U = dot(load(inverse, row, ok, row, C), b[:, None] * (V - dot(K, S)))
    A = tl.where(row[:, None] >= row[None, :], dot(Q, tl.trans(K)), 0.0)
    store(o, row, ok, col, D, dot(A, U) + dot(Q, S))
    store(ST, col, col < D, col, D, S + dot(tl.trans(K), U))
"""

SCAN = """
@triton.jit
def delta_scan(
    q, k, v, beta, inverse, o, S0, ST,
    T, H: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
):
    h, r, col = tl.program_id(0), tl.arange(0, C), tl.arange(0, D)
    S = load(S0, h * D + col, col < D, col, D)
    for t in range(0, T, C):
        row, ok = (t + r) * H + h, t + r < T
        Q, K, V = load(q, row, ok, col, D), load(k, row, ok, col, D), load(v, row, ok, col, D)
        b = tl.load(beta + row, mask=ok, other=0.0)
        U = dot(load(inverse, row, ok, r, C), b[:, None] * (V - dot(K, S)))
        A = tl.where(r[:, None] >= r[None, :], dot(Q, tl.trans(K)), 0.0)
        store(o, row, ok, col, D, dot(A, U) + dot(Q, S))
        S += dot(tl.trans(K), U)
    store(ST, h * D + col, col < D, col, D, S)
"""

GATED = """
@triton.jit
def gated_delta_scan(
    q, k, v, beta, g, inverse, o, S0, ST,
    T, H: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
):
    h, r, col = tl.program_id(0), tl.arange(0, C), tl.arange(0, D)
    lower = r[:, None] >= r[None, :]
    S = load(S0, h * D + col, col < D, col, D)
    for t in range(0, T, C):
        row, ok = (t + r) * H + h, t + r < T
        Q, K, V = load(q, row, ok, col, D), load(k, row, ok, col, D), load(v, row, ok, col, D)
        x = tl.load(g + row, mask=ok, other=0.0)
        G, total = tl.cumsum(x, 0), tl.sum(x, 0)
        A = tl.exp(tl.where(lower, G[:, None] - G[None, :], float("-inf"))) * dot(Q, tl.trans(K))
        b = tl.load(beta + row, mask=ok, other=0.0)
        D_ = b[:, None] * (V - dot(K * tl.exp(G)[:, None], S))
        U = dot(load(inverse, row, ok, r, C), D_)
        store(o, row, ok, col, D, dot(A, U) + dot(Q * tl.exp(G)[:, None], S))
        S = S * tl.exp(total) + dot(tl.trans(K * tl.exp(total - G)[:, None]), U)
    store(ST, h * D + col, col < D, col, D, S)
"""


def cost(d, flops, bandwidth):
    return (flops / bandwidth * (8 * d + 4) - 6 * d * d) / (8 * d)


RIGHT = [
    (ch6.ch6_ex1, cost),
    (ch6.ch6_ex1, lambda d, f, b: f / b - 6 * d / 8),  # without the bytes of β
    (ch6.ch6_ex2, Kernel(SCALE)),
    (ch6.ch6_ex3, Kernel(BLOCK)),
    (ch6.ch6_ex4, Kernel(CHUNK)),
    (ch6.ch6_ex5, Kernel(SCAN)),
    (ch6.ch6_ex6, Kernel(GATED)),
]

ALL_OF_IT = "tl.where(row[:, None] >= row[None, :], A, 0.0)"
MASK = "tl.where(r[:, None] >= r[None, :], dot(Q, tl.trans(K)), 0.0)"
AGED = "dot(tl.trans(K * tl.exp(total - G)[:, None]), U)"

WRONG = [
    (ch6.ch6_ex1, lambda d, f, b: (8 * d * b / f - 6 * d * d) / (8 * d), "not bytes for each"),
    (ch6.ch6_ex1, lambda d, f, b: 2 * f / b - d, "this is linear attention"),
    (ch6.ch6_ex1, lambda d, f, b: f / b, "products with the state"),
    (ch6.ch6_ex1, lambda d, f, b: 2 * f / b - 6 * d / 8, "has 2 bytes"),
    (ch6.ch6_ex1, lambda d, f, b: 64, "equal to the ridge"),
    (ch6.ch6_ex2, lambda *_: None, "put @triton.jit above"),
    (ch6.ch6_ex2, Kernel(SCALE, "mask=ok)\n", "mask=ok & (row < 0)[:, None])\n"), "nothing was"),
    (ch6.ch6_ex2, Kernel(SCALE, "(row < T)[:, None] & ", ""), "rows from T on"),
    (ch6.ch6_ex2, Kernel(SCALE, " & (col < D)[None, :]", ""), "columns from D on"),
    (ch6.ch6_ex2, Kernel(SCALE, "tl.program_id(0) * C + ", ""), "only the first C rows"),
    (ch6.ch6_ex2, Kernel(SCALE, "scale * ", ""), "without the scale"),
    (ch6.ch6_ex2, Kernel(SCALE, "load(x + p", "load(x + p - row[:, None]"), "row 1, column 0"),
    (ch6.ch6_ex3, Kernel(BLOCK, ALL_OF_IT, "A"), "must not see later ones"),
    (ch6.ch6_ex3, Kernel(BLOCK, "row[:, None] >= ", "row[:, None] > "), "the diagonal belongs"),
    (ch6.ch6_ex3, Kernel(BLOCK, "row[:, None] >= ", "row[:, None] <= "), "the wrong way round"),
    (ch6.ch6_ex3, Kernel(BLOCK, "dot(Q, tl.trans(K))", "dot(K, tl.trans(Q))"), "to query t"),
    (ch6.ch6_ex3, Kernel(BLOCK, "tl.trans(K))", "tl.trans(K)) / 4.0"), "no scale is asked for"),
    (ch6.ch6_ex3, Kernel(BLOCK, "o, row, row < T", "o, row, row < C"), "rows from T on"),
    (ch6.ch6_ex3, Kernel(BLOCK, "A, V", "A, Q"), "token 0 of head 0"),
    (ch6.ch6_ex4, Kernel(CHUNK, "row[:, None] >= row[None, :]", "row[:, None] >= 0"), "keep s ≤ t"),
    (ch6.ch6_ex4, Kernel(CHUNK, "b[:, None] * (V", "(V"), "not multiplied by β"),
    (ch6.ch6_ex4, Kernel(CHUNK, " - dot(K, S)", ""), "what the memory recalls"),
    (
        ch6.ch6_ex4,
        Kernel(
            CHUNK,
            "dot(load(inverse, row, ok, row, C), b[:, None] * (V - dot(K, S)))",
            "b[:, None] * (V - dot(K, S))",
        ),
        "without the inverse",
    ),
    (ch6.ch6_ex4, Kernel(CHUNK, " + dot(Q, S)", ""), "stored before the chunk"),
    (ch6.ch6_ex4, Kernel(CHUNK, "S + dot(tl.trans(K)", "dot(tl.trans(K)"), "lacks the incoming"),
    (ch6.ch6_ex4, Kernel(CHUNK, "tl.trans(K), U))", "tl.trans(K), V))"), "the last state is not"),
    (ch6.ch6_ex4, Kernel(CHUNK, "ST, col, col < D", "ST, col, col < 0"), "stored in ST"),
    (ch6.ch6_ex4, Kernel(CHUNK, "store(o, row, ok", "store(o, row, row < C"), "rows from T on"),
    (ch6.ch6_ex4, Kernel(CHUNK, "store(o, row, ok", "store(o, row, row < 9"), "of token 9"),
    (ch6.ch6_ex5, Kernel(SCAN, "        S +=", "        R ="), "last state is not"),
    (ch6.ch6_ex5, Kernel(SCAN, "S += dot", "S = dot"), "lacks the incoming"),
    (ch6.ch6_ex5, Kernel(SCAN, "S0, h * D + col", "S0, col"), "head 0 is right"),
    (ch6.ch6_ex5, Kernel(SCAN, "row, ok = (t + r) * H", "row, ok = r * H"), "not all outputs"),
    (ch6.ch6_ex5, Kernel(SCAN, MASK, "dot(Q, tl.trans(K))"), "keep s ≤ t"),
    (ch6.ch6_ex5, Kernel(SCAN, "        S +=", "        S = S * (t == 0) +"), "first chunk only"),
    (ch6.ch6_ex6, Kernel(GATED, "V - dot", "V + dot"), "with g = 0"),
    (ch6.ch6_ex6, Kernel(GATED, "K * tl.exp(G)[:, None]", "K"), "what K recalls"),
    (ch6.ch6_ex6, Kernel(GATED, "Q * tl.exp(G)[:, None]", "Q"), "what Q reads"),
    (
        ch6.ch6_ex6,
        Kernel(GATED, "G[:, None] - G[None, :]", "0 * G[:, None] - 0 * G[None, :]"),
        "on its way from s to t",
    ),
    (ch6.ch6_ex6, Kernel(GATED.replace("tl.exp(G)[:, None]", "1.0")), "K recalls and what Q reads"),
    (ch6.ch6_ex6, Kernel(GATED, "x = tl.load", "x = 0.0 * tl.load"), "as without a gate"),
    (ch6.ch6_ex6, Kernel(GATED, AGED, "dot(tl.trans(K), U)"), "until the end of its chunk"),
    (ch6.ch6_ex6, Kernel(GATED, "S * tl.exp(total)", "S"), "over the whole chunk"),
    (ch6.ch6_ex6, Kernel(GATED, "S * tl.exp(total)", "S * tl.exp(2 * total)"), "last state is not"),
]
