"""Random arguments of an operator, from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

GATES = ("none", "head", "channel")
KEYS = ("random", "identical", "alternating", "similar")


class OnAGPU(torch.Tensor):
    """A tensor that counts as one on a GPU."""

    is_cuda = True


@dataclass
class Inputs:
    """Arguments of an operator, and gradients to send back through it."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor | None
    S: Tensor
    do: Tensor
    dS: Tensor
    beta: Tensor | None = None

    @property
    def tokens(self) -> list[Tensor]:
        """What an operator takes before its state, without what is None."""
        return [x for x in (self.q, self.k, self.v, self.beta, self.g) if x is not None]

    def rows(self, start: int, stop: int) -> Inputs:
        """The tokens from start to stop, with the same state."""
        cut = {
            name: None if x is None else x[:, start:stop]
            for name, x in vars(self).items()
            if name not in ("S", "dS")
        }
        return replace(self, **cut)

    def run(self, operator, dtype: torch.dtype, **options) -> dict[str, Tensor]:
        """Outputs and gradients of every input, by name, computed in one dtype.

        The gradient of what nothing depends on is None.
        """
        state = torch.float64 if dtype == torch.float64 else torch.float32
        leaves = {"q": self.q.to(dtype), "k": self.k.to(dtype), "v": self.v.to(dtype)}
        for name, x in (("beta", self.beta), ("g", self.g), ("S", self.S)):
            if x is not None:
                leaves[name] = x.to(state)
        leaves = {name: x.detach().clone().requires_grad_() for name, x in leaves.items()}
        tokens = [x for name, x in leaves.items() if name != "S"]
        o, S = operator(*tokens, initial_state=leaves["S"], **options)
        grads = torch.autograd.grad(
            (o, S), list(leaves.values()), (self.do.to(o), self.dS.to(S)), allow_unused=True
        )
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


def delta_inputs(
    B: int, T: int, H: int, K: int, V: int, gate: str, seed: int = 0, keys: str = "random",
    beta: tuple[float, float] = (0.0, 2.0), strength: float = 0.0,
) -> Inputs:  # fmt: skip
    """The same with keys of length 1 and step sizes from a range.

    Keys may also be all the same, the same with alternating signs, or of mean cosine 0.9.
    """
    inputs = random_inputs(B, T, H, K, V, gate, seed, strength)
    k = inputs.k.double()
    same = k[:, :1].expand_as(k)
    if keys == "identical":
        k = same
    elif keys == "alternating":
        k = same * (-1.0) ** torch.arange(T)[:, None, None]
    elif keys == "similar":
        k = 3 * same + k
    generator = torch.Generator().manual_seed(seed + 1)
    uniform = torch.rand(B, T, H, generator=generator)
    inputs.k = F.normalize(k, dim=-1).float()
    inputs.beta = beta[0] + (beta[1] - beta[0]) * uniform
    return inputs


def in_another_layout(x: Tensor) -> Tensor:
    """The same numbers, with heads before tokens in memory and a gap after each number."""
    return x.transpose(1, 2).contiguous().transpose(1, 2).repeat_interleave(2, -1)[..., ::2]
