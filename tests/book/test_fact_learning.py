"""What chapter 4 measures of a trained memory: shares of units and facts, and that it learns."""

from __future__ import annotations

import pytest
import torch

from assocmem.book import fact_learning
from assocmem.tasks import fact_storage


def test_a_participation_ratio_counts_equal_entries():
    c = torch.tensor([[2.0, 2.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    assert fact_learning.participation_ratio(c, 1).tolist() == pytest.approx([2, 100 / 30, 0])
    assert fact_learning.participation_ratio(c, 0)[0].item() == pytest.approx(9 / 5)


@torch.no_grad()
def test_a_contribution_is_the_length_of_a_units_part():
    memory = fact_learning.untrained("gelu", 4, 6)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    c = fact_learning.contributions(memory, x)
    for n in range(5):
        for i in range(6):
            part = memory.activations(x[n])[i] * memory.down_proj.weight[:, i]
            assert c[n, i].item() == pytest.approx(part.norm().item(), rel=1e-5)


def test_swiglu_has_as_many_numbers():
    sizes = [
        sum(w.numel() for w in fact_learning.untrained(kernel, 4, 6).parameters())
        for kernel in ("relu", "swiglu")
    ]
    assert sizes[0] == sizes[1]


@torch.no_grad()
def test_the_scaled_softmax_answers_m_times_as_loud():
    plain = fact_learning.untrained("softmax", 4, 6)
    scaled = fact_learning.untrained("scaled softmax", 4, 6)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(scaled(x), 6 * plain(x))
    assert torch.allclose(scaled.activations(x).mean(1), torch.ones(5))


def test_facts_are_learned():
    facts = fact_storage(40, 8, 10, torch.Generator().manual_seed(0), torch.float32)
    memory = fact_learning.untrained("relu", 8, 16)
    before = facts.accuracy(memory(facts.inputs))
    losses = fact_learning.learn(memory, facts, 150, lr=3e-2, silent=True)
    assert before < 0.4
    assert facts.accuracy(memory(facts.inputs)) > 0.95
    with torch.no_grad():
        logits = memory(facts.inputs) @ facts.answers.T / 8**0.5
    right = logits.log_softmax(1)[torch.arange(40), facts.labels]
    assert losses[-1] == pytest.approx(-right.mean().item(), rel=0.05)
