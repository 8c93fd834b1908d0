"""Which memory for what: every design on every task, with equally many parameters.

`choosing.json` beside this file says what is compared. Chapter 9 runs a little of it;
`benchmarks/choosing.py` runs all of it and stores the result.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from math import prod
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from assocmem import nn, tasks
from assocmem.ops.strips import solve_strips, solve_strips_backward
from assocmem.train import train

CONFIGURATION = Path(__file__).with_suffix(".json")
UNSEEN = 10**6  # the seed of what is tested

Row = dict[str, Any]
Size = Mapping[str, int]


def configuration() -> dict[str, Any]:
    """What is compared, as `choosing.json` says it."""
    return json.loads(CONFIGURATION.read_text())


class Model(torch.nn.Module):
    """Blocks that read several tokens at each position, by the sum of their vectors.

    A pair of key and value is one position, so that no layer has to bring the two together.

    Args:
        shape: d_model, n_heads, and parameters, the number that all blocks together come as close
            to as the size of their feed-forward allows.
        mixers: for each block, a name in `assocmem.nn` and options.
        vocab_size: number of different tokens.
    """

    def __init__(self, shape: Row, mixers: Sequence[tuple[str, Row]], vocab_size: int) -> None:
        super().__init__()
        kinds = [partial(getattr(nn, name), **options) for name, options in mixers]

        def model(d_hidden: int) -> nn.SequenceModel:
            return nn.SequenceModel(
                vocab_size, shape["d_model"], shape["n_heads"], kinds, d_hidden=d_hidden,
                tied_head=False,
            )  # fmt: skip

        small, larger = parameters(model(1).blocks), parameters(model(2).blocks)
        whole = model(1 + round((shape["parameters"] - small) / (larger - small)))
        self.embedding, self.blocks = whole.embedding, whole.blocks
        assert whole.head is not None  # as it is not tied
        self.norm, self.head = whole.norm, whole.head

    def forward(self, tokens: Tensor) -> Tensor:
        """From tokens `[B, T, n]`, n at each position, to logits `[B, T, vocab_size]`."""
        x = self.embedding(tokens).sum(-2)
        for block in self.blocks:
            x, _ = block(x)
        return self.head(self.norm(x))


def parameters(module: torch.nn.Module) -> int:
    """The number of weights."""
    return sum(p.numel() for p in module.parameters())


class Drawn(NamedTuple):
    """What is read, `[B, T, n]`, and what is asked, `[B, T]`: `IGNORE` where nothing is."""

    tokens: Tensor
    targets: Tensor


Draw = Callable[[int, torch.Generator, Size], Drawn]


def drawn(kind: str, batch: int, generator: torch.Generator, size: Size) -> Drawn:
    """A batch of a function of `assocmem.tasks`, by name."""
    task = getattr(tasks, kind)(batch, **size, generator=generator)
    if isinstance(task, tasks.Recall):  # a pair per position, then a key per position
        queries = task.queries[..., None].expand(-1, -1, 2)
        tokens = torch.cat((torch.stack((task.keys, task.values), -1), queries), 1)
        return Drawn(tokens, torch.cat((torch.full_like(task.keys, tasks.IGNORE), task.answers), 1))
    if isinstance(task, tasks.Swaps):  # first a token for every place
        n = task.states.shape[-1]
        places = n * (n - 1) // 2 + torch.arange(n).expand(batch, n)
        targets = torch.cat((torch.full_like(places, tasks.IGNORE), task.targets), 1)
        return Drawn(torch.cat((places, task.tokens), 1)[..., None], targets)
    return Drawn(with_previous(task.tokens, size["n_symbols"] + 1), task.targets)


def with_previous(tokens: Tensor, vocab_size: int) -> Tensor:
    """Each token and the one before it, which has vectors of its own: `[B, T]` to `[B, T, 2]`.

    Before the first token stands token 0.
    """
    previous = torch.cat((torch.zeros_like(tokens[:, :1]), tokens[:, :-1]), 1)
    return torch.stack((tokens, vocab_size + previous), -1)


ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
SYMBOLS = len(ALPHABET) + 1


def characters(text: str) -> Tensor:
    """A token for every character: newline and printable ASCII, and one for all others."""
    known = {c: i for i, c in enumerate(ALPHABET)}
    return torch.tensor([known.get(c, SYMBOLS - 1) for c in text])


class Text(NamedTuple):
    """The book's own text: the last tenth of every chapter is held out.

    Args:
        learned: what models are trained on, as tokens.
        held_out: what they are tested on.
    """

    learned: Tensor
    held_out: Tensor

    @classmethod
    def of(cls, notebooks: Sequence[Path]) -> Text:
        """The Markdown of notebooks."""
        halves = [(x[: len(x) * 9 // 10], x[len(x) * 9 // 10 :]) for x in map(markdown, notebooks)]
        return cls(*(characters("\n\n".join(part)) for part in zip(*halves, strict=True)))

    def draw(self, batch: int, generator: torch.Generator, size: Size) -> Drawn:
        """Windows at random places of what is learned; every character is asked for."""
        length = size["length"]
        starts = torch.randint(len(self.learned) - length, (batch, 1), generator=generator)
        window = self.learned[starts + torch.arange(length + 1)]
        return Drawn(with_previous(window[:, :-1], SYMBOLS), window[:, 1:])

    def test(self, batch: int, generator: torch.Generator, size: Size) -> Drawn:
        """The same `asked` characters at the end of windows of any `length`, of what is held out.

        The windows end where those of length `longest` do, so that lengths can be compared.
        """
        length, longest = size["length"], size["longest"]
        ends = longest + torch.randint(
            len(self.held_out) - longest, (batch, 1), generator=generator
        )
        window = self.held_out[ends + torch.arange(-length, 1)]
        targets = window[:, 1:].clone()
        targets[:, : length - size["asked"]] = tasks.IGNORE
        return Drawn(with_previous(window[:, :-1], SYMBOLS), targets)


def markdown(notebook: Path) -> str:
    """The text of a notebook's Markdown cells."""
    cells = json.loads(notebook.read_text())["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


# Read where a run's beginning is compared with today's: the book's text changes with every edit.
LETTERS = torch.randint(SYMBOLS, (256,), generator=torch.Generator().manual_seed(0))
UNCHANGING = Text(LETTERS, LETTERS)


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


def made(config: Row, task: str, design: str, seed: int) -> Model:
    """A design before its training."""
    torch.manual_seed(seed)
    return Model(config["model"], mixers(config, design), config["tasks"][task]["vocab_size"])


def mixers(config: Row, design: str) -> list[tuple[str, Row]]:
    """The layers of a design, one of all tasks or one of the hybrids in either order."""
    return {**config["designs"], **config["orders"]["designs"]}[design]


def first(config: Row, task: str, design: str, seed: int, lr: float) -> list[float]:
    """The losses of a training of three steps, on the batches of a run; a text is `UNCHANGING`.

    They depend on the first weights, the batches, both passes, the updates and the rates. Code that
    gives them as they are recorded trains as it did when they were.
    """
    what = config["tasks"][task]
    draw = UNCHANGING.draw if what["kind"] == "text" else partial(drawn, what["kind"])
    model = made(config, task, design, seed)
    return [round(x, 6) for x in learn(model, what, draw, lr, seed, steps=3).losses]


@torch.no_grad()
def decoding(model: Model, T: int) -> Row:
    """What one more token costs after T tokens, counted at batch size 1, float32.

    Bytes that move: the weights and the state, which are read, and what is written: the whole of
    a state that does not grow, one entry of a cache that does.
    """
    state_bytes = moved = 0
    x = torch.zeros(1, T, model.embedding.embedding_dim)
    for block in model.blocks:
        _, before = block(x)
        _, after = block(x[:, :1], before)
        held, growth = (nn.state_bytes(s) for s in (before, after))
        growth -= held
        state_bytes += held
        moved += held + (growth or held)
    return {"T": T, "state_bytes": state_bytes, "moved_bytes": 4 * parameters(model.blocks) + moved}


class Inside:
    """Counts the matrix products inside an operator that PyTorch sees as one."""

    _get_raw = True  # the counter hands over tensors, not their shapes

    def __init__(self, operator: Any) -> None:
        self.operator = operator

    def __call__(self, *inputs: Any, out_val: Any = None) -> int:
        """Run it once more, and count."""
        with products() as counter:
            self.operator._init_fn(*inputs)
        return counter.get_total_flops()


def products() -> FlopCounterMode:
    """A counter of the operations of matrix products, those of DeltaFormer's operators too."""
    known: dict[Any, Any] = {
        op._opoverload._overloadpacket: Inside(op) for op in (solve_strips, solve_strips_backward)
    }
    known[torch.ops.aten.baddbmm_] = lambda _, a, b, **rest: 2 * prod(a) * b[-1]  # of shapes
    return FlopCounterMode(display=False, custom_mapping=known)


def costs(config: Row, design: str) -> Row:
    """What the blocks of a design cost, counted: weights, decoding, and a step of training.

    A step of training is forward and backward, on the batch that the configuration names. Its
    operations are those of matrix products, two for a multiplication and its addition; solving
    triangular systems is left out. Attention is counted in its plain form, two products forward
    and four backward: PyTorch's counter does not see into the fused one of a CPU.
    """
    at = config["costs"]
    torch.manual_seed(0)
    model = Model(config["model"], config["designs"][design], vocab_size=1)
    x = torch.zeros(at["batch"], at["length"], config["model"]["d_model"])
    with products() as counter, sdpa_kernel(SDPBackend.MATH):
        for block in model.blocks:
            x, _ = block(x)
        x.sum().backward()
    return {
        "parameters": parameters(model.blocks),
        "decoding": [decoding(model, T) for T in at["decoded"]],
        "step_flops": counter.get_total_flops(),
    }
