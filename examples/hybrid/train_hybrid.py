"""Train a hybrid language model on the bytes of a text, with checkpoints.

    python train_hybrid.py run                # train on README.md, checkpoints in run/
    python train_hybrid.py run                # after an interruption: goes on, with the same losses
    python train_hybrid.py run --text my.txt --steps 2000 --mixers recurrent

A checkpoint holds all that the next step depends on: the weights, the optimizer's moments, the
state of the generator that draws the batches, and the losses so far. The learning rate is a
function of the step alone.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from assocmem.nn import GatedDeltaNet, SequenceModel, SoftmaxAttention

# Three memories of constant size to one that keeps every token, or four of constant size.
MIXERS = {
    "hybrid": [*3 * [GatedDeltaNet], partial(SoftmaxAttention, rotary=True)],
    "recurrent": 4 * [GatedDeltaNet],
}
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Config:
    """What decides a run, from its first weight to its last loss."""

    text: str
    mixers: str = "hybrid"
    steps: int = 300
    d_model: int = 64
    n_heads: int = 4
    batch: int = 8
    length: int = 128
    lr: float = 3e-3
    seed: int = 0
    every: int = 50  # steps between checkpoints


def new_model(config: Config) -> SequenceModel:
    """The model as it is before training, on bytes."""
    torch.manual_seed(config.seed)
    return SequenceModel(256, config.d_model, config.n_heads, MIXERS[config.mixers])


def batch(data: Tensor, config: Config, generator: torch.Generator) -> Tensor:
    """Random pieces of the text `[batch, length + 1]`: what the model reads, and a byte more."""
    starts = torch.randint(len(data) - config.length, (config.batch, 1), generator=generator)
    return data[starts + torch.arange(config.length + 1)]


def learning_rate(step: int, config: Config) -> float:
    """It rises over the first tenth of the steps, and falls as a cosine over all of them."""
    rise = min(1.0, (step + 1) / (0.1 * config.steps))
    return config.lr * rise * (1 + math.cos(math.pi * step / config.steps)) / 2


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint beside the last one, and only then put it in its place."""
    unfinished = path.with_suffix(".unfinished")
    torch.save(state, unfinished)
    unfinished.replace(path)


def load(folder: Path) -> tuple[Config, SequenceModel, dict[str, Any]]:
    """What a folder's last checkpoint holds: the run's configuration, its model, and the rest."""
    state = torch.load(folder / CHECKPOINT, weights_only=True)
    config = Config(**state["config"])
    model = new_model(config)
    model.load_state_dict(state["model"])
    return config, model, state


def train(config: Config, folder: Path) -> Iterator[float]:
    """Train to the last step, from the folder's checkpoint where there is one.

    Yields the loss of every step of the run, those of an earlier call first.

    Raises:
        ValueError: when the checkpoint is of another configuration or text, or the text is too
            short.
    """
    text = Path(config.text).read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    if len(data) <= config.length:
        raise ValueError(f"text must have more than {config.length} bytes, got {len(data)}")
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(config.seed)
    model, losses = new_model(config), []
    optimizer = torch.optim.AdamW(model.parameters())
    if (folder / CHECKPOINT).exists():
        found, model, state = load(folder)
        if found != config:
            raise ValueError(f"the checkpoint in {folder} is of {found}, not of {config}")
        if state["digest"] != digest:
            raise ValueError(f"{config.text} is not what it was when {folder} was begun")
        optimizer = torch.optim.AdamW(model.parameters())
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        losses = state["losses"]
    yield from losses

    for step in range(len(losses), config.steps):
        tokens = batch(data, config, generator)
        logits, _ = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        optimizer.step()
        losses.append(loss.item())
        if len(losses) % config.every == 0 or len(losses) == config.steps:
            state = {
                "config": asdict(config),
                "digest": digest,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
                "losses": losses,
            }
            save(state, folder / CHECKPOINT)
        yield losses[-1]


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where checkpoints lie")
    parser.add_argument("--text", default=str(here / "README.md"), help="a file to learn")
    parser.add_argument("--mixers", choices=MIXERS, default=Config.mixers)
    parser.add_argument("--steps", type=int, default=Config.steps)
    options = vars(parser.parse_args(arguments))
    folder, config = options.pop("folder"), Config(**options)
    bar = tqdm(train(config, folder), total=config.steps, desc="training")
    for loss in bar:
        bar.set_postfix(loss=f"{loss:.3f}")


if __name__ == "__main__":
    main()
