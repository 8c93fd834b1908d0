"""Facts learned by a feed-forward memory, and how many units carry each of them (chapter 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from assocmem.nn import FeedForwardMemory
from assocmem.tasks import Facts
from assocmem.train import train


class ScaledSoftmax(FeedForwardMemory):
    """A softmax memory whose activations are multiplied by their number m, so that their mean is 1.

    Those of a softmax have the mean 1/m, and the layer's first answers are m times too small.
    """

    def __init__(self, d_model: int, d_hidden: int) -> None:
        super().__init__(d_model, d_hidden, "softmax")

    def activations(self, x: Tensor) -> Tensor:
        """m κ_i(x), `[..., d_hidden]`, of tokens x `[..., d_model]`."""
        return self.up_proj.out_features * super().activations(x)


def layer(kernel: str, d_model: int, d_hidden: int) -> FeedForwardMemory:
    """A memory with one of the seven kernel functions, or with "scaled softmax"."""
    if kernel == "scaled softmax":
        return ScaledSoftmax(d_model, d_hidden)
    return FeedForwardMemory(d_model, d_hidden, kernel)


def untrained(kernel: str, d_model: int, d_hidden: int, *, seed: int = 0) -> FeedForwardMemory:
    """A seeded `layer`, "swiglu" with 2/3 of the units and so as many numbers."""
    torch.manual_seed(seed)
    return layer(kernel, d_model, 2 * d_hidden // 3 if kernel == "swiglu" else d_hidden)


def learn(
    memory: FeedForwardMemory, facts: Facts, steps: int, *, lr: float, silent: bool = False
) -> list[float]:
    """Train a memory on all facts at every step; returns the losses.

    The loss is the cross entropy of the labels, with the dot products of output and answers over
    √d_model as logits.
    """
    scale = facts.inputs.shape[1] ** -0.5

    def loss(_: torch.Generator) -> Tensor:
        return F.cross_entropy(scale * memory(facts.inputs) @ facts.answers.mT, facts.labels)

    return train(memory, loss, steps, lr=lr, silent=silent)


@torch.no_grad()
def contributions(memory: FeedForwardMemory, inputs: Tensor) -> Tensor:
    """|κ_i(x_n)| ‖v_i‖, the length of what unit i adds to the answer to input n, `[N, m]`."""
    return memory.activations(inputs).abs() * memory.down_proj.weight.norm(dim=0)


def participation_ratio(c: Tensor, dim: int) -> Tensor:
    """(Σ c)² / Σ c² along a dimension of c ≥ 0: how many entries carry the sum.

    n equal entries among zeros give n; where all are 0, the ratio is 0.
    """
    return c.sum(dim).square() / c.square().sum(dim).clamp_min(torch.finfo(c.dtype).tiny)
