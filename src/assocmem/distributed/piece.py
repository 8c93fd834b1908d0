"""The piece of a sequence that lies on this rank, and the whole of it where that is needed.

A scan needs only a state of the ranks before. A short convolution needs their last tokens, and
softmax attention all of their keys and values.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


class Piece:
    """The place of this rank's tokens in a sequence that is split over ranks.

    The ranks of the group have the sequence in their order. All of them take part, as every
    method is a collective operation; and where one of them goes backward, all have to. `lengths`
    has T_r of every rank, and `start` is the position of this rank's first token, Σ_{s<r} T_s.

    Args:
        x: the tokens that lie here, `[B, T_r, ...]`; T_r may differ, and may be 0.
        group: the ranks that share the sequence; None when this process has all of it.

    Raises:
        TypeError, RuntimeError, ValueError: when the group is not a process group, none is
            initialised, this rank is not in it, or gradients are differentiated again.

    Example:
        >>> import torch
        >>> from assocmem.distributed import Piece
        >>> x = torch.randn(2, 10, 3)
        >>> piece = Piece(x, None)  # not split: this is all of it
        >>> piece.start, piece.lengths, [y.shape for y in piece.whole(x)]
        (0, [10], [torch.Size([2, 10, 3])])
    """

    def __init__(self, x: Tensor, group: dist.ProcessGroup | None) -> None:
        self.group = group
        self.lengths = [x.shape[1]] if group is None else lengths(x, group)
        self.start = 0 if group is None else sum(self.lengths[: dist.get_rank(group)])

    def whole(self, *pieces: Tensor | None) -> tuple[Any, ...]:
        """The tokens of all ranks in order, `[B, Σ T_r, ...]`, from this one's; None from None.

        The gradients that the ranks send back to a token are added on the rank where it lies.
        """
        return pieces if self.group is None else Whole.apply(self, *pieces)


class Whole(torch.autograd.Function):
    """Pieces are filled up to the longest, gathered, and cut again; backward, gradients are added.

    What is gathered together is one node of the graph: the order of nodes that do not depend on
    each other could differ between ranks, and ranks would take each other's numbers.
    """

    @staticmethod
    def forward(ctx, piece: Piece, *pieces: Tensor | None) -> tuple[Tensor | None, ...]:
        """The tokens of all ranks."""
        ctx.piece = piece
        return tuple(None if x is None else joined(x, piece) for x in pieces)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs: Tensor | None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradient of this rank's tokens, from those of all ranks' wholes."""
        return None, *(None if d is None else own_sum(d, ctx.piece) for d in grad_outputs)


def joined(x: Tensor, piece: Piece) -> Tensor:
    """The tokens of all ranks, one after the other."""
    filled = x.new_zeros(x.shape[0], max(piece.lengths), *x.shape[2:])
    filled[:, : x.shape[1]] = x
    pieces = gather(filled, piece.group)
    return torch.cat([p[:, :T] for p, T in zip(pieces, piece.lengths, strict=True)], 1)


def own_sum(d_whole: Tensor, piece: Piece) -> Tensor:
    """What all ranks together send back to the tokens of this one."""
    total = d_whole.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=piece.group)
    return total[:, piece.start : piece.start + piece.lengths[dist.get_rank(piece.group)]]


def check_group(group: dist.ProcessGroup | None) -> None:
    """Raise unless this rank is in the group, which is that of all ranks when None."""
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError("torch.distributed has no process group: init_process_group comes first")
    if isinstance(group, dist.device_mesh.DeviceMesh):
        raise TypeError("group must be a ProcessGroup, such as mesh.get_group(), got a DeviceMesh")
    if dist.get_rank(group) < 0:
        raise ValueError(f"group must contain this rank, {dist.get_rank()}, which it does not")


def lengths(x: Tensor, group: dist.ProcessGroup | None) -> list[int]:
    """How many tokens `[B, T_r, ...]` every rank has."""
    check_group(group)
    return torch.cat(gather(torch.tensor([x.shape[1]], device=x.device), group)).tolist()


def gather(x: Tensor, group: dist.ProcessGroup | None) -> list[Tensor]:
    """A tensor of the same shape from every rank."""
    every = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(every, x, group)
    return every
