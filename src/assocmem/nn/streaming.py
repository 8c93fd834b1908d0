"""What all layers and models share: a sequence goes through whole, in pieces, or by tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Streaming(nn.Module):
    """A module `forward(x, state=None) -> (y, state)` for which pieces equal the whole.

    x is a sequence `[B, T, ...]`, and the state is all that later tokens need of it, a tensor or a
    tuple of tensors; None stands for nothing so far. Gradients flow through it: detach it to stop
    them.
    """

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One token `[B, ...]` in, one out: `forward` with T = 1.

        Args:
            x: a token of each sequence, without the dimension T.
            state: what the call before handed back; None at the start.

        Returns:
            y for this token, without the dimension T, and the state after it.
        """
        y, state = self(x[:, None], state)
        return y[:, 0], state
