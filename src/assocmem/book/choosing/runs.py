"""Training and testing one design on one task, and how a run is known again."""

from __future__ import annotations

import time
from functools import partial
from itertools import pairwise
from statistics import mean, median
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from assocmem import tasks
from assocmem.book.choosing.batches import UNCHANGING, Draw, Text, drawn
from assocmem.book.choosing.designs import Model, Row, made
from assocmem.train import train

UNSEEN = 10**6  # the seed of what is tested


class Learned(NamedTuple):
    """The loss at each step, before it is taken, and the times at which steps began."""

    losses: list[float]
    clock: list[float]


def learn(model: Model, task: Row, draw: Draw, lr: float, seed: int, steps: int) -> Learned:
    """Train a model on the sizes of a task, each batch of one of them."""
    clock: list[float] = []

    def loss(generator: torch.Generator) -> Tensor:
        clock.append(time.process_time())
        which = int(torch.randint(len(task["train"]), (1,), generator=generator))
        batch = draw(task["batch"], generator, {**task["always"], **task["train"][which]})
        logits = model(batch.tokens)
        return F.cross_entropy(
            logits.flatten(0, 1), batch.targets.flatten(), ignore_index=tasks.IGNORE
        )

    losses = train(model, loss, steps, lr=lr, seed=seed, silent=True)
    return Learned(losses, [*clock, time.process_time()])


@torch.no_grad()
def score(model: Model, task: Row, draw: Draw) -> Row:
    """At every size that is tested: the share of answers that are right, and the loss in nats."""
    accuracy, loss = [], []
    for size in task["test"]:
        unseen = torch.Generator().manual_seed(UNSEEN)
        batch = draw(task["tested"], unseen, {**task["always"], **size})
        asked = batch.targets != tasks.IGNORE
        logits, targets = model(batch.tokens)[asked], batch.targets[asked]
        right = (logits.argmax(-1) == targets).float().mean().item()
        accuracy.append(round(right, 4))
        loss.append(round(F.cross_entropy(logits, targets).item(), 4))
    return {"accuracy": accuracy, "test_loss": loss}


def run(
    config: Row, task: str, design: str, seed: int, lr: float, steps: int, text: Text | None = None
) -> Row:
    """Train one design on one task, and test it.

    Args:
        config: as `configuration` hands it back.
        task: the name of a task.
        design: the name of a design.
        seed: of the weights and of the batches.
        lr: the first step's learning rate.
        steps: how long to train.
        text: what a task of the kind "text" is about.
    """
    what = config["tasks"][task]
    if text is not None and what["kind"] == "text":
        draw, test = text.draw, text.test
    else:
        draw = test = partial(drawn, what["kind"])
    model = made(config, task, design, seed)
    losses, clock = learn(model, what, draw, lr, seed, steps)
    tenth = max(1, len(losses) // 10)
    return {
        "first": first(config, task, design, seed, lr),
        "loss": round(mean(losses), 4),
        "trace": [round(mean(losses[i : i + tenth]), 4) for i in range(0, len(losses), tenth)],
        "step_ms": round(1e3 * median(b - a for a, b in pairwise(clock)), 1),
        **score(model, what, test),
    }


def first(config: Row, task: str, design: str, seed: int, lr: float) -> list[float]:
    """The losses of a training of three steps, on the batches of a run; a text is `UNCHANGING`.

    They depend on the first weights, the batches, both passes, the updates and the rates. Code that
    gives them as they are recorded trains as it did when they were.
    """
    what = config["tasks"][task]
    draw = UNCHANGING.draw if what["kind"] == "text" else partial(drawn, what["kind"])
    model = made(config, task, design, seed)
    return [round(x, 6) for x in learn(model, what, draw, lr, seed, steps=3).losses]
