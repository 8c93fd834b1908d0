"""The feed-forward layer as a memory: learned keys and values, and a kernel function."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assocmem.arguments import check_counts, check_finite, check_floats, check_positive
from assocmem.nn.tokens import check_tokens
from assocmem.ops.autocast import without_autocast
from assocmem.ops.inputs import state_dtype


def relu2(z: Tensor) -> Tensor:
    """max(0, z)² (Primer, arXiv:2109.08668)."""
    return F.relu(z).square()


def softmax(z: Tensor) -> Tensor:
    """e^{z_i} / Σ_j e^{z_j} over the last axis, as in attention."""
    return z.softmax(-1)


def solu(z: Tensor) -> Tensor:
    """z ⊙ softmax(z) over the last axis (Elhage et al., Softmax Linear Units, 2022)."""
    return z * z.softmax(-1)


# From the scores z = Kx of all units to their activations. SwiGLU is not here: its units have two
# keys each, and so two scores.
KERNEL_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu2": relu2,
    "gelu": F.gelu,
    "exponential": torch.exp,
    "softmax": softmax,
    "solu": solu,
}


def least_harm(a: Tensor, B: Tensor, ridge: float) -> Tensor:
    """C⁻¹ a, with C the mean of b bᵀ over the rows b of B, plus ridge times its mean eigenvalue."""
    B = B.to(state_dtype(B))
    with without_autocast(B):
        C = B.mT @ B / len(B)
    if not C.any():  # the spared inputs excite no unit: nothing harms them
        return a
    C.diagonal().add_(ridge * C.diagonal().mean())
    return torch.linalg.solve(C, a.to(C)).to(a)


class FeedForwardMemory(nn.Module):
    """A feed-forward layer, read as a memory of d_hidden pairs (arXiv:2505.19488, §2).

        y = Σ_i κ_i(x) v_i                                                (book, eq-ffn-read)

    with κ_i(x) = f(k_iᵀx) for "relu", "relu2", "gelu" and "exponential"; f acts on all scores
    together for "softmax" and "solu", and "solu" is followed by a LayerNorm, as where it was
    introduced. For "swiglu", κ_i(x) = SiLU(g_iᵀx) k_iᵀx with a second key g_i (arXiv:2002.05202).

    Args:
        d_model: size of the tokens, and so of keys and values.
        d_hidden: number of units m, each with a key and a value.
        kernel: the kernel function, one of the seven above.

    Weights, without bias and with `nn.Linear`'s initialisation: up_proj `[d_hidden, d_model]`,
    whose rows are the keys; down_proj `[d_model, d_hidden]`, whose columns are the values; for
    "swiglu" gate_proj like up_proj; for "solu" norm, an `nn.LayerNorm` of size d_hidden.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, or the kernel is unknown.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> memory = nn.FeedForwardMemory(d_model=16, d_hidden=64)
        >>> memory(torch.randn(2, 10, 16)).shape
        torch.Size([2, 10, 16])
    """

    def __init__(self, d_model: int, d_hidden: int, kernel: str = "relu") -> None:
        super().__init__()
        check_counts(d_model=d_model, d_hidden=d_hidden)
        names = sorted([*KERNEL_FUNCTIONS, "swiglu"])
        if kernel not in names:
            raise ValueError(f"kernel must be one of {names}, got {kernel!r}")
        self.d_model = d_model
        self.kernel = kernel
        gated = kernel == "swiglu"
        self.gate_proj = nn.Linear(d_model, d_hidden, bias=False) if gated else None
        self.up_proj = nn.Linear(d_model, d_hidden, bias=False)
        self.down_proj = nn.Linear(d_hidden, d_model, bias=False)
        self.norm = nn.LayerNorm(d_hidden) if kernel == "solu" else nn.Identity()

    def extra_repr(self) -> str:
        """The kernel function, as it is printed."""
        return f"kernel={self.kernel!r}"

    def activations(self, x: Tensor) -> Tensor:
        """κ_i(x), the weight with which each unit's value enters the answer.

        Args:
            x: tokens `[..., d_model]`.

        Returns:
            `[..., d_hidden]`.

        Raises:
            TypeError: when x is not a tensor of floats, or (but under autocast) in another dtype
                than the weights.
            ValueError: when x is not `[..., d_model]`, or on another device.
        """
        check_tokens(x, self.d_model, self.up_proj)
        scores = self.up_proj(x)
        if self.gate_proj is not None:
            return F.silu(self.gate_proj(x)) * scores
        return self.norm(KERNEL_FUNCTIONS[self.kernel](scores))

    def forward(self, x: Tensor) -> Tensor:
        """From tokens `[..., d_model]` to the memory's answers, of the same shape."""
        return self.down_proj(self.activations(x))

    @torch.no_grad()
    def write(
        self, x: Tensor, y: Tensor, *, spare: Tensor | None = None, ridge: float = 1e-3
    ) -> None:
        """Make y the answer to x, by a change of the values alone, of rank one.

            V ← V + (y − V a) uᵀ / (aᵀu),    a = κ(x),    u = C⁻¹ a       (book, eq-ffn-edit)

        With C = I, when spare is None, it is the least change in the Frobenius norm. An answer V b
        moves by (y − V a) · bᵀu / aᵀu. With inputs to spare it is the change that moves their
        answers least in the mean square: C is the mean of b bᵀ over them, plus ridge times its
        mean eigenvalue, which keeps C invertible (the form of ROME, arXiv:2202.05262).

        Args:
            x: the input `[d_model]` that asks for the fact.
            y: its new answer `[d_model]`.
            spare: inputs `[N, d_model]` whose answers should stay.
            ridge: weight of the size of the change against that of the spared answers, > 0.

        Raises:
            TypeError: when an argument is not a tensor of floats, or not in the dtype of the
                weights.
            ValueError: when a shape is wrong, a number is not finite, ridge is not > 0, or x
                excites no unit.
        """
        check_floats(weight=self.down_proj.weight, x=x, y=y)
        for name, vector in (("x", x), ("y", y)):
            if vector.shape != (self.d_model,):
                raise ValueError(
                    f"{name} must have shape [d_model] = [{self.d_model}], got {list(vector.shape)}"
                )
            check_finite(name, vector)
        check_positive("ridge", ridge)
        if spare is not None:
            check_floats(weight=self.down_proj.weight, spare=spare)
            if spare.ndim != 2 or len(spare) == 0 or spare.shape[1] != self.d_model:
                raise ValueError(
                    f"spare must have shape [N, d_model] with N >= 1 and d_model = {self.d_model}, "
                    f"got {list(spare.shape)}"
                )
            check_finite("spare", spare)
        a = self.activations(x)
        u = a if spare is None else least_harm(a, self.activations(spare), ridge)
        if not a @ u > 0:
            raise ValueError("x must excite at least one unit, or nothing can be stored under it")
        self.down_proj.weight += torch.outer(y - self(x), u) / (a @ u)

    def forget(self, x: Tensor, *, spare: Tensor | None = None, ridge: float = 1e-3) -> None:
        """Make the answer to x zero: `write` with y = 0, with the same arguments and errors."""
        self.write(x, torch.zeros_like(x), spare=spare, ridge=ridge)
