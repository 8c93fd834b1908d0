"""The model and the task with half of the data in context, half in the weights."""

from __future__ import annotations

import torch

from assocmem.book.two_memories import Swap, TwoMemories
from tests.nn.reference import rms_norm
from tests.ops.reference import relative_error


def swap(attention: str = "softmax", feed_forward: str = "relu") -> Swap:
    return Swap(4, 5, 6, 16, 32, attention, feed_forward)


def test_half_of_the_questions_are_about_the_context():
    task = swap()
    drawn = task.draw(50, 10, torch.Generator().manual_seed(0))
    assert drawn.queries.shape == drawn.answers.shape == (50, 20)
    assert drawn.keys.max() < 8
    assert (drawn.values >= 13).all()
    facts = {}
    for b in range(50):
        held = dict(zip(drawn.keys[b].tolist(), drawn.values[b].tolist(), strict=True))
        asked = zip(drawn.queries[b].tolist(), drawn.answers[b].tolist(), strict=True)
        for place, (query, answer) in enumerate(asked):
            if place < 10:
                assert held[query] == 13 + answer
            else:
                assert facts.setdefault(query, answer) == answer
    assert sorted(facts) == [8, 9, 10, 11, 12]


@torch.no_grad()
def test_logits_are_those_of_the_two_reads():
    net = swap().model
    drawn = swap().draw(3, 2, torch.Generator().manual_seed(0))
    e = net.vectors
    for b in range(3):
        for t in range(4):
            x = e[drawn.queries[b, t]]
            weights = [
                ((net.k_proj.weight @ e[k]) @ (net.q_proj.weight @ x) / 4).exp()
                for k in drawn.keys[b]
            ]
            read = sum(
                w * (net.v_proj.weight @ e[v])
                for w, v in zip(weights, drawn.values[b], strict=True)
            ) / sum(weights)
            h = x + net.o_proj.weight @ rms_norm(read)
            y = h + net.memory(rms_norm(h))
            assert relative_error(net(drawn)[b, t], e[-6:] @ y / 4) <= 1e-4  # ε of the norms


def test_the_memory_may_be_a_scaled_softmax():
    memory = swap(feed_forward="scaled softmax").model.memory
    x = torch.randn(3, 16, dtype=torch.float64)
    assert torch.allclose(memory.activations(x).sum(1), torch.full((3,), 32.0, dtype=x.dtype))


def test_the_vectors_are_not_trained():
    names = [name for name, _ in swap().model.named_parameters()]
    assert "vectors" not in names
    assert isinstance(swap().model, TwoMemories)


def test_both_halves_are_learned():
    task = swap()
    before = task.scores()
    task.train(200, silent=True)
    after = task.scores()
    assert max(before) < 0.5
    assert min(after) > 0.9
