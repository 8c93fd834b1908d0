"""Checks of chapter 6: scans on a GPU. A kernel is run on a GPU where there is one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from assocmem.book.check.answer import drawn
from assocmem.book.check.exercise import Wrong, exercise

C, D = 16, 16  # tokens in a chunk, size of keys and values
NAN = float("nan")


def launch(kernel: Any, programs: int, *arguments: Any) -> None:
    """Run a kernel on as many programs; tensors must be where `place` puts them."""
    if "NotImplementedError" in getattr(kernel, "fn", kernel).__code__.co_names:
        raise NotImplementedError
    if not hasattr(kernel, "run"):
        raise Wrong("this is no kernel: put @triton.jit above the function")
    kernel[(programs,)](*arguments)


def place(x: Tensor) -> Tensor:
    """In float32, on the GPU where there is one."""
    return x.to("cuda" if torch.cuda.is_available() else "cpu", torch.float32).contiguous()


class Room:
    """Room for a result, filled with NaN, with more of it behind the end."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.buffer = place(torch.full((math.prod(shape) + 4 * C * D,), NAN))

    def result(self) -> Tensor:
        """What was written, in float64."""
        return self.buffer[: math.prod(self.shape)].view(self.shape).cpu().double()

    def written_behind(self) -> int:
        """How many numbers were written where nothing belongs."""
        return int((~self.buffer[math.prod(self.shape) :].isnan()).sum())


def same(got: Tensor, expected: Tensor) -> bool:
    """Equal up to what a tensor core may round away; false where there is NaN."""
    return bool((got - expected).norm() <= 5e-3 * expected.norm())


@exercise
def ch6_ex1(largest_chunk: Callable[[int, float, float], float]) -> None:
    """The chunk size at which arithmetic takes as long as memory traffic, delta rule, K = V = D."""
    for d, flops, bandwidth in ((128, 989e12, 4.8e12), (64, 312e12, 2.039e12)):
        got, ridge = float(largest_chunk(d, flops, bandwidth)), flops / bandwidth

        def near(c: float, got: float = got) -> bool:
            return math.isclose(got, c, rel_tol=0.02)

        if near((8 * d / ridge - 6 * d * d) / (8 * d)):
            raise Wrong("the ridge is operations for each byte, not bytes for each operation")
        if near((ridge * 8 * d - 4 * d * d) / (4 * d)):
            raise Wrong("this is linear attention; the delta rule has 6KV + 2C(2K + 2V)")
        if near(ridge):
            raise Wrong("do not forget the products with the state, which do not depend on C")
        if near((ridge * 16 * d - 6 * d * d) / (8 * d)):
            raise Wrong("a number in bfloat16 has 2 bytes")
        if not near((ridge * (8 * d + 4) - 6 * d * d) / (8 * d)):
            raise Wrong(f"not for D = {d}: set operations over bytes equal to the ridge")


@exercise
def ch6_ex2(scale_rows: Any) -> None:
    """y = scale · x by blocks of C rows, with sizes that fill no block."""
    T, width, BD, scale = 37, 20, 32, 2.5
    x, y = drawn(T, width, seed=6), Room(T, width)
    launch(scale_rows, -(-T // C), place(x), y.buffer, T, scale, width, C, BD)
    got, written = y.result(), ~y.result().isnan()
    if not written.any():
        raise Wrong("nothing was written to y")
    if y.written_behind() > BD - width:
        raise Wrong("rows from T on do not exist: mask them when you store")
    if y.written_behind():
        raise Wrong("columns from D on belong to the next row: mask them as well")
    if not written[C:].any():
        raise Wrong("only the first C rows are there: which block is this program's?")
    if same(got, x):
        raise Wrong("this is x itself, without the scale")
    if not same(got, scale * x):
        row, column = ((got - scale * x).abs() <= 1e-2).logical_not().nonzero()[0].tolist()
        raise Wrong(f"row {row}, column {column} is wrong: a row begins D numbers after the last")


@exercise
def ch6_ex3(causal_block: Any) -> None:
    """Linear attention of one block, all at once: O = tril(Q Kᵀ) V."""
    T = 13
    q, k, v = drawn(3, T, D, seed=6)
    o = Room(T, D)
    launch(causal_block, 1, place(q), place(k), place(v), o.buffer, T, D, C)
    got, scores = o.result(), q @ k.T
    if o.written_behind():
        raise Wrong("rows from T on do not exist: mask them when you store")
    hints = (
        (scores, "every token sees the whole block; it must not see later ones"),
        (scores.tril(-1), "a token reads its own pair as well: the diagonal belongs to the mask"),
        (scores.triu(), "the mask is the wrong way round: t sees s for s ≤ t"),
        (scores.T.tril(), "row t of the scores belongs to query t, and column s to key s"),
        (scores.tril() / math.sqrt(D), "no scale is asked for"),
    )
    for weights, hint in hints:
        if same(got, weights @ v):
            raise Wrong(hint)
    if not same(got, scores.tril() @ v):
        raise Wrong(f"not right: {first_wrong(got[:, None], (scores.tril() @ v)[:, None])}")


class Case(NamedTuple):
    """Tokens of some heads, `[T, H, ...]`, and the state before them."""

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor
    g: Tensor
    S: Tensor

    @classmethod
    def draw(cls, T: int, H: int, decays: bool) -> Case:
        """Keys of length 1, and decays between 0.8 and 1."""
        q, k, v = drawn(3, T, H, D, seed=6)
        beta, g = drawn(2, T, H, seed=7).sigmoid()
        return cls(q, F.normalize(k, dim=-1), v, beta, -0.2 * g * decays, drawn(H, D, D, seed=6))

    def chunk_form(self, without: str = "") -> tuple[Tensor, Tensor]:
        """O and the last state; or what comes out when one step is left out."""
        o, S = [], self.S
        for start in range(0, len(self.q), C):
            q, k, v, beta, g = (x[start : start + C].transpose(0, 1) for x in self[:5])
            Γ, γ, ρ = decays(g)
            kept, left_out = γ[:, -1:], TOGETHER.get(without, (without,))
            Γ, γ_k, γ_q, ρ, kept, β = (
                torch.ones_like(x) if name in left_out else x
                for name, x in (
                    ("Γ", Γ), ("γ of K", γ), ("γ of Q", γ), ("ρ", ρ), ("aging", kept),
                    ("β", beta[..., None]),
                )
            )  # fmt: skip
            scores = q @ k.mT if without == "mask" else (q @ k.mT).tril()
            U = β * (v if without == "recall" else v - (γ_k * k) @ S)
            if without != "inverse":
                U = unit_inverse(k, beta, g) @ U
            reading = 0 * U if without == "reading" else (γ_q * q) @ S
            o.append((scores * Γ @ U + reading).transpose(0, 1))
            S = (0 if without == "old state" else kept * S) + (ρ * k).mT @ U
        return torch.cat(o), S

    def inverses(self) -> Tensor:
        """(I + L)⁻¹ of every chunk `[T, H, C]`, as a kernel gets it."""
        rows = []
        for start in range(0, len(self.q), C):
            k, beta, g = (x[start : start + C].transpose(0, 1) for x in (self.k, self.beta, self.g))
            T = unit_inverse(k, beta, g).transpose(0, 1)
            rows.append(F.pad(T, (0, C - T.shape[-1])))
        return torch.cat(rows)


def decays(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Γ `[H, C, C]`, without a mask, γ and ρ `[H, C, 1]` of one chunk."""
    G = g.cumsum(-1)
    Γ = (G[..., :, None] - G[..., None, :]).exp()
    return Γ, G.exp()[..., None], Γ[..., -1, :, None]


def unit_inverse(k: Tensor, beta: Tensor, g: Tensor) -> Tensor:
    """(I + strict_lower(β ⊙ K Kᵀ ⊙ Γ))⁻¹ of one chunk `[H, C, C]`."""
    L = (beta[..., None] * (k @ k.mT) * decays(g)[0]).tril(-1)
    return torch.linalg.inv(torch.eye(L.shape[-1]).to(L) + L)


TOGETHER = {  # steps that are forgotten together
    "γ": ("γ of K", "γ of Q"),
    "gate": ("γ of K", "γ of Q", "Γ", "ρ", "aging"),
}
HINTS = {
    "mask": "a token reads later corrections as well: keep s ≤ t in Q Kᵀ",
    "β": "the corrections are not multiplied by β",
    "recall": "a correction is what is missing: take from V what the memory recalls, K S",
    "inverse": "without the inverse, a token does not see what earlier ones of its chunk corrected",
    "reading": "the outputs lack what was stored before the chunk, Q S",
    "old state": "the outgoing state lacks the incoming one",
    "γ of K": "what K recalls from the state has aged since the chunk's start, as what Q reads has",
    "γ of Q": "what Q reads from the state has aged since the chunk's start, as what K recalls has",
    "Γ": "inside the chunk, too, a correction ages on its way from s to t",
    "ρ": "a correction ages until the end of its chunk before it is part of the state",
    "aging": "the old state ages over the whole chunk",
    "γ": "what K recalls and what Q reads from the state has aged since the chunk's start",
    "gate": "as without a gate: apart from the inverse, where else has something aged?",
}


def first_wrong(got: Tensor, expected: Tensor) -> str:
    """Where outputs `[T, H, ...]` go wrong first."""
    close = (got - expected).norm(dim=-1) <= 5e-3 * expected.norm(dim=-1)
    t, h = close.logical_not().nonzero()[0].tolist()
    return f"the first wrong output is that of token {t} of head {h}"


def judge(case: Case, o: Room, ST: Room) -> None:
    """Compare outputs and state with the chunk form, and with what typical omissions give."""
    got, state = o.result(), ST.result()
    if o.written_behind():
        raise Wrong("rows from T on do not exist: mask them when you store")
    expected, expected_state = case.chunk_form()
    if same(got, expected) and same(state, expected_state):
        return
    for name, hint in HINTS.items():
        wrong, wrong_state = case.chunk_form(name)
        if same(got, wrong) and same(state, wrong_state):
            raise Wrong(hint)
    if state.isnan().any():
        raise Wrong("the state after the last token was not stored in ST, or has NaN of rows from "
                    "T on, which do not exist")  # fmt: skip
    if got.isnan().any():
        raise Wrong(f"not all outputs were written: {first_wrong(got, expected)}")
    if same(got, expected):
        raise Wrong("the outputs are right, and the last state is not: S + Kᵀ U")
    if got.shape[1] > 1 and same(got[:, 0], expected[:, 0]):
        raise Wrong("head 0 is right, the others are not: token t of head h is row t H + h")
    if same(got[:C], expected[:C]):
        raise Wrong("right in the first chunk only: does the next one begin with the new state?")
    raise Wrong(f"not right: {first_wrong(got, expected)}")


def run(kernel: Any, case: Case, *gates: Tensor, sizes: tuple[int, ...]) -> tuple[Room, Room]:
    """Launch a kernel of the delta rule, one program per head."""
    (T, H), o, ST = case.q.shape[:2], Room(*case.q.shape), Room(*case.S.shape)
    tokens = (case.q, case.k, case.v, case.beta, *gates, case.inverses())
    inputs = [place(x) for x in tokens]
    launch(kernel, H, *inputs, o.buffer, place(case.S), ST.buffer, T, *sizes)
    return o, ST


@exercise
def ch6_ex4(delta_chunk: Any) -> None:
    """The delta rule in one chunk, from a state to a state."""
    case = Case.draw(13, 1, decays=False)
    judge(case, *run(delta_chunk, case, sizes=(D, C)))


@exercise
def ch6_ex5(delta_scan: Any) -> None:
    """The delta rule over chunks and heads."""
    for T in (C, 3 * C - 3):
        case = Case.draw(T, 2, decays=False)
        judge(case, *run(delta_scan, case, sizes=(2, D, C)))


@exercise
def ch6_ex6(gated_delta_scan: Any) -> None:
    """The delta rule with a decay per head."""
    still = Case.draw(3 * C - 3, 2, decays=False)
    o, ST = run(gated_delta_scan, still, still.g, sizes=(2, D, C))
    expected, state = still.chunk_form()
    if not (same(o.result(), expected) and same(ST.result(), state)):
        raise Wrong("with g = 0 it must do what the last exercise does")
    for T in (C, 3 * C - 3):
        case = Case.draw(T, 2, decays=True)
        judge(case, *run(gated_delta_scan, case, case.g, sizes=(2, D, C)))
