"""The tasks: shapes, vocabulary, right answers by a plain dictionary, and seeds."""

from __future__ import annotations

import math
from functools import partial

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


def noisy(seed: int = 0) -> tasks.Recall:
    return tasks.noisy_recall(B, N, 20, Q, KEYS, VALUES, generator(seed))


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


def test_a_seed_gives_the_same_task_whatever_the_default_dtype_is():
    def every() -> list[torch.Tensor]:
        trees = tasks.two_trees(3, n=8, generator=generator())
        graphs = tasks.reachability(3, n=8, edge_probability=0.3, generator=generator())
        return [recall().tokens, noisy().tokens, trees.adjacency, graphs.adjacency]

    expected, before = every(), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = every()
    finally:
        torch.set_default_dtype(before)
    assert all(map(torch.equal, found, expected))


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


def test_noise_has_keys_of_its_own_anywhere_among_pairs_and_is_not_asked_for():
    drawn, plain = noisy(), recall()
    marked = drawn.keys >= KEYS + VALUES
    assert torch.equal(drawn.queries, plain.queries)
    assert torch.equal(drawn.answers, plain.answers)
    for b in range(B):
        pairs = [drawn.keys[b, ~marked[b]].tolist(), drawn.values[b, ~marked[b]].tolist()]
        assert set(zip(*pairs, strict=True)) == set(
            zip(plain.keys[b].tolist(), plain.values[b].tolist(), strict=True)
        )
    assert (marked.sum(1) == 20).all()
    assert drawn.keys.max() == 2 * KEYS + VALUES - 1
    assert drawn.values.unique().tolist() == list(range(KEYS, KEYS + VALUES))
    assert marked[:, 0].any()
    assert not marked[:, 0].all()


def test_noise_may_be_absent():
    drawn = tasks.noisy_recall(B, N, 0, Q, KEYS, VALUES, generator())
    assert drawn.keys.shape == drawn.values.shape == (B, N)
    assert drawn.keys.max() < KEYS


def test_a_copy_follows_what_is_copied():
    drawn = tasks.copying(B, N, VALUES, generator())
    symbols = drawn.tokens[:, :N]
    assert symbols.unique().tolist() == list(range(VALUES))
    assert (drawn.tokens[:, N] == VALUES).all()
    assert torch.equal(drawn.tokens[:, N + 1 :], symbols[:, :-1])
    assert (drawn.targets[:, :N] == tasks.IGNORE).all()
    assert torch.equal(drawn.targets[:, N:], symbols)


def copy(seed: int) -> tasks.Copy:
    return tasks.copying(B, N, VALUES, generator(seed))


@pytest.mark.parametrize("task", [recall, overwrite, noisy, copy])
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
    longer = facts._replace(answers=torch.cat((100 * facts.answers[:1], facts.answers[1:])))
    towards = facts.answers[:1].expand_as(right) + right
    assert longer.accuracy(towards) == (facts.labels == 0).double().mean()  # not the nearest
    for outputs, error, message in (
        (right[:1], ValueError, r"outputs must have shape \[N, d_model\] = \[50, 9\], got \[1, 9"),
        (right.float(), TypeError, r"outputs must be torch\.float64 like answers"),
        (right * math.nan, ValueError, "outputs must be finite, got nan"),
        (right.to("meta"), ValueError, "outputs must be on cpu like answers, got meta"),
    ):
        with pytest.raises(error, match=message):
            facts.accuracy(outputs)
    with pytest.raises(TypeError, match=r"dtype must be a floating dtype, got torch\.int64"):
        tasks.fact_storage(5, 9, 7, generator(), torch.int64)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: tasks.associative_recall(1, 5, 1, 4, 4, generator()),
            ValueError,
            "n_pairs must be at most n_keys = 4, got 5",
        ),
        (lambda: tasks.overwrite(1, 0, 1, 4, 4, generator()), ValueError, "n_writes must be at"),
        (lambda: tasks.noisy_recall(1, 1, -1, 1, 4, 4, generator()), ValueError, "n_noise must be"),
        (lambda: tasks.copying(1, 4, 0, generator()), ValueError, "n_symbols must be at least 1"),
        (lambda: tasks.fact_storage(1.5, 4, 4, generator()), TypeError, "n_facts must be an int"),
    ],
)
def test_bad_sizes_are_named(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_parity_counts_ones():
    drawn = tasks.parity(3, 40, generator())
    for bits, targets in zip(drawn.tokens.tolist(), drawn.targets.tolist(), strict=True):
        assert targets == [sum(bits[: t + 1]) % 2 for t in range(40)]
    assert drawn.tokens.unique().tolist() == [0, 1]


def test_modular_arithmetic_from_left_to_right():
    m = 5
    drawn = tasks.modular_arithmetic(4, 60, m, generator())
    assert set(drawn.tokens.flatten().tolist()) == set(range(3 * m))
    for tokens, targets in zip(drawn.tokens.tolist(), drawn.targets.tolist(), strict=True):
        state = 0
        for token, target in zip(tokens, targets, strict=True):
            d = token % m
            state = (state + d, state - d, state * d)[token // m] % m
            assert target == state


@pytest.mark.parametrize(("group", "order", "n"), [("S3", 6, 3), ("A5", 60, 5), ("S5", 120, 5)])
def test_word_problem_is_composition(group, order, n):
    elements = tasks.GROUPS[group]
    assert len(set(elements)) == order
    assert elements[0] == tuple(range(n))
    drawn = tasks.word_problem(2, 200, group, generator())
    for tokens, targets in zip(drawn.tokens.tolist(), drawn.targets.tolist(), strict=True):
        held = list(range(n))
        for token, target in zip(tokens, targets, strict=True):
            held = [held[i] for i in elements[token]]
            assert elements[target] == tuple(held)


def test_swaps_exchange_two_places():
    drawn = tasks.swaps(3, 50, 5, generator())
    for b in range(3):
        held = list(range(5))
        for t, (i, j) in enumerate(drawn.pairs[b].tolist()):
            assert i < j
            held[i], held[j] = held[j], held[i]
            assert drawn.states[b, t].tolist() == held
            assert drawn.targets[b, t] == held[0]
    numbers = {
        tuple(p): t
        for p, t in zip(
            drawn.pairs.flatten(0, 1).tolist(), drawn.tokens.flatten().tolist(), strict=True
        )
    }
    assert sorted(numbers.values()) == list(range(10))


@pytest.mark.parametrize(
    "drawn", [tasks.reachability(20, 12, 0.15, generator()), tasks.two_trees(20, 12, generator())]
)
def test_reachable_is_what_a_path_leads_to(drawn):
    for A, reachable in zip(drawn.adjacency.tolist(), drawn.reachable.tolist(), strict=True):
        seen, frontier = {0}, [0]
        while frontier:
            s = frontier.pop()
            new = [t for t in range(12) if A[t][s] and t not in seen]
            seen.update(new)
            frontier += new
        assert [t in seen for t in range(12)] == reachable
    assert not drawn.adjacency.triu().any()


def test_two_trees_of_one_size_with_one_parent_each():
    drawn = tasks.two_trees(50, 12, generator())
    assert (drawn.reachable.sum(1) == 6).all()
    assert (drawn.adjacency.sum((1, 2)) == 10).all()
    assert (drawn.adjacency.sum(2) <= 1).all()


def test_edges_have_their_probability():
    drawn = tasks.reachability(500, 12, 0.15, generator())
    share = drawn.adjacency.double().sum() / (500 * 66)
    assert abs(share - 0.15) < 4 * (0.15 * 0.85 / (500 * 66)) ** 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tasks.parity(1, 0, generator()), "length must be at least 1"),
        (lambda: tasks.modular_arithmetic(1, 1, 1, generator()), "modulus must be at least 2"),
        (lambda: tasks.word_problem(1, 1, "M11", generator()), "group must be one of"),
        (lambda: tasks.word_problem(1, 1, ["S3"], generator()), "group must be one of"),
        (lambda: tasks.swaps(1, 1, 1, generator()), "n must be at least 2"),
        (lambda: tasks.reachability(1, 3, 1.5, generator()), "edge_probability must lie in"),
        (lambda: tasks.two_trees(1, 5, generator()), "n must be even"),
    ],
)
def test_bad_sizes_of_states_and_graphs_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


SIZES = {
    "associative_recall": dict(batch=1, n_pairs=1, n_queries=1, n_keys=1, n_values=1),
    "overwrite": dict(batch=1, n_writes=1, n_queries=1, n_keys=1, n_values=1),
    "noisy_recall": dict(batch=1, n_pairs=1, n_noise=0, n_queries=1, n_keys=1, n_values=1),
    "copying": dict(batch=1, length=1, n_symbols=1),
    "fact_storage": dict(n_facts=1, d_model=1, n_answers=1),
    "parity": dict(batch=1, length=1),
    "modular_arithmetic": dict(batch=1, length=1, modulus=2),
    "word_problem": dict(batch=1, length=1),
    "swaps": dict(batch=1, length=1, n=2),
    "reachability": dict(batch=1, n=2),
    "two_trees": dict(batch=1, n=4),
}
OTHERS = {"word_problem": {"group": "S3"}, "reachability": {"edge_probability": 0.5}}


@pytest.mark.parametrize(("name", "size"), [(x, y) for x, sizes in SIZES.items() for y in sizes])
def test_every_size_has_its_least(name, size):
    task = partial(getattr(tasks, name), **OTHERS.get(name, {}), generator=generator())
    task(**SIZES[name])
    least = SIZES[name][size]
    with pytest.raises(ValueError, match=f"{size} must be at least {least}"):
        task(**SIZES[name] | {size: least - 1})


@pytest.mark.parametrize("name", SIZES)
def test_a_task_is_where_its_generator_is(name):
    task = partial(getattr(tasks, name), **SIZES[name], **OTHERS.get(name, {}))
    expected = task(generator=generator())
    with torch.device("meta"):  # a default device, as "cuda" is one
        drawn = task(generator=torch.Generator("cpu").manual_seed(0))
    assert all(map(torch.equal, drawn, expected))


@pytest.mark.parametrize("name", SIZES)
def test_every_task_needs_a_generator(name):
    task = partial(getattr(tasks, name), **SIZES[name], **OTHERS.get(name, {}))
    for source, kind in ((0, "int"), (None, "NoneType")):
        with pytest.raises(TypeError, match=rf"generator must be a torch\.Generator, got {kind}"):
            task(generator=source)
