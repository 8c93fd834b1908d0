"""The short convolution before a memory: every channel sees its own last few tokens."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from assocmem.arguments import check_counts, check_device, check_floats
from assocmem.distributed import Piece
from assocmem.nn.streaming import Streaming
from assocmem.ops.inputs import check_cu_seqlens, check_tensor, sequences
from assocmem.ops.packed import rows_behind


class ShortConvolution(Streaming):
    """A causal convolution along the tokens, one filter per channel, then SiLU.

    y_t = SiLU(Σ_{i=0}^{width-1} w_i ⊙ x_{t-i}), with x = 0 before the first token
    (arXiv:2406.06484 and arXiv:2412.06464 use it on queries, keys and values, with width 4).

    Args:
        channels: size C of the tokens.
        width: how many tokens a filter sees, the present one included.

    Weights: weight `[width, C]`, row i for the token i steps ago, uniform within
    ± width ** -0.5 as in `nn.Conv1d` with one filter per channel.

    Raises:
        TypeError, ValueError: when channels or width is not an integer >= 1.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> x, convolution = torch.randn(1, 10, 8), nn.ShortConvolution(channels=8)
        >>> first, state = convolution(x[:, :6])
        >>> second, _ = convolution(x[:, 6:], state)
        >>> torch.allclose(torch.cat((first, second), 1), convolution(x)[0])
        True
    """

    def __init__(self, channels: int, width: int = 4) -> None:
        super().__init__()
        check_counts(channels=channels, width=width)
        self.weight = nn.Parameter(torch.empty(width, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights, as when the layer is made."""
        bound = len(self.weight) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def extra_repr(self) -> str:
        """Sizes, as they are printed."""
        width, channels = self.weight.shape
        return f"{channels}, width={width}"

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        *,
        group: dist.ProcessGroup | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Filter a piece of a sequence.

        Args:
            x: tokens `[B, T, C]`.
            state: the width - 1 tokens before them, `[N, width - 1, C]`, N = B unless sequences are
                packed; zeros when None. It takes the dtype of x, as autocast may be on for some
                pieces and off for others.
            group: the ranks on which the pieces x of a sequence lie, as `Streaming` says.
            cu_seqlens: borders of N packed sequences `[N + 1]`, as `Streaming` says.

        Returns:
            y `[B, T, C]`, and the last width - 1 tokens, for the next piece.

        Raises:
            TypeError: when x or the state is not a tensor of floats.
            ValueError: when x is not `[B, T, C]`, the state not `[N, width - 1, C]`, one of them on
                another device, or cu_seqlens do not fit (their contents are not checked in a graph
                of `torch.compile`).
            NotImplementedError: when sequences are packed, and a group is given.
        """
        check_tensor("x", x)
        check_floats(x=x)
        width, C = self.weight.shape
        if x.ndim != 3 or x.shape[-1] != C:
            raise ValueError(f"x must have shape [B, T, C] with C = {C}, got {list(x.shape)}")
        check_device("x", x, self.weight, "the weights")
        check_cu_seqlens(cu_seqlens, x, "x")
        past = width - 1
        expected = (sequences(x, cu_seqlens), past, C)
        state = x.new_zeros(expected) if state is None else state
        check_tensor("state", state)
        check_floats(state=state)
        check_device("state", state, x, "x")
        if state.shape != expected:
            raise ValueError(
                f"state must have shape [N, width - 1, C] = {list(expected)}, "
                f"got {list(state.shape)}"
            )
        if cu_seqlens is not None:
            if group is not None:
                raise NotImplementedError("a short convolution takes no cu_seqlens with a group")
            return self._packed(x, state.to(x.dtype), cu_seqlens)
        tail = x[:, -past:] if past else x[:, :0]
        piece = Piece(tail, group)
        # What a filter sees of earlier ranks lies in their last tokens, `past` of each or all.
        seen = torch.cat((state.to(x.dtype), *piece.whole(tail)), 1)
        y = self._filtered(torch.cat((seen[:, piece.start : piece.start + past], x), 1))
        # A copy, as a view would keep the whole piece in memory.
        return F.silu(y), seen[:, seen.shape[1] - past :].clone()

    def _packed(self, x: Tensor, state: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
        """The same for packed sequences, each put after the tokens before it, all in one row."""
        N, past, C = state.shape
        slots = past * torch.arange(N + 1, device=x.device)
        order, new = rows_behind(slots, N * past, cu_seqlens, x.shape[1])
        seen = torch.cat((state.reshape(1, N * past, C), x), 1).index_select(1, order)
        y = self._filtered(seen).index_select(1, new - past)
        end = (slots + cu_seqlens)[1:, None]
        last = end - past + torch.arange(past, device=x.device)
        return F.silu(y), seen[0].index_select(0, last.flatten()).unflatten(0, (N, past))

    def _filtered(self, x: Tensor) -> Tensor:
        """Σ_i w_i ⊙ x_{t-i} of every token but the first width - 1 of x `[B, width - 1 + T, C]`."""
        past = len(self.weight) - 1
        y = self.weight[0] * x[:, past:]
        for i in range(1, past + 1):
            y = y + self.weight[i] * x[:, past - i : x.shape[1] - i]
        return y
