"""What all layers and models share: a sequence goes through whole, in pieces, by tokens, or split
over the ranks of a process group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch import Tensor, nn

from assocmem.ops.inputs import check_tensor


class Streaming(nn.Module):
    """A module `forward(x, state=None, *, group=None, cu_seqlens=None) -> (y, state)`.

    x is a sequence `[B, T, ...]`, and the state is all that later tokens need of it, a tensor or a
    tuple of states; None stands for nothing so far. Pieces equal the whole: what comes out does not
    depend on how a sequence is cut. Gradients flow through the state; `detached` stops them.
    `select` takes the state of some sequences, and `join` puts states together.

    With cu_seqlens, int32 or int64 `[N + 1]` from 0 to T, x is one row `[1, T, ...]` of N sequences
    of different lengths, one after the other, which do not see each other. The state is then one
    of N sequences, and any other tokens of N sequences may follow, packed or as a batch: prompts of
    different lengths can be read in one row and continued together by `step`. `SoftmaxAttention`
    and `DeltaFormer` go through the sequences of a row one after the other.

    With group, a `torch.distributed.ProcessGroup` (of a `DeviceMesh`, `mesh.get_group("sequence")`;
    of all ranks, `dist.group.WORLD`), x is the piece of the sequence that lies on this rank, and y
    its outputs. The pieces follow each other in the order of the ranks, and may differ in length.
    The state that goes in is the one before the first token of all; the one that comes out, after
    the last, is the same on every rank. All ranks of the group call the module, and all go
    backward, with a loss of 0 if need be; the gradient of a weight is then the sum of theirs. The
    pieces have to agree in all but their lengths: with TORCH_DISTRIBUTED_DEBUG=DETAIL in the
    environment PyTorch compares what ranks exchange, and raises, instead of mixing numbers up. Only
    layers without a short convolution or a cache take group and cu_seqlens together, with the
    borders of the whole row.
    """

    if TYPE_CHECKING:  # so that a checker knows what a call gives: for `nn.Module` it is Any

        def __call__(
            self,
            x: Tensor,
            state: Any = None,
            *,
            group: dist.ProcessGroup | None = None,
            cu_seqlens: Tensor | None = None,
        ) -> tuple[Tensor, Any]:
            """The outputs and the state of `forward`."""
            ...

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One token `[B, ...]` in, one out: `forward` with T = 1.

        Args:
            x: a token of each sequence, without the dimension T.
            state: what the call before handed back; None at the start.

        Returns:
            y for this token, without the dimension T, and the state after it.

        Raises:
            TypeError, ValueError: when x is not a tensor `[B, ...]`, and as `forward`.
        """
        check_tensor("x", x)
        if x.ndim == 0:
            raise ValueError("x must have shape [B, ...], got []")
        y, state = self(x[:, None], state)
        return y[:, 0], state
