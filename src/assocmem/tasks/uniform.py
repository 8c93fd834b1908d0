"""Numbers from which tasks are drawn."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(*shape: int, generator: torch.Generator) -> Tensor:
    """Numbers uniform in [0, 1), in float32: the same whatever PyTorch's default dtype is."""
    return torch.rand(shape, generator=generator, dtype=torch.float32)
