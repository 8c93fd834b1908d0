"""The tasks: shapes, vocabulary, right answers by a plain dictionary, and seeds."""

from __future__ import annotations

import pytest
import torch

from assocmem import tasks

B, N, Q, KEYS, VALUES = 5, 12, 30, 15, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def recall(seed: int = 0) -> tasks.Recall:
    return tasks.associative_recall(B, N, Q, KEYS, VALUES, generator(seed))


def overwrite(seed: int = 0) -> tasks.Recall:
    return tasks.overwrite(B, N, Q, 4, VALUES, generator(seed))


@pytest.mark.parametrize(("task", "n_keys"), [(recall, KEYS), (overwrite, 4)])
def test_an_answer_is_the_value_that_was_written_last(task, n_keys):
    drawn = task()
    assert drawn.keys.shape == drawn.values.shape == (B, N)
    assert drawn.queries.shape == drawn.answers.shape == (B, Q)
    for b in range(B):
        held = dict(zip(drawn.keys[b].tolist(), drawn.values[b].tolist(), strict=True))
        assert [held[q] for q in drawn.queries[b].tolist()] == drawn.answers[b].tolist()
    assert drawn.keys.unique().tolist() == list(range(n_keys))
    assert drawn.values.unique().tolist() == list(range(n_keys, n_keys + VALUES))


def test_keys_are_distinct_in_recall_and_come_again_in_overwrite():
    assert all(len(row.unique()) == N for row in recall().keys)
    assert all(len(row.unique()) < N for row in overwrite().keys)


def test_a_question_may_be_about_any_pair():
    drawn = tasks.associative_recall(1, N, 500, N, VALUES, generator())
    assert len(drawn.queries.unique()) == N


def test_a_sequence_is_pairs_then_questions():
    drawn = recall()
    tokens, targets = drawn.tokens, drawn.targets
    assert tokens.shape == targets.shape == (B, 2 * N + Q)
    assert torch.equal(tokens[:, 0 : 2 * N : 2], drawn.keys)
    assert torch.equal(tokens[:, 1 : 2 * N : 2], drawn.values)
    assert torch.equal(tokens[:, 2 * N :], drawn.queries)
    assert (targets[:, : 2 * N] == tasks.IGNORE).all()
    assert torch.equal(targets[:, 2 * N :], drawn.answers)
    assert torch.nn.CrossEntropyLoss().ignore_index == tasks.IGNORE


@pytest.mark.parametrize("task", [recall, overwrite])
def test_the_seed_decides(task):
    assert torch.equal(task(1).tokens, task(1).tokens)
    assert not torch.equal(task(1).tokens, task(2).tokens)


def test_facts_are_vectors_of_one_length():
    facts = tasks.fact_storage(50, 9, 7, generator())
    assert facts.inputs.shape == (50, 9)
    assert facts.answers.shape == (7, 9)
    for x in (facts.inputs, facts.answers):
        assert torch.allclose(x.norm(dim=1), torch.full((len(x),), 3.0, dtype=torch.float64))
    assert facts.labels.unique().tolist() == list(range(7))
    assert tasks.fact_storage(5, 9, 7, generator(), torch.float32).inputs.dtype == torch.float32


def test_accuracy_is_the_share_of_nearest_answers():
    facts = tasks.fact_storage(50, 9, 7, generator())
    right = facts.answers[facts.labels]
    assert facts.accuracy(0.1 * right) == 1
    wrong = facts.answers[(facts.labels + 1) % 7]
    assert facts.accuracy(torch.cat((right[:20], wrong[20:]))) == 0.4


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: tasks.associative_recall(1, 5, 1, 4, 4, generator()),
            ValueError,
            "n_pairs must be at most n_keys = 4, got 5",
        ),
        (lambda: tasks.overwrite(1, 0, 1, 4, 4, generator()), ValueError, "n_writes must be at"),
        (lambda: tasks.fact_storage(1.5, 4, 4, generator()), TypeError, "n_facts must be an int"),
    ],
)
def test_bad_sizes_are_named(build, error, message):
    with pytest.raises(error, match=message):
        build()
