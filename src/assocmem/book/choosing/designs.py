"""What is compared: designs, of blocks that have equally many parameters together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assocmem import nn

CONFIGURATION = Path(__file__).with_name("configuration.json")

Row = dict[str, Any]


def configuration() -> dict[str, Any]:
    """What is compared, as `configuration.json` says it."""
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


def made(config: Row, task: str, design: str, seed: int) -> Model:
    """A design before its training."""
    torch.manual_seed(seed)
    return Model(config["model"], mixers(config, design), config["tasks"][task]["vocab_size"])


def mixers(config: Row, design: str) -> list[tuple[str, Row]]:
    """The layers of a design, one of all tasks or one of the hybrids in either order."""
    return {**config["designs"], **config["orders"]["designs"]}[design]
