"""Split runs have the losses of whole ones, survive the death of a rank, and resume exactly."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import train_split
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from train_split import Config, last_checkpoint, main, own, train

SMALL = Config(
    str(Path(__file__).parent / "README.md"), 8, d_model=16, n_heads=2, batch=2, length=48, every=4
)
DIES_AFTER = 6
PATIENCE = 60.0  # seconds that a rank waits for another

# torch is imported once for all ranks, which are copies of one process.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    ["assocmem", "torch.distributed.fsdp", "torch.distributed.checkpoint.state_dict"]
)


@contextmanager
def process_group(rank: int, ranks: int, store: Path) -> Iterator[None]:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=PATIENCE),
    )
    yield
    dist.destroy_process_group()


def with_a_rank_that_dies(rank: int, folder: Path, log: Path) -> None:
    """Train on two ranks, and write down the losses, until rank 1 is killed."""
    torch.set_num_threads(1)
    with process_group(rank, 2, log.with_suffix(".store")), log.open("a") as file:
        for step, loss in enumerate(train(SMALL, folder, split=2)):
            if rank == 0:
                print(loss, file=file, flush=True)
            elif step + 1 == DIES_AFTER:
                os.kill(os.getpid(), signal.SIGKILL)


def by_torchrun(arguments: list[str]) -> None:
    """The command on two ranks, started as torchrun starts it."""
    config = LaunchConfig(
        1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="forkserver"
    )
    elastic_launch(config, main)(arguments)


def losses_of(checkpoint: Path) -> list[float]:
    state = {"losses": []}
    train_split.state_dict_loader.load(state, checkpoint_id=checkpoint)
    return state["losses"]


def test_a_rank_that_dies_ends_the_others_and_the_run_resumes_exactly(tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    both = [FORKSERVER.Process(target=with_a_rank_that_dies, args=(r, folder, log)) for r in (0, 1)]
    for process in both:
        process.start()
    both[1].join()
    both[0].join(PATIENCE + 10)  # 10 to notice, and to end
    assert [process.exitcode for process in both] == [1, -signal.SIGKILL]
    broken = [float(line) for line in log.read_text().splitlines()]
    assert len(broken) == DIES_AFTER
    assert last_checkpoint(folder) == folder / "step_000004"

    values = asdict(SMALL).items()
    by_torchrun([str(folder), *(f"--{k}={v}" for k, v in values if k not in ("lr", "seed"))])
    assert [path.name for path in folder.iterdir()] == ["step_000008"]
    with process_group(0, 1, tmp_path / "store"):
        resumed = losses_of(folder / "step_000008")
        whole = list(train(SMALL, tmp_path / "whole", split=1))
    assert resumed[:DIES_AFTER] == broken
    assert whole == pytest.approx(resumed, rel=1e-4)
    assert whole[-1] < whole[0] - 0.5


def test_an_interruption_while_it_is_written_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    def breaks_off(state, checkpoint_id):
        checkpoint_id.mkdir()
        (checkpoint_id / "__0_0.distcp").write_bytes(b"half")
        raise KeyboardInterrupt

    with process_group(0, 1, tmp_path / "store"):
        text, folder = tmp_path / "text", tmp_path / "run"
        text.write_bytes(Path(SMALL.text).read_bytes())
        config = replace(SMALL, text=str(text), every=2, steps=4)
        losses = list(islice(train(config, folder, split=1), 3))
        with monkeypatch.context() as patch:
            patch.setattr(train_split.state_dict_saver, "save", breaks_off)
            with pytest.raises(KeyboardInterrupt):
                list(train(config, folder, split=1))
        assert last_checkpoint(folder) == folder / "step_000002"
        assert list(train(config, folder, split=1))[:3] == losses
        with pytest.raises(ValueError, match=r"has config .*'steps': 4.*, not .*'steps': 9"):
            next(train(replace(config, steps=9), folder, split=1))
        text.write_bytes(text.read_bytes() + b" And more.")
        with pytest.raises(ValueError, match=r"has digest \w+, not \w+$"):
            next(train(config, folder, split=1))
        with pytest.raises(ValueError, match="2 must divide the ranks, 1,"):
            next(train(SMALL, tmp_path, split=2))
        with pytest.raises(ValueError, match="more than 1000000 bytes"):
            next(train(replace(SMALL, length=10**6), tmp_path, split=1))


class Place:
    """Where a rank stands in a mesh of two rows of three ranks."""

    def __init__(self, **place: int) -> None:
        self.get_local_rank = place.__getitem__

    def size(self, dimension: int) -> int:
        return (2, 3)[dimension]


def test_every_byte_lies_on_one_rank_beside_the_byte_that_follows():
    tokens = torch.arange(4 * 13).view(4, 13)
    places: list[list[Any]] = [[Place(data=d, sequence=s) for s in range(3)] for d in range(2)]
    pieces = [[own(tokens, place) for place in row] for row in places]
    x, y = (torch.cat([torch.cat([p[i] for p in row], 1) for row in pieces]) for i in (0, 1))
    assert torch.equal(x, tokens[:, :-1])
    assert torch.equal(y, tokens[:, 1:])
