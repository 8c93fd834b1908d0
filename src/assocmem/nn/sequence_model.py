"""A small language model: an embedding, blocks with a mixer of choice each, and a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from assocmem.arguments import (
    check_bool,
    check_counts,
    check_device,
    check_generator,
    check_positive,
)
from assocmem.nn.block import Block
from assocmem.nn.mixer import Mixer
from assocmem.nn.streaming import Streaming
from assocmem.ops.inputs import check_packed, check_tensor


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
        d_hidden: units of the blocks' feed-forward memories; 8/3 d_model, rounded down, when None.
        feed_forward: what makes the feed-forward memory of a block when called with d_model, such
            as `functools.partial(MixtureOfExperts, d_hidden=64, n_experts=8, top_k=2)`; that of
            `Block` when None.
        tied_head: use the embedding's matrix for the logits, too.

    Weights: those of the blocks; embedding `[vocab_size, d_model]`, Gaussian with standard
    deviation d_model ** -0.5, so of length about 1; norm, an `nn.RMSNorm` with ε = 10⁻⁵, initially
    1; without tied_head head, `[vocab_size, d_model]` without bias, `nn.Linear`'s initialisation.
    A model made on the device "meta" gets its weights by `to_empty`, then `reset_parameters` of all
    modules that have it, the model's own last, in the order of `Module.apply`.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, mixers is not a sequence, a mixer
            is a layer already, or does not make one of d_model, tied_head is not a bool, or as the
            mixers and `Block`.

    Example:
        >>> import torch
        >>> from assocmem import nn
        >>> model = nn.SequenceModel(50, 32, 4, [nn.KimiDeltaAttention, nn.SoftmaxAttention])
        >>> logits, state = model(torch.randint(50, (2, 10)))
        >>> next_logits, state = model.step(logits[:, -1].argmax(-1), state)
        >>> logits.shape, next_logits.shape
        (torch.Size([2, 10, 50]), torch.Size([2, 50]))

        Two prompts, of 3 and of 7 tokens, in one row, and the next token of both:

        >>> prompts, cu_seqlens = torch.randint(50, (1, 10)), torch.tensor([0, 3, 10])
        >>> logits, state = model(prompts, cu_seqlens=cu_seqlens)
        >>> next_logits, state = model.step(logits[0, cu_seqlens[1:] - 1].argmax(-1), state)
        >>> next_logits.shape
        torch.Size([2, 50])
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        n_heads: int,
        mixers: Sequence[Callable[[int, int], Mixer]],
        *,
        d_hidden: int | None = None,
        feed_forward: Callable[[int], nn.Module] | None = None,
        tied_head: bool = True,
    ) -> None:
        super().__init__()
        check_counts(vocab_size=vocab_size, d_model=d_model, n_heads=n_heads)
        check_bool("tied_head", tied_head)
        if not isinstance(mixers, Sequence):
            raise TypeError(f"mixers must be a sequence, got {mixers!r}")
        for mixer in mixers:
            check_maker("mixers", mixer, "a layer")
        if feed_forward is not None:
            check_maker("feed_forward", feed_forward, "a memory")
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.reset_parameters()
        blocks = []
        for mixer in mixers:
            layer = mixer(d_model, n_heads)
            if (size := getattr(layer, "d_model", d_model)) != d_model:
                name = type(layer).__name__
                raise ValueError(
                    f"mixers must make layers of size {d_model}, got a {name} of {size}"
                )
            memory = None if feed_forward is None else feed_forward(d_model)
            blocks.append(Block(layer, d_hidden, feed_forward=memory))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(d_model, eps=1e-5)
        # A second name for the embedding's matrix would not survive `to_empty`, nor `assign=True`.
        self.head = None if tied_head else nn.Linear(d_model, vocab_size, bias=False)

    def reset_parameters(self) -> None:
        """Draw the embedding, as when the model is made."""
        # With 0.02, as in GPT-2, a model of d_model = 32 needs 200 steps or more where this needs
        # 150 (recall of four pairs by two blocks, to a tenth or so of the loss of guessing).
        nn.init.normal_(self.embedding.weight, std=self.embedding.embedding_dim**-0.5)

    def embedded(self, tokens: Tensor) -> Tensor:
        """The vectors of tokens `[B, T]`."""
        try:
            return self.embedding(tokens)
        except IndexError:  # on a GPU the process ends where a number is out of range
            vocab_size = self.embedding.num_embeddings
            beyond = tokens[(tokens < 0) | (tokens >= vocab_size)]
            if beyond.numel() == 0:
                raise
            raise ValueError(
                f"tokens must be from 0 to vocab_size - 1 = {vocab_size - 1}, got {int(beyond[0])}"
            ) from None

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One token of each sequence in, the logits of the next one out: `forward` with T = 1.

        Args:
            x: integers `[B]` from 0 to vocab_size - 1.
            state: what the call before handed back; None at the start.

        Returns:
            logits `[B, vocab_size]`, and the state after the token.

        Raises:
            TypeError, ValueError: when x is not `[B]`, and as `forward`.
        """
        check_tensor("x", x)
        if x.ndim != 1:
            raise ValueError(f"x must have shape [B], got {list(x.shape)}")
        return super().step(x, state)

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        steps: int,
        *,
        cu_seqlens: Tensor | None = None,
        temperature: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continue prompts, one token of each at a time.

        Every next token is the most likely one or, with a temperature τ, drawn from
        softmax(logits / τ). The prompts are read at once; a step takes the state and one token.

        Args:
            tokens: prompts, integers `[B, T]` from 0 to vocab_size - 1.
            steps: how many tokens to write after each of them.
            cu_seqlens: borders `[N + 1]` of N prompts packed in one row, B = 1.
            temperature: τ; None takes the most likely token.
            generator: what draws, on the device of the model; PyTorch's own when None.

        Returns:
            What was written, `[N, steps]` (N = B without cu_seqlens).

        Raises:
            TypeError, ValueError: when steps is not an integer >= 1, temperature not finite and
                > 0, generator not a `torch.Generator`, a prompt has no token, or as `forward`.
        """
        check_counts(steps=steps)
        if temperature is not None:
            check_positive("temperature", temperature)
        if generator is not None:
            check_generator(generator)
        logits, state = self(tokens, cu_seqlens=cu_seqlens)
        shortest = tokens.shape[1] if cu_seqlens is None else int(cu_seqlens.diff().min())
        if shortest == 0:
            raise ValueError("tokens must hold at least one of every prompt, got a prompt of none")
        logits = logits[:, -1] if cu_seqlens is None else logits[0, cu_seqlens[1:] - 1]
        written = [drawn(logits, temperature, generator)]
        for _ in range(steps - 1):
            logits, state = self.step(written[-1], state)
            written.append(drawn(logits, temperature, generator))
        return torch.stack(written, 1)

    def forward(
        self,
        tokens: Tensor,
        state: tuple[Any, ...] | None = None,
        *,
        group: dist.ProcessGroup | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """The logits of the token after every token.

        Args:
            tokens: integers `[B, T]` from 0 to vocab_size - 1.
            state: what an earlier piece handed back, one state per block; None at the start.
            group: the ranks on which the pieces of the sequences lie, as `Streaming` says.
            cu_seqlens: borders of N packed sequences `[N + 1]`, as `Streaming` says.

        Returns:
            logits `[B, T, vocab_size]`, and the state after the last token.

        Raises:
            TypeError: when tokens is not a tensor of int32 or int64.
            ValueError: when tokens are not `[B, T]`, on another device or (on a CPU) beyond the
                vocabulary, the state is of another number of blocks, or cu_seqlens do not fit.
        """
        if not isinstance(tokens, Tensor) or tokens.dtype not in (torch.int32, torch.int64):
            what = tokens.dtype if isinstance(tokens, Tensor) else type(tokens).__name__
            raise TypeError(f"tokens must be a tensor of int32 or int64, got {what}")
        check_tensor("tokens", tokens)
        if tokens.ndim != 2:
            raise ValueError(f"tokens must have shape [B, T], got {list(tokens.shape)}")
        check_packed(cu_seqlens, tokens, "tokens")
        check_device("tokens", tokens, self.embedding.weight, "the embedding")
        if state is None:
            state = (None,) * len(self.blocks)
        elif not isinstance(state, (tuple, list)) or len(state) != len(self.blocks):
            what = len(state) if isinstance(state, (tuple, list)) else type(state).__name__
            raise ValueError(f"state must have one entry a block, {len(self.blocks)}, got {what}")
        x, after = self.embedded(tokens), []
        for block, before in zip(self.blocks, state, strict=True):
            x, new = block(x, before, group=group, cu_seqlens=cu_seqlens)
            after.append(new)
        head = self.embedding if self.head is None else self.head
        return F.linear(self.norm(x), head.weight), tuple(after)


def check_maker(name: str, maker: Any, what: str) -> None:
    """Raise unless an argument is what makes a module, and not a module that is made."""
    if isinstance(maker, nn.Module):
        kind = type(maker).__name__
        raise TypeError(f"{name} must be what makes {what}, such as {kind}, got a {kind}")
    if not callable(maker):
        raise TypeError(f"{name} must be what makes {what}, got {maker!r}")


def drawn(logits: Tensor, temperature: float | None, generator: torch.Generator | None) -> Tensor:
    """A token `[N]` for each row of logits `[N, vocab_size]`."""
    if temperature is None:
        return logits.argmax(-1)
    logits = logits.float()
    above = logits - logits.amax(-1, keepdim=True)  # 0 / τ is 0, where float32 holds 1 / τ
    p = (above / max(temperature, torch.finfo(torch.float32).tiny)).softmax(-1)
    return torch.multinomial(p, 1, generator=generator)[:, 0]
