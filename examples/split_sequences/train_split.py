"""Train a hybrid language model on sequences that are split over ranks, with checkpoints.

    torchrun --nproc-per-node 2 train_split.py run             # every sequence lies on both ranks
    torchrun --nproc-per-node 4 train_split.py run --split 2   # two halves of the batch, each so
    torchrun --nproc-per-node 2 train_split.py run             # again: goes on where it stopped

Ranks form a mesh: those of a row share their sequences, and rows share the batch. Every rank holds
a part of the weights (`fully_shard`), and a checkpoint is written by all of them together.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

from assocmem.nn import GatedDeltaNet, SequenceModel, SoftmaxAttention

MIXERS = [GatedDeltaNet, GatedDeltaNet, partial(SoftmaxAttention, rotary=True)]


@dataclass(frozen=True)
class Config:
    """What decides a run, from its first weight to its last loss."""

    text: str
    steps: int = 200
    d_model: int = 64
    n_heads: int = 4
    batch: int = 4  # sequences, shared by the rows of the mesh
    length: int = 512  # bytes of a sequence, shared by the ranks of a row
    lr: float = 3e-3
    seed: int = 0
    every: int = 20  # steps between checkpoints


def new_model(config: Config, device: torch.device) -> nn.Module:
    """The model as it is before training, its weights spread over all ranks."""
    torch.manual_seed(config.seed)
    model = SequenceModel(256, config.d_model, config.n_heads, MIXERS).to(device)
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
    return model


def batch(data: Tensor, config: Config, step: int) -> Tensor:
    """Random pieces of the text `[batch, length + 1]`, which depend on the step alone."""
    generator = torch.Generator().manual_seed(config.seed + step)
    starts = torch.randint(len(data) - config.length, (config.batch, 1), generator=generator)
    return data[starts + torch.arange(config.length + 1)]


def own(tokens: Tensor, mesh: DeviceMesh) -> tuple[Tensor, Tensor]:
    """This rank's piece of its row's sequences, and the bytes that follow each of its bytes."""
    row, rank = mesh.get_local_rank("data"), mesh.get_local_rank("sequence")
    tokens = tokens.chunk(mesh.size(0))[row]
    pieces = [x.chunk(mesh.size(1), 1)[rank] for x in (tokens[:, :-1], tokens[:, 1:])]
    return pieces[0], pieces[1]


def last_checkpoint(folder: Path) -> Path | None:
    """The folder of the last checkpoint that was written to its end."""
    return max(folder.glob("step_*[0-9]"), default=None)


def save(state: dict[str, Any], folder: Path, step: int) -> None:
    """Write a checkpoint beside the last one, and give it its name when all ranks have written."""
    unfinished = folder / "unfinished"
    state_dict_saver.save(state, checkpoint_id=unfinished)
    if dist.get_rank() == 0:
        older = last_checkpoint(folder)
        unfinished.rename(folder / f"step_{step:06d}")
        if older is not None:
            shutil.rmtree(older)


def train(config: Config, folder: Path, split: int) -> Iterator[float]:
    """Train to the last step, from the folder's last checkpoint where there is one.

    Every rank calls it. Yields the mean loss of every step, those before the checkpoint first.

    Raises:
        ValueError: when ranks, batch and length do not divide, the checkpoint is of another
            configuration or text, or the text is too short.
    """
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    rows, rest = divmod(dist.get_world_size(), split)
    if rest or config.batch % rows or config.length % split:
        raise ValueError(
            f"{split} must divide the ranks, {dist.get_world_size()}, and the length, "
            f"{config.length}, and their quotient {rows} the batch, {config.batch}"
        )
    text = Path(config.text).read_bytes()
    learned = {"config": asdict(config), "digest": hashlib.sha256(text).hexdigest()}
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    if len(data) <= config.length:
        raise ValueError(f"text must have more than {config.length} bytes, got {len(data)}")

    mesh = init_device_mesh(device.type, (rows, split), mesh_dim_names=("data", "sequence"))
    group = mesh.get_group("sequence")
    model = new_model(config, device)
    optimizer = torch.optim.AdamW(model.parameters(), config.lr)
    losses: list[float] = []
    last = last_checkpoint(folder)
    if last is not None:
        losses = load(model, optimizer, learned, last)
    yield from losses

    for step in range(len(losses), config.steps):
        x, y = own(batch(data, config, step), mesh)
        logits, _ = model(x.to(device), group=group)
        loss = F.cross_entropy(logits.flatten(0, 1), y.to(device).flatten())
        optimizer.zero_grad()
        loss.backward()  # `fully_shard` takes the mean of the ranks' gradients
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        dist.all_reduce(loss.detach_())
        losses.append(loss.item() / dist.get_world_size())
        if len(losses) % config.every == 0 or len(losses) == config.steps:
            save(state_of(model, optimizer, learned, losses), folder, len(losses))
        yield losses[-1]


def state_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    learned: dict[str, Any],
    losses: list[float],
) -> dict[str, Any]:
    """All that the next step depends on, but for what follows from the step's number."""
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments, **learned, "losses": losses}


def load(
    model: nn.Module, optimizer: torch.optim.Optimizer, learned: dict[str, Any], path: Path
) -> list[float]:
    """Put a checkpoint into model and optimizer; the losses until then."""
    state = state_of(model, optimizer, deepcopy(learned), [])  # is loaded into
    state_dict_loader.load(state, checkpoint_id=path)
    for name, expected in learned.items():
        if state[name] != expected:
            raise ValueError(f"the checkpoint {path} has {name} {state[name]}, not {expected}")
    set_state_dict(
        model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
    )
    return state["losses"]


def main(arguments: list[str] | None = None) -> None:
    """The command, as torchrun starts it in every rank."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where checkpoints lie")
    parser.add_argument("--text", default=str(here / "README.md"), help="a file to learn")
    parser.add_argument("--split", type=int, help="ranks that share a sequence (default: all)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds to wait for a rank")
    for name in ("steps", "d_model", "n_heads", "batch", "length", "every"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Config, name))
    options = vars(parser.parse_args(arguments))
    folder, split, timeout = (options.pop(name) for name in ("folder", "split", "timeout"))
    dist.init_process_group(timeout=timedelta(seconds=timeout))
    for step, loss in enumerate(train(Config(**options), folder, split or dist.get_world_size())):
        if dist.get_rank() == 0:
            print(step, loss, flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
