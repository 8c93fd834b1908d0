"""What an update rule is: an objective, a step on it, and the recurrence that follows from both.

    S_t = A_t(S_{t-1}) − η_t ∇L_t(A_t(S_{t-1}))        (book, chapter 5, eq-update-rule)

The memory first fades, A_t, and then takes a step of size η_t against the gradient of an objective
L_t that says what recalling the pair (k_t, v_t) should give. The step is explicit (the gradient is
taken before the step, as above), implicit (after it) or exact (to the minimum of the objective over
all pairs so far). The book writes S as d_v × d_k; the code stores its transpose, [K, V].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from assocmem.arguments import check_device, check_floats, check_number

Number = float | Tensor

KINDS = ("explicit", "implicit", "exact")
GATES = ("beta", "decay", "momentum", "ridge")


@dataclass(frozen=True)
class Write:
    """What one token brings to a memory; a rule looks at what it needs.

    Args:
        k: key `[K]`; for DeltaProduct `[n, K]` and for TTT-Linear `[b, K]`.
        v: value `[V]`; likewise `[n, V]` and `[b, V]`.
        beta: step size, a number; for DeltaProduct `[n]`, for RWKV-7 one per channel, `[K]`.
        decay: factor on what was stored before, a number; for rules whose memory is a matrix,
            except MesaNet, also one per channel, `[K]`.
        momentum: factor on the last step, a number (Titans).
        ridge: weight of ½‖S‖² in the objective, a number or one per channel, `[K]` (MesaNet).
        q: query `[K]`, for the rules that follow a single reading (softmax attention, FoX).
        write_key: key `[K]` that the value is written under, where it is not the one that is read
            (the released RWKV-7).

    Raises:
        TypeError: when an argument is not a tensor of floats in the dtype of k, or a gate not a
            number.
        ValueError: when a shape or a device is wrong.
    """

    k: Tensor
    v: Tensor
    beta: Number = 1.0
    decay: Number = 1.0
    momentum: Number = 0.0
    ridge: Number = 1.0
    q: Tensor | None = None
    write_key: Tensor | None = None

    def __post_init__(self) -> None:
        vectors = {"k": self.k, "v": self.v, "q": self.q, "write_key": self.write_key}
        check_floats(**{name: x for name, x in vectors.items() if x is not None})
        if self.k.ndim not in (1, 2):
            raise ValueError(f"k must have shape [K] or [n, K], got {list(self.k.shape)}")
        *pairs, K = self.k.shape
        if self.v.ndim != self.k.ndim or list(self.v.shape[:-1]) != pairs:
            expected = ", ".join(map(str, [*pairs, "V"]))
            raise ValueError(f"v must have shape [{expected}] like k, got {list(self.v.shape)}")
        for name in ("q", "write_key"):
            x = vectors[name]
            if x is not None and x.shape != (K,):
                raise ValueError(f"{name} must have shape [K] = [{K}] like k, got {list(x.shape)}")
        for name, x in (vectors | {gate: getattr(self, gate) for gate in GATES}).items():
            if isinstance(x, Tensor):
                check_device(name, x, self.k, "k")
        check_gate("beta", self.beta, [K], pairs)
        check_gate("decay", self.decay, [K])
        check_gate("momentum", self.momentum)
        check_gate("ridge", self.ridge, [K])

    def only(self, *gates: str) -> Write:
        """The pair with these gates; all others have no effect.

        Raises:
            ValueError: when a gate is unknown.
        """
        if not set(gates) <= set(GATES):
            raise ValueError(f"gates must be some of {list(GATES)}, got {list(gates)}")
        return Write(self.k, self.v, q=self.q, **{name: getattr(self, name) for name in gates})


def check_gate(name: str, x: Number, *shapes: list[int]) -> None:
    """Raise unless x is a number, or a tensor of floats of one of the shapes."""
    if not isinstance(x, Tensor) or x.ndim == 0:
        check_number(name, x)
        return
    check_floats(**{name: x})
    if list(x.shape) not in shapes:
        expected = " or ".join(["a number", *(f"of shape {shape}" for shape in shapes if shape)])
        raise ValueError(f"{name} must be {expected}, got shape {list(x.shape)}")


def one(gate: str, write: Write) -> Number:
    """A gate of a rule that has it as one number for all channels and pairs.

    Raises:
        ValueError: when there are several.
    """
    x = getattr(write, gate)
    if isinstance(x, Tensor) and x.ndim:
        raise ValueError(f"{gate} must be a number for this rule, got shape {list(x.shape)}")
    return x


def one_pair(write: Write) -> tuple[Tensor, Tensor]:
    """Key `[K]` and value `[V]` for a rule that writes one pair per token.

    Raises:
        ValueError: when there are several.
    """
    if write.k.ndim > 1:
        raise ValueError(f"k must have shape [K] for this rule, got {list(write.k.shape)}")
    return write.k, write.v


@dataclass(frozen=True)
class Formulas:
    """A rule in TeX, with S as d_v × d_k as in the book, one formula per column of the table."""

    objective: str
    step: str
    recurrence: str
    eigenvalue: str
    limit: str


def empty_matrix(write: Write) -> Tensor:
    """The memory before the first token: zeros `[K, V]`."""
    return write.k.new_zeros(write.k.shape[-1], write.v.shape[-1])


def itself(state: Any, _: Write | None = None) -> Tensor:
    """The state of a rule that keeps nothing but its memory."""
    return state


def no_limit(_: Any, __: Write) -> float:
    """Any step size is stable."""
    return float("inf")


@dataclass(frozen=True)
class Rule:
    """One row of the unified table.

    Args:
        name: what the model is called.
        source: arXiv number of the paper.
        kind: "explicit", "implicit" or "exact".
        objective: L(X, state, write), with X the memory as a variable and state what was there
            before the write; a scalar. X is like faded(state, write) for an explicit rule
            (DeltaFormer's has a row for the feature that the new key adds), else like the memory.
        step: the recurrence: state, write → next state.
        learning_rate: η(state, write) of the explicit step, or of the one that an implicit or exact
            step amounts to: a number, one per channel `[K, 1]`, or a matrix `[K, K]` (MesaNet).
        eigenvalue: factors by which a write multiplies what is stored along its key, state, write →
            one or more numbers. Exact where the decay is the same in all channels, or β = 0.
        limit: the largest β at which no factor exceeds 1 in size, state, write → number.
        tex: the same as formulas.
        empty: the state before the first write.
        memory: the part of the state that the objective is about.
        faded: A(state, write), the memory from which an explicit step starts.
        parts: the writes of one token, in order.
        released: the step of the released model, where it is not the one of the objective.
        note: what a reader of the row has to know.

    Raises:
        ValueError: when the kind is unknown.

    Example:
        >>> import torch
        >>> from assocmem.rules import RULES, Write
        >>> rule = RULES["deltanet"]
        >>> write = Write(k=torch.tensor([1.0, 0.0]), v=torch.tensor([3.0]), beta=0.5)
        >>> S = rule.step(rule.empty(write), write)
        >>> write.k @ S  # half of the way from 0 to 3
        tensor([1.5000])
        >>> rule.residual(S, write) < 1e-6  # against automatic differentiation
        True
    """

    name: str
    source: str
    kind: str
    objective: Callable[[Tensor, Any, Write], Tensor]
    step: Callable[[Any, Write], Any]
    learning_rate: Callable[[Any, Write], Number]
    eigenvalue: Callable[[Any, Write], Tensor]
    tex: Formulas
    limit: Callable[[Any, Write], float] = no_limit
    empty: Callable[[Write], Any] = empty_matrix
    memory: Callable[[Any], Tensor] = itself
    faded: Callable[[Any, Write], Tensor] = itself
    parts: Callable[[Write], list[Write]] = lambda write: [write]
    released: Callable[[Any, Write], Any] | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {list(KINDS)}, got {self.kind!r}")

    def gradient(self, X: Tensor, state: Any, write: Write) -> Tensor:
        """∇L at X, by automatic differentiation."""
        X = X.detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.objective(X, state, write), X)
        return gradient

    def residual(self, state: Any, write: Write) -> float:
        """How far the recurrence lands from what its objective asks for, relative to the memory.

        For an explicit step the distance to A(S) − η ∇L(A(S)); for an implicit or exact one the
        gradient that is left at the new memory. Both in units of its largest entry, or of 1 where
        that is smaller.
        """
        new = self.memory(self.step(state, write))
        if self.kind == "explicit":
            S = state
            for part in self.parts(write):
                X = self.faded(S, part)
                S = X - self.learning_rate(S, part) * self.gradient(X, S, part)
            difference = new - S
        else:
            difference = self.gradient(new, state, write)
        return (difference.abs().max() / new.abs().max().clamp_min(1.0)).item()

    def departure(self, state: Any, write: Write) -> float:
        """‖released − S‖ / ‖S‖ after one write; 0 where the released model follows its objective.

        Raises:
            ValueError: when the state is such that S is zero.
        """
        if self.released is None:
            return 0.0
        S, other = self.memory(self.step(state, write)), self.memory(self.released(state, write))
        if not S.any():
            raise ValueError("state and write must leave a memory that is not zero, got zeros")
        return ((other - S).norm() / S.norm()).item()


def channels(x: Number) -> Number:
    """A number as it is; one per channel as a column `[K, 1]` that multiplies rows of `[K, V]`."""
    return x[:, None] if isinstance(x, Tensor) and x.ndim == 1 else x


def energy(X: Tensor, weight: Number) -> Tensor:
    """½ Σ_c weight_c ‖X_c‖² over the rows of X `[K, V]`, one per channel of the key."""
    return 0.5 * (weight * X.square().sum(1)).sum()


def agreement(X: Tensor, write: Write) -> Tensor:
    """⟨Xᵀk, v⟩: how far the reading points along the value."""
    return (write.k @ X) @ write.v


def half_error(X: Tensor, write: Write) -> Tensor:
    """½‖Xᵀk − v‖², summed over the pairs of a write."""
    return 0.5 * (write.k @ X - write.v).square().sum()


def power(write: Write) -> Tensor:
    """‖k‖²."""
    k, _ = one_pair(write)
    return k.square().sum(-1)


def as_vector(x: Number, write: Write) -> Tensor:
    """A factor as a tensor of at least one entry, with the key's dtype."""
    return torch.atleast_1d(torch.as_tensor(x, dtype=write.k.dtype, device=write.k.device))
