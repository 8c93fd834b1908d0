"""What designs are trained and tested on: the tasks of the library, and the book's own text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from assocmem import tasks

Size = Mapping[str, int]


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
