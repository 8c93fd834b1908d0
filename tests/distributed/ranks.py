"""Processes that share a process group, started cheaply: torch is imported once for all of them."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def start(rank: int, worker: Callable, world: int, store: Path, timeout: float, args) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=timeout),
    )
    try:
        worker(rank, *args)
    except BaseException:  # the ranks that wait for it fail as well: all say why
        traceback.print_exc()
        raise
    dist.destroy_process_group()


def on_ranks(world: int, worker: Callable, *args, timeout: float = 60) -> None:
    """Call worker(rank, *args) in every process of a gloo group; an error there is one here."""
    mp.get_context("forkserver").set_forkserver_preload(["assocmem", "torch.distributed.fsdp"])
    with TemporaryDirectory() as folder:
        rest = (worker, world, Path(folder) / "store", timeout, args)
        mp.start_processes(start, rest, world, start_method="forkserver")
