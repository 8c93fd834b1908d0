"""Numbers from which tasks are drawn, on the device of the generator that draws them."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(*shape: int, generator: torch.Generator) -> Tensor:
    """Numbers uniform in [0, 1), in float32: the same whatever PyTorch's default dtype is."""
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)


def integers(below: int, *shape: int, generator: torch.Generator) -> Tensor:
    """Integers uniform in 0 … below − 1, int64."""
    return torch.randint(below, shape, generator=generator, device=generator.device)
