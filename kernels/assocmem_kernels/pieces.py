"""Few long sequences, cut into pieces, so that all processors of a GPU have work.

A scan takes one program for each head and tile of V, which walks from the first token to the last.
Where that leaves processors idle, the sequences are cut, and the kernels treat their pieces as
sequences. A piece takes the state S before it to P S + R (book, chapter 6, eq-combine). A first
scan, of all pieces at once and from states of 0, gives R; P is a decay, or for the delta rule a
scan of the identity without values. So the state before each piece follows from the one before the
last, and a second scan of all pieces at once goes on from there.

The last bits of a result depend on how a sequence is cut, and so on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from assocmem_kernels import launch
from assocmem_kernels.chunks import sequence_borders

# Tokens of a piece. An estimate: with fewer, starting some twenty small operations costs what the
# scans gain.
SHORTEST = 4096
ALIGNED = 64  # tokens, so that no piece ends within a chunk

Moved = Callable[[int, Tensor], Tensor]  # (i, S) → P S, for the P of piece i of every sequence


@dataclass(frozen=True)
class Pieces:
    """Borders among the rows of tokens, int64 `[N n + 1]`, for n pieces of `size` tokens each."""

    borders: Tensor
    n: int
    size: int

    @property
    def number(self) -> int:
        """How many pieces all sequences have, N n."""
        return len(self.borders) - 1

    def states(self, S: Tensor, moved: Moved, R: Tensor) -> Tensor:
        """The states before the pieces `[N n, H, K, V]`, from those before the sequences."""
        return self._chain(S, moved, R, range(self.n))

    def gradients(self, dS: Tensor, moved: Moved, R: Tensor) -> Tensor:
        """The gradients of the states after the pieces, from those after the sequences."""
        return self._chain(dS, moved, R, reversed(range(self.n)))

    def _chain(self, S: Tensor, moved: Moved, R: Tensor, order: Iterable[int]) -> Tensor:
        R, S, states = self.by_sequence(R), S.double(), {}
        for i in order:
            states[i] = S
            S = moved(i, S) + R[:, i]
        return torch.stack([states[i] for i in range(self.n)], 1).flatten(0, 1).to(R.dtype)

    def by_sequence(self, x: Tensor) -> Tensor:
        """`[N n, ...]` as `[N, n, ...]`."""
        return x.unflatten(0, (-1, self.n))

    def decay(self, g: Tensor | None) -> Moved:
        """P where a state only decays, with the log decays g `[N, T, H]` or `[N, T, H, K]`."""
        if g is None:
            return lambda _, S: S
        padding = (0, 0) * (g.ndim - 2) + (0, self.n * self.size - g.shape[1])
        sums = F.pad(g, padding).unflatten(1, (self.n, self.size)).sum(2, dtype=torch.float64)
        kept = sums.exp().reshape(*sums.shape, *(1,) * (5 - sums.ndim))
        return lambda i, S: kept[:, i] * S


def cut(q: Tensor, cu_seqlens: Tensor | None, walks: int, scans: int) -> Pieces:
    """Whole sequences, or pieces of them where that at least halves the time of the scan.

    Args:
        q: queries `[B, T, H, K]`.
        cu_seqlens: borders of packed sequences, which stay whole: their lengths are not known here.
        walks: how many programs scan the whole sequences.
        scans: how many scans the pieces take, for one of the whole.
    """
    B, T = q.shape[:2]
    n = min(launch.processors(q) // max(walks, 1), T // SHORTEST)
    if cu_seqlens is not None or n < 2 * scans:
        return Pieces(sequence_borders(q, cu_seqlens), 1, T)
    size = -(-T // (n * ALIGNED)) * ALIGNED
    n = -(-T // size)
    starts = torch.arange(B, device=q.device)[:, None] * T
    starts = starts + torch.arange(n, device=q.device) * size
    return Pieces(F.pad(starts.flatten(), (0, 1), value=B * T), n, size)
