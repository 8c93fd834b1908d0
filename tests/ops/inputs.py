"""Random arguments of an operator, from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

GATES = ("none", "head", "channel")


@dataclass
class Inputs:
    """Arguments of `linear_attention`, and gradients to send back through it."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor | None
    S: Tensor
    do: Tensor
    dS: Tensor

    def run(self, operator, dtype: torch.dtype, **options) -> dict[str, Tensor]:
        """Outputs and gradients of every input, by name, computed in one dtype."""
        state = torch.float64 if dtype == torch.float64 else torch.float32
        leaves = {"q": self.q.to(dtype), "k": self.k.to(dtype), "v": self.v.to(dtype)}
        if self.g is not None:
            leaves["g"] = self.g.to(state)
        leaves["S"] = self.S.to(state)
        leaves = {name: x.detach().clone().requires_grad_() for name, x in leaves.items()}
        o, S = operator(
            leaves["q"], leaves["k"], leaves["v"], leaves.get("g"),
            initial_state=leaves["S"], **options,
        )  # fmt: skip
        grads = torch.autograd.grad((o, S), list(leaves.values()), (self.do.to(o), self.dS.to(S)))
        return {
            "o": o.detach(),
            "final S": S.detach(),
            **{f"d{name}": x for name, x in zip(leaves, grads, strict=True)},
        }


def random_inputs(
    B: int, T: int, H: int, K: int, V: int, gate: str, seed: int = 0, strength: float = 0.0
) -> Inputs:
    """Gaussian q, k, v and state; log decays logsigmoid(Gaussian − strength)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k, v = normal(B, T, H, K), normal(B, T, H, K), normal(B, T, H, V)
    shape = {"none": None, "head": (B, T, H), "channel": (B, T, H, K)}[gate]
    g = None if shape is None else F.logsigmoid(normal(*shape) - strength)
    inputs = [q, k, v, g, normal(B, H, K, V), normal(B, T, H, V), normal(B, H, K, V)]
    # Rounded to float32, so that both precisions see the same numbers.
    return Inputs(*(None if x is None else x.float() for x in inputs))  # pyright: ignore
