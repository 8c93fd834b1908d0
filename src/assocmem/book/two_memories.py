"""One attention layer and one feed-forward layer, half of the data in context, half to be learned.

Chapter 4 runs it briefly; `benchmarks/feed_forward.py` runs it at length and stores the result.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assocmem.book import fact_learning
from assocmem.capacity.vectors import sphere
from assocmem.nn import KERNEL_FUNCTIONS
from assocmem.tasks import Recall, associative_recall
from assocmem.train import train


class TwoMemories(nn.Module):
    """Attention over pairs in context, then a feed-forward memory (book, eq-two-memories).

        h = x + W_o norm(Σ_i κ(W_k k_i, W_q x) W_v v_i),    y = h + memory(norm(h))

    with κ acting on the scores over √d, as in attention. A token's vector is given and not trained,
    so that no fact can be stored in it; logits are the dot products of y with the vectors of the
    values, over √d.

    Args:
        vectors: one for each token `[vocabulary, d]`, those of the values at the end.
        n_values: how many of the tokens are values.
        d_hidden: units of the feed-forward memory.
        attention: kernel function of the attention, a name in `nn.KERNEL_FUNCTIONS`.
        feed_forward: kernel function of the feed-forward memory, a name that
            `fact_learning.layer` knows.
    """

    vectors: Tensor

    def __init__(
        self, vectors: Tensor, n_values: int, d_hidden: int, attention: str, feed_forward: str
    ) -> None:
        super().__init__()
        d = vectors.shape[1]
        self.n_values = n_values
        self.register_buffer("vectors", vectors)
        self.kernel = KERNEL_FUNCTIONS[attention]
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(d, d, bias=False) for _ in range(4)
        )
        self.read_norm, self.memory_norm = nn.RMSNorm(d), nn.RMSNorm(d)
        self.memory = fact_learning.layer(feed_forward, d, d_hidden)
        self.to(vectors.dtype)

    def forward(self, pairs: Recall) -> Tensor:
        """Logits `[B, Q, n_values]` of the answer to every query."""
        keys, values, x = (self.vectors[i] for i in (pairs.keys, pairs.values, pairs.queries))
        scores = self.q_proj(x) @ self.k_proj(keys).mT / x.shape[-1] ** 0.5
        h = x + self.o_proj(self.read_norm(self.kernel(scores) @ self.v_proj(values)))
        y = h + self.memory(self.memory_norm(h))
        return y @ self.vectors[-self.n_values :].T / x.shape[-1] ** 0.5


class Scores(NamedTuple):
    """Share of right answers to questions about the context, and about the learned facts."""

    context: float
    facts: float


class Swap:
    """The task, and a model with its own pair of kernel functions.

    Tokens are context keys, then subjects of facts, then values. Half of the questions ask for a
    key of the context, half for a subject, whose value never changes and is nowhere in context.

    Args:
        n_pairs: pairs in context; there are twice as many keys to draw from.
        n_facts: facts to be learned.
        n_values: values to choose from.
        d: size of a token's vector.
        d_hidden: units of the feed-forward memory.
        attention: kernel function of the attention.
        feed_forward: kernel function of the feed-forward memory.
        seed: of vectors, facts, weights and batches.
        dtype: floating-point type.
    """

    def __init__(
        self,
        n_pairs: int,
        n_facts: int,
        n_values: int,
        d: int,
        d_hidden: int,
        attention: str,
        feed_forward: str,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.n_pairs, self.n_facts, self.n_values, self.seed = n_pairs, n_facts, n_values, seed
        vectors = d**0.5 * sphere(2 * n_pairs + n_facts + n_values, d, generator, dtype)
        self.fact_values = torch.randint(n_values, (n_facts,), generator=generator)
        torch.manual_seed(seed)
        self.model = TwoMemories(vectors, n_values, d_hidden, attention, feed_forward)

    def draw(self, batch: int, n_queries: int, generator: torch.Generator) -> Recall:
        """A batch whose first n_queries questions ask for the context, and as many for facts.

        Its answers count from the first value, like the model's logits.
        """
        n_keys = 2 * self.n_pairs
        recall = associative_recall(
            batch, self.n_pairs, n_queries, n_keys, self.n_values, generator
        )
        subjects = torch.randint(self.n_facts, (batch, n_queries), generator=generator)
        queries = torch.cat((recall.queries, n_keys + subjects), 1)
        answers = torch.cat((recall.answers - n_keys, self.fact_values[subjects]), 1)
        return Recall(recall.keys, recall.values + self.n_facts, queries, answers)

    def train(self, steps: int, *, lr: float = 1e-2, silent: bool = False) -> list[float]:
        """Train the model on batches of 32 contexts with 32 questions each."""

        def loss(generator: torch.Generator) -> Tensor:
            batch = self.draw(32, 16, generator)
            return F.cross_entropy(self.model(batch).flatten(0, 1), batch.answers.flatten())

        return train(self.model, loss, steps, lr=lr, seed=self.seed, silent=silent)

    @torch.no_grad()
    def scores(self) -> Scores:
        """Accuracy on 256 new contexts with 64 questions each."""
        batch = self.draw(256, 32, torch.Generator().manual_seed(self.seed + 1))
        right = (self.model(batch).argmax(-1) == batch.answers).double()
        return Scores(right[:, :32].mean().item(), right[:, 32:].mean().item())
