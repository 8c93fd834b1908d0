"""A small language model: an embedding, blocks with a mixer of choice each, and a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from assocmem.nn.block import Block
from assocmem.nn.mixer import Mixer
from assocmem.nn.streaming import Streaming


class SequenceModel(Streaming):
    """Logits of the next token, from a stack of blocks, each with a mixer of its own kind.

    With mixers `3 * [KimiDeltaAttention] + [SoftmaxAttention]` it is a hybrid of three layers to
    one, as in arXiv:2510.26692.

    Args:
        vocab_size: number of different tokens.
        d_model: size of a token's vector.
        n_heads: number of heads in every mixer.
        mixers: for every block, from the first to the last, what makes its mixer when called with
            (d_model, n_heads): a class of `assocmem.nn`, or one with options, such as
            `functools.partial(SoftmaxAttention, rotary=True)`.
        d_hidden: size within the blocks' feed-forward; 8/3 d_model when None.
        tied_head: use the embedding's matrix for the logits, too.

    Weights: those of the blocks; embedding `[vocab_size, d_model]`, Gaussian with standard
    deviation d_model ** -0.5, so of length about 1; norm, an `nn.RMSNorm` with ε = 10⁻⁵, initially
    1; head `[vocab_size, d_model]` without bias, the embedding's matrix or one with `nn.Linear`'s
    initialisation.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> model = nn.SequenceModel(50, 32, 4, [nn.KimiDeltaAttention, nn.SoftmaxAttention])
        >>> logits, state = model(torch.randint(50, (2, 10)))
        >>> next_logits, state = model.step(logits[:, -1].argmax(-1), state)
        >>> logits.shape, next_logits.shape
        (torch.Size([2, 10, 50]), torch.Size([2, 50]))
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        n_heads: int,
        mixers: Sequence[Callable[[int, int], Mixer]],
        *,
        d_hidden: int | None = None,
        tied_head: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, d_model)
        # With 0.02, as in GPT-2, a model of d_model = 32 needs 200 steps or more where this needs
        # 150 (recall of four pairs by two blocks, to a tenth or so of the loss of guessing).
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        self.blocks = nn.ModuleList(Block(mixer(d_model, n_heads), d_hidden) for mixer in mixers)
        self.norm = nn.RMSNorm(d_model, eps=1e-5)
        self.head = nn.Linear(d_model, vocab_size, bias=False)
        if tied_head:
            self.head.weight = self.embedding.weight

    def forward(
        self,
        tokens: Tensor,
        state: tuple[Any, ...] | None = None,
        *,
        group: dist.ProcessGroup | None = None,
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """The logits of the token after every token.

        `step` takes one token of every sequence, `[B]`, and gives logits `[B, vocab_size]`: to
        generate at a memory that does not grow, unless a mixer keeps all tokens.

        Args:
            tokens: integers `[B, T]` from 0 to vocab_size - 1.
            state: what an earlier piece handed back, one state a block; None at the start.
            group: the ranks on which the pieces of the sequences lie, as `Streaming` says.

        Returns:
            logits `[B, T, vocab_size]`, and the state after the last token.

        Raises:
            ValueError: when tokens are not `[B, T]`, or the state is of another number of blocks.
        """
        if tokens.ndim != 2:
            raise ValueError(f"tokens must have shape [B, T], got {list(tokens.shape)}")
        if state is None:
            state = (None,) * len(self.blocks)
        elif len(state) != len(self.blocks):
            raise ValueError(
                f"state must have one entry a block, {len(self.blocks)}, got {len(state)}"
            )
        x, after = self.embedding(tokens), []
        for block, before in zip(self.blocks, state, strict=True):
            x, new = block(x, before, group=group)
            after.append(new)
        return self.head(self.norm(x)), tuple(after)
