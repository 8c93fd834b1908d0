"""What layers learn to compute: swaps, parity, word problems and reachability, trained.

    python benchmarks/expressivity.py            # print the tables
    python benchmarks/expressivity.py --store    # and store them for chapter 7

Float32. Layers differ in the learning rate that suits them, and so the first of `SEEDS` is trained
with all of `RATES`, and the others with the one whose loss is smallest, averaged over the training
(all are stored). Everything else is the same for all: width, heads, batches, steps.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assocmem import tasks
from assocmem.book import recorded
from assocmem.nn import Block, DeltaFormer, DeltaNet, Mixer, SequenceModel, SoftmaxAttention
from assocmem.train import train

D_MODEL, N_HEADS, BATCH, TESTED = 32, 2, 64, 512
RATES = (3e-3, 1e-2)
SEEDS = (0, 1, 2)
LENGTH = 16
LENGTHS = (16, 32, 64, 128, 256)
N_NODES = 32
UNSEEN = 10**6  # the seed of what is tested

Row = dict[str, Any]


class Task(NamedTuple):
    """Sequences of actions, with the state after each.

    Args:
        actions: how many different tokens there are.
        places: how many things the actions move: a sequence begins with a token for each.
        draw: tokens and targets, from a number of sequences, their length and a generator.
    """

    actions: int
    places: int
    draw: Callable[[int, int, torch.Generator], tasks.States | tasks.Swaps]


TASKS = {
    "swaps": Task(10, 5, lambda batch, length, g: tasks.swaps(batch, length, 5, g)),
    "parity": Task(2, 2, tasks.parity),
    "S3": Task(6, 3, lambda batch, length, g: tasks.word_problem(batch, length, "S3", g)),
    "modular": Task(9, 3, lambda batch, length, g: tasks.modular_arithmetic(batch, length, 3, g)),
}


class Design(NamedTuple):
    """A stack of mixers, and how many tokens in a row stand for one action.

    A layer of the delta rule multiplies its state by one Householder matrix a token, and so by a
    product of n with n tokens an action (DeltaProduct, arXiv:2502.10297).
    """

    mixers: Sequence[Callable[[int, int], Mixer]]
    spelling: int = 1


# No short convolution, and positions for attention alone: what differs is how memory is written.
attention = partial(SoftmaxAttention, rotary=True)
decaying = partial(DeltaNet, conv_width=1)
reflecting = partial(decaying, allow_negative_eigenvalues=True)
former = partial(DeltaFormer, own_erase_keys=True, allow_negative_eigenvalues=True)
DESIGNS = {
    "Transformer, 1 layer": Design([attention]),
    "Transformer, 2 layers": Design(2 * [attention]),
    "Transformer, 4 layers": Design(4 * [attention]),
    "Transformer, 1 layer, no positions": Design([SoftmaxAttention]),
    "Transformer, 2 layers, no positions": Design(2 * [SoftmaxAttention]),
    "DeltaNet, β in (0, 1)": Design([decaying]),
    "DeltaNet, β in (0, 2)": Design([reflecting]),
    "DeltaNet, β in (0, 2), 2 layers": Design(2 * [reflecting]),
    "DeltaProduct of 2": Design([reflecting], 2),
    "DeltaFormer, linear": Design([partial(former, erase="linear")]),
    "DeltaFormer, relu": Design([partial(former, erase="relu")]),
    "DeltaFormer, softmax": Design([partial(former, erase="softmax")]),
}


def spelled(task: Task, tokens: Tensor, n: int) -> Tensor:
    """A token for every place, then each action as n tokens `[B, places + n T]`."""
    actions = tokens[..., None] * n + torch.arange(n)
    start = task.actions * n + torch.arange(task.places)
    return torch.cat((start.expand(len(tokens), -1), actions.flatten(1)), 1)


class Tracker:
    """A sequence model that says the state after every action."""

    def __init__(self, task: str, design: str, seed: int) -> None:
        torch.manual_seed(seed)
        self.task, (mixers, self.spelling) = TASKS[task], DESIGNS[design]
        vocab_size = self.task.actions * self.spelling + self.task.places
        self.model = SequenceModel(vocab_size, D_MODEL, N_HEADS, mixers, tied_head=False)

    def answers(self, batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Logits after every action `[B, T, vocab_size]`, and the states `[B, T]`."""
        drawn = self.task.draw(batch, length, generator)
        logits, _ = self.model(spelled(self.task, drawn.tokens, self.spelling))
        return logits[:, self.task.places :][:, self.spelling - 1 :: self.spelling], drawn.targets

    def learn(self, length: int, steps: int, lr: float, seed: int) -> list[float]:
        """Train on sequences of one length."""

        def loss(generator: torch.Generator) -> Tensor:
            logits, targets = self.answers(BATCH, length, generator)
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

        return train(self.model, loss, steps, lr=lr, seed=seed, silent=True)

    @torch.no_grad()
    def scores(self, length: int) -> Row:
        """How many states are right, of all and of the last ones, in new sequences."""
        logits, targets = self.answers(TESTED, length, torch.Generator().manual_seed(UNSEEN))
        right = (logits.argmax(-1) == targets).float()
        return {
            "length": length,
            "accuracy": right.mean().item(),
            "last": right[:, -1].mean().item(),
        }


class NodeModel(nn.Module):
    """Logits of two answers for every node, from which nodes lead to it and which one it is."""

    def __init__(self, design: str, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.in_proj = nn.Linear(2 * N_NODES, D_MODEL)
        self.blocks = nn.ModuleList(
            Block(mixer(D_MODEL, N_HEADS)) for mixer in DESIGNS[design].mixers
        )
        self.norm = nn.RMSNorm(D_MODEL)
        self.head = nn.Linear(D_MODEL, 2)

    def forward(self, adjacency: Tensor) -> Tensor:
        """From `[B, n, n]` to `[B, n, 2]`."""
        own = torch.eye(N_NODES).expand_as(adjacency)
        x = self.in_proj(torch.cat((adjacency, own), -1))
        for block in self.blocks:
            x, _ = block(x)
        return self.head(self.norm(x))


def described(model: nn.Module, losses: list[float], began: float) -> Row:
    """What every row has: the number of weights, the losses' means, the time from a start on."""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": len(losses),
        "loss": mean(losses),
        "last_loss": mean(losses[-50:]),
        "seconds": round(time.perf_counter() - began, 1),
    }


def state_row(
    task: str, steps: int, lengths: Sequence[int], design: str, lr: float, seed: int
) -> Row:
    """One model that was trained on sequences of `LENGTH`, and tested at some lengths."""
    began, tracker = time.perf_counter(), Tracker(task, design, seed)
    losses = tracker.learn(LENGTH, steps, lr, seed)
    scores = [tracker.scores(length) for length in lengths]
    return {**described(tracker.model, losses, began), "scores": scores}


def tree_row(steps: int, design: str, lr: float, seed: int) -> Row:
    """One model that was trained to say which nodes of two trees the first one reaches."""
    began, model = time.perf_counter(), NodeModel(design, seed)

    def loss(generator: torch.Generator) -> Tensor:
        trees = tasks.two_trees(BATCH, N_NODES, generator)
        logits = model(trees.adjacency.float())
        return F.cross_entropy(logits.flatten(0, 1), trees.reachable.flatten().long())

    losses = train(model, loss, steps, lr=lr, seed=seed, silent=True)
    with torch.no_grad():
        trees = tasks.two_trees(TESTED, N_NODES, torch.Generator().manual_seed(UNSEEN))
        right = model(trees.adjacency.float()).argmax(-1) == trees.reachable.long()
    scores = {"nodes": right.float().mean().item(), "graphs": right.all(1).float().mean().item()}
    return {**described(model, losses, began), **scores}


def stages_row(stages: Sequence[tuple[int, int]], design: str, lr: float, seed: int) -> Row:
    """One model that was trained on swaps at one length after another, tested after each."""
    began, tracker = time.perf_counter(), Tracker("swaps", design, seed)
    losses, after = [], []
    for length, steps in stages:
        losses += tracker.learn(length, steps, lr, seed + length)
        scores = [tracker.scores(tested) for tested in LENGTHS]
        after.append({"length": length, "steps": steps, "scores": scores})
    return {**described(tracker.model, losses, began), "stages": after}


def repeated(run: Callable[[str, float, int], Row], design: str) -> list[Row]:
    """One seed with every learning rate, the other seeds with the best of them."""
    first, *others = SEEDS
    rows = {lr: {"lr": lr, "seed": first, **run(design, lr, first)} for lr in RATES}
    best = min(RATES, key=lambda lr: rows[lr]["loss"])
    again = [{"lr": best, "seed": seed, **run(design, best, seed)} for seed in others]
    return [{"design": design, **row} for row in (*rows.values(), *again)]


def counted(rows: list[Row]) -> list[Row]:
    """Those with the rate that all the seeds have."""
    lr = rows[-1]["lr"]
    return [row for row in rows if row["lr"] == lr]


def spread(values: Sequence[float]) -> str:
    """The mean over the seeds, and the smallest and the largest."""
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def show_states(rows: list[Row]) -> None:
    """Print one model: accuracy at every length, over all positions and at the last."""
    best = counted(rows)
    print(f"  {rows[0]['design']}, {rows[0]['parameters']} weights, lr {best[0]['lr']}")
    for scores in zip(*(row["scores"] for row in best), strict=True):
        line = [f"{name} {spread([s[name] for s in scores])}" for name in ("accuracy", "last")]
        print(f"    T = {scores[0]['length']:3}: {', '.join(line)}")


def show_trees(rows: list[Row]) -> None:
    """Print one model: the nodes and the graphs that are right."""
    best = counted(rows)
    line = [f"{name} {spread([row[name] for row in best])}" for name in ("nodes", "graphs")]
    print(f"  {rows[0]['design']}, {rows[0]['parameters']} weights: {', '.join(line)}")


def show_stages(rows: list[Row]) -> None:
    """Print one model: the last of the accuracies, after each stage, at every length."""
    print(f"  {rows[0]['design']}")
    for after in zip(*(row["stages"] for row in counted(rows)), strict=True):
        tested = zip(*(stage["scores"] for stage in after), strict=True)
        line = [f"{s[0]['length']}: {mean(x['last'] for x in s):.3f}" for s in tested]
        print(f"    after T = {after[0]['length']:3}: last {', '.join(line)}")


TRANSFORMERS = ("Transformer, 1 layer", "Transformer, 2 layers", "Transformer, 4 layers")
WITHOUT_POSITIONS = tuple(f"{name}, no positions" for name in TRANSFORMERS[:2])
DELTANETS = ("DeltaNet, β in (0, 1)", "DeltaNet, β in (0, 2)")
DELTAFORMERS = ("DeltaFormer, linear", "DeltaFormer, relu", "DeltaFormer, softmax")
WORDS = (TRANSFORMERS[1], DELTANETS[1], "DeltaProduct of 2", DELTAFORMERS[0])
# What trains one model, what prints its rows, and the designs.
EXPERIMENTS = {
    "swaps": (
        partial(state_row, "swaps", 500, LENGTHS[:3]),
        show_states,
        DELTAFORMERS + TRANSFORMERS + DELTANETS,
    ),
    "parity": (
        partial(state_row, "parity", 400, LENGTHS),
        show_states,
        (*DELTANETS, *TRANSFORMERS[:2], WITHOUT_POSITIONS[1]),
    ),
    "trees": (
        partial(tree_row, 600),
        show_trees,
        (DELTAFORMERS[0], DELTAFORMERS[2], *WITHOUT_POSITIONS),  # the input says which node it is
    ),
    "curriculum": (
        partial(stages_row, ((16, 300), (32, 100), (64, 100))),
        show_stages,
        (DELTAFORMERS[0], TRANSFORMERS[1]),
    ),
    # As many tokens, all at the last length.
    "directly": (partial(stages_row, ((64, 225),)), show_stages, DELTAFORMERS[:1]),
    "S3": (
        partial(state_row, "S3", 400, LENGTHS[:3]),
        show_states,
        (*WORDS, TRANSFORMERS[2], f"{DELTANETS[1]}, 2 layers"),
    ),
    "modular": (partial(state_row, "modular", 400, LENGTHS[:3]), show_states, WORDS),
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", action="store_true", help="store the result for chapter 7")
    keep = parser.parse_args().store
    results = {}
    for name, (run, show, designs) in EXPERIMENTS.items():
        print(name)
        results[name] = []
        for design in designs:
            rows = repeated(run, design)
            show(rows)
            sys.stdout.flush()
            results[name] += rows
    if keep:
        recorded.store("expressivity", "python benchmarks/expressivity.py --store", **results)


if __name__ == "__main__":
    main()
