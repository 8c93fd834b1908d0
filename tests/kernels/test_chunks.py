"""Where the chunks of packed sequences lie."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

pytest.importorskip("triton", reason="triton is missing")
from assocmem_kernels import chunks


def test_the_table_lists_every_chunk_once():
    borders, C = torch.tensor([0, 1, 1, 33, 64, 64, 100]), 16
    table = chunks.chunk_table(borders, 100, C)
    expected = {
        int(start) // C + n + j: (int(start) + j * C, int(stop))
        for n, (start, stop) in enumerate(pairwise(borders))
        for j in range(-(-int(stop - start) // C))
    }
    got = {i: (int(a), int(b)) for i, (a, b) in enumerate(table) if a < b}
    assert got == expected


@pytest.mark.parametrize("cu_seqlens", [None, torch.tensor([0, 30, 100], dtype=torch.int32)])
def test_places_are_counted_in_64_bits(cu_seqlens):
    borders = chunks.sequence_borders(torch.empty(1, 100, 1, 1), cu_seqlens)
    assert borders.dtype == chunks.chunk_table(borders, 100, 16).dtype == torch.int64
