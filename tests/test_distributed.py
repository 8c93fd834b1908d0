"""Split scans equal those of one process: outputs and all gradients, with the gloo backend."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from assocmem import distributed, ops
from tests.ops.inputs import GATES, delta_inputs, random_inputs
from tests.ops.reference import relative_error

T, H, K, V = 150, 2, 8, 6
SPLITS = {2: [(100, 50), (150, 0), (0, 150)], 3: [(1, 64, 85), (70, 0, 80)], 4: [(40, 30, 50, 30)]}
BORDERS = torch.tensor([0, 0, 30, 110, 149, 150])  # sequences that cross ranks, one that is empty
BOUNDS = {torch.float32: 2e-6, torch.float64: 1e-12}


def error_of_a_case(name: str, gate: str, split: tuple[int, ...], packed: bool, dtype) -> float:
    """The worst relative error on this rank, against one process with the whole sequence."""
    B = 1 if packed else 2
    make = random_inputs if name == "linear_attention" else delta_inputs
    inputs = make(B, T, H, K, V, gate)
    options = {"backend": "chunk", "output_final_state": True}
    if packed:
        n = len(BORDERS) - 1
        generator = torch.Generator().manual_seed(1)
        state = torch.randn(2, n, H, K, V, generator=generator)
        inputs = replace(inputs, S=state[0], dS=state[1])
        options["cu_seqlens"] = BORDERS
    whole = inputs.run(getattr(ops, name), dtype, **options)

    rank = dist.get_rank()
    start = sum(split[:rank])
    rows = slice(start, start + split[rank])
    mine = inputs.rows(rows.start, rows.stop)
    if rank:  # only rank 0's start counts
        mine = replace(mine, S=torch.full_like(mine.S, 7.0))
    # The ranks' gradients of the final state add up to dS.
    mine = replace(mine, dS=inputs.dS.double() / len(split))
    got = mine.run(getattr(distributed, name), dtype, **options)
    errors = []
    for what, x in got.items():
        if what == "dS":
            assert (x is None) == (rank > 0)
        if x is None or x.numel() == 0:
            continue
        expected = whole[what] if what in ("final S", "dS") else whole[what][:, rows]
        errors.append(relative_error(x, expected))
    return max(errors)


def worker(rank: int, world: int, port: int, results) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world, timeout=timedelta(seconds=60))
    for name in ("linear_attention", "delta_rule"):
        for gate in GATES:
            for split in SPLITS[world]:
                for packed in (False, True):
                    for dtype in BOUNDS:
                        error = error_of_a_case(name, gate, split, packed, dtype)
                        results.put((name, gate, split, packed, dtype, rank, error))
    dist.destroy_process_group()


@pytest.mark.parametrize("world", SPLITS)
def test_a_split_scan_equals_that_of_one_process(world):
    results = mp.get_context("spawn").SimpleQueue()
    context = mp.start_processes(
        worker, (world, 29500 + os.getpid() % 1000 + world, results), world, join=False
    )
    cases = 2 * len(GATES) * len(SPLITS[world]) * 2 * len(BOUNDS) * world
    found = []
    while not context.join(0.1):
        while not results.empty():
            found.append(results.get())
    while not results.empty():
        found.append(results.get())
    assert len(found) == cases
    for *case, dtype, rank, error in found:
        assert error <= BOUNDS[dtype], (case, rank, error)


def test_without_a_process_group_it_says_so():
    x = torch.randn(1, 3, 1, 2)
    with pytest.raises(RuntimeError, match="has no process group"):
        distributed.linear_attention(x, x, x)
