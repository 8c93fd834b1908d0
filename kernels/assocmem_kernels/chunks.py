"""Where the sequences and their chunks lie among the rows of tokens. Nothing is read back."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def sequence_borders(q: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """Borders of the sequences among the B T rows of tokens, int64 `[N + 1]`."""
    if cu_seqlens is not None:
        return cu_seqlens.to(torch.int64).contiguous()
    B, T = q.shape[:2]
    return torch.arange(B + 1, device=q.device) * T


def chunk_table(borders: Tensor, rows: int, C: int) -> Tensor:
    """First token and end of the sequence for every chunk number, `[rows // C + N, 2]`.

    Chunk j of sequence n has number borders[n] // C + n + j. A number without a chunk begins at or
    after its end.
    """
    first = borders[:-1] // C + torch.arange(len(borders) - 1, device=borders.device)
    number = torch.arange(rows // C + len(borders) - 1, device=borders.device)
    n = torch.searchsorted(first, number, right=True) - 1
    return torch.stack((borders[n] + (number - first[n]) * C, borders[n + 1]), 1)


@triton.jit
def own_chunk(chunks, H: tl.constexpr):
    """Number, head, first token and end of the sequence of the chunk that a program is for."""
    i, h = tl.program_id(0).to(tl.int64) // H, tl.program_id(0).to(tl.int64) % H
    return i, h, tl.load(chunks + 2 * i), tl.load(chunks + 2 * i + 1)


@triton.jit
def own_sequence(borders, H: tl.constexpr):
    """The place of its state, number, head, first token and end of a program's sequence."""
    i_nh = tl.program_id(0).to(tl.int64)
    n, h = i_nh // H, i_nh % H
    return i_nh, n, h, tl.load(borders + n), tl.load(borders + n + 1)
