"""The comparison of designs: what they read, that they are equally large, and what is run again.

That the record still stands is asked of the code by what it does: runs begin as they did.
"""

from __future__ import annotations

import json

import pytest
import torch

from assocmem import tasks
from assocmem.book import choosing, recorded
from assocmem.book.choosing.batches import ALPHABET
from benchmarks.choosing import Record, Run, show

CONFIG = choosing.configuration()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> choosing.Text:
    """Two chapters of 400 letters, the second one with what ASCII lacks."""
    folder = tmp_path_factory.mktemp("book")
    cells = [
        [{"cell_type": "markdown", "source": ["ab" * 100, "cd" * 100]}],
        [{"cell_type": "code", "source": ["no"]}, {"cell_type": "markdown", "source": ["β" * 400]}],
    ]
    for i, chapter in enumerate(cells):
        (folder / f"{i}.ipynb").write_text(json.dumps({"cells": chapter}))
    return choosing.Text.of(sorted(folder.glob("*.ipynb")))


def spelled(tokens: torch.Tensor) -> str:
    return "".join((ALPHABET + "?")[i] for i in tokens.tolist())


def test_the_last_tenth_of_every_chapter_is_held_out(text):
    learned, held_out = spelled(text.learned), spelled(text.held_out)
    assert learned == "ab" * 100 + "cd" * 80 + "\n\n" + 360 * "?"
    assert held_out == "cd" * 20 + "\n\n" + 40 * "?"


def test_a_window_asks_for_every_next_character(text):
    tokens, targets = text.draw(3, generator(), {"length": 7})
    assert tokens.shape == (3, 7, 2)
    assert torch.equal(tokens[:, 1:, 0], targets[:, :-1])
    assert torch.equal(tokens[:, 1:, 1] - choosing.SYMBOLS, tokens[:, :-1, 0])
    for b in range(3):
        assert spelled(torch.cat((tokens[b, :, 0], targets[b, -1:]))) in spelled(text.learned)


def test_longer_contexts_are_asked_for_the_same_characters(text):
    asked = []
    for length in (8, 16, 32):
        size = {"length": length, "asked": 5, "longest": 32}
        tokens, targets = text.test(20, generator(), size)
        assert tokens.shape == (20, length, 2)
        assert all(spelled(row) in spelled(text.held_out) for row in tokens[..., 0])
        assert (targets[:, : length - 5] == tasks.IGNORE).all()
        asked.append(targets[:, -5:])
    assert torch.equal(asked[0], asked[1])
    assert torch.equal(asked[1], asked[2])


def test_a_pair_is_one_position_and_a_query_its_key():
    size = {"n_pairs": 4, "n_queries": 3, "n_keys": 6, "n_values": 5}
    tokens, targets = choosing.drawn("associative_recall", 2, generator(), size)
    task = tasks.associative_recall(2, **size, generator=generator())
    assert torch.equal(tokens[:, :4], torch.stack((task.keys, task.values), -1))
    assert torch.equal(tokens[:, 4:], torch.stack((task.queries, task.queries), -1))
    assert torch.equal(targets[:, 4:], task.answers)
    assert (targets[:, :4] == tasks.IGNORE).all()


def test_swaps_begin_with_a_token_for_each_place():
    tokens, targets = choosing.drawn("swaps", 2, generator(), {"length": 4, "n": 3})
    task = tasks.swaps(2, 4, 3, generator())
    assert tokens[:, :3, 0].tolist() == 2 * [[3, 4, 5]]
    assert torch.equal(tokens[:, 3:, 0], task.tokens)
    assert torch.equal(targets[:, 3:], task.targets)
    assert (targets[:, :3] == tasks.IGNORE).all()


@pytest.mark.parametrize("design", [*CONFIG["designs"], *CONFIG["orders"]["designs"]])
def test_designs_are_equally_large_and_read_every_task(design):
    aim = CONFIG["model"]["parameters"]
    for name, task in CONFIG["tasks"].items():
        model = choosing.made(CONFIG, name, design, seed=0)
        assert choosing.parameters(model.blocks) == pytest.approx(aim, rel=0.003)
        if name != "text":
            size = {**task["always"], **task["train"][0]}
            tokens, targets = choosing.drawn(task["kind"], 1, generator(), size)
            assert model(tokens).shape == (*targets.shape, task["vocab_size"])


def test_what_a_design_costs_is_counted():
    config = small()
    got = choosing.costs(config, "retention")
    assert [row["T"] for row in got["decoding"]] == [4]
    config["costs"]["batch"] *= 2
    assert choosing.costs(config, "retention")["step_flops"] == 2 * got["step_flops"] > 0


@pytest.mark.parametrize(
    ("design", "sides"),
    [("softmax attention", 6), ("forgetting attention", 6), ("DeltaFormer", 6 + 2 + 4)],
)
def test_the_products_of_attention_are_counted(design, sides):
    """A product of T × T scores with K = V columns: forward 2, backward 4; for the corrections of
    DeltaFormer 2 and, with the scores computed again, 4."""
    config = small()
    config["designs"][design] = CONFIG["designs"][design]
    blocks = choosing.Model(config["model"], config["designs"][design], 1).blocks
    matrices = sum(p.numel() for p in blocks.parameters() if p.ndim == 2)
    batch, T, K = config["costs"]["batch"], config["costs"]["length"], 8
    weights, attended = 6 * matrices * batch * T, 2 * sides * batch * T * T * K
    counted = choosing.costs(config, design)["step_flops"]
    assert counted == weights + len(blocks) * attended


@pytest.mark.parametrize(
    ("design", "held", "written"),
    [
        ("DeltaNet", 4096, 4096),
        ("softmax attention", 512 * 20, 512),
        ("linear attention", 4352, 4352),
    ],
)
def test_the_bytes_of_a_token_are_weights_state_and_what_is_written(design, held, written):
    model = choosing.Model(CONFIG["model"], CONFIG["designs"][design], 1)
    moved = 4 * choosing.parameters(model.blocks) + held + written
    assert choosing.decoding(model, 20) == {"T": 20, "state_bytes": held, "moved_bytes": moved}


def small() -> dict:
    """Two designs, two tasks, and a step or two."""
    config = choosing.configuration()
    config["seeds"] = [0, 1]
    config["model"] = {"d_model": 8, "n_heads": 1, "parameters": 900}
    config["pilot"] = {
        "seed": 9, "steps": 1, "rates": [1e-3, 1e-2], "tasks": ["swaps"], "checked": ["swaps"],
    }  # fmt: skip
    config["designs"] = {x: config["designs"][x] for x in ("retention", "softmax attention")}
    orders = config["orders"]
    orders.update(tasks=["swaps"], designs={"softmax + KDA": orders["designs"]["softmax + KDA"]})
    config["tasks"] = {x: config["tasks"][x] for x in ("swaps", "text")}
    for task in config["tasks"].values():
        task.update(steps=2, batch=1, tested=1, test=task["test"][:1])
    config["tasks"]["text"].update(test=[{"length": 8, "asked": 4, "longest": 16}])
    config["costs"].update(decoded=[4])
    return config


def test_a_model_is_trained_and_tested_at_every_size(text):
    config = small()
    row = choosing.run(config, "text", "softmax attention", 0, 1e-2, 20, text)
    assert row == choosing.run(config, "text", "softmax attention", 0, 1e-2, 20, text) | {
        "step_ms": row["step_ms"]
    }
    assert len(row["trace"]) == 10
    assert row["trace"][-1] < row["trace"][0]
    assert [len(row[x]) for x in ("accuracy", "test_loss")] == [1, 1]
    other = choosing.run(config, "text", "softmax attention", 1, 1e-2, 20, text)
    assert other["trace"] != row["trace"]


def test_the_first_losses_are_those_of_a_run_of_three_steps():
    row = choosing.run(small(), "swaps", "retention", 0, 1e-2, 3)
    assert len(row["first"]) == 3
    assert row["trace"] == [round(x, 4) for x in row["first"]]


def test_the_first_losses_on_text_do_not_hang_on_the_text(text):
    config = small()
    for letters in (text, choosing.Text(text.learned.flip(0), text.held_out)):
        row = choosing.run(config, "text", "retention", 0, 1e-2, 2, letters)
        assert row["first"] == choosing.first(config, "text", "retention", 0, 1e-2)


@pytest.fixture
def ran(monkeypatch, tmp_path) -> list[tuple]:
    """What would be run; results go to a folder of the test's own."""
    monkeypatch.setattr(recorded, "RESULTS", tmp_path)
    calls = []

    def counted(config, task, design, seed, lr, steps, text):
        calls.append((task, design, seed, lr))
        first = choosing.first(config, task, design, seed, lr)
        return {"first": first, "loss": lr, "accuracy": [0.5], "test_loss": [1.0]}

    monkeypatch.setattr(choosing, "run", counted)
    monkeypatch.setattr(choosing, "first", lambda *which: [3.0, 2.0, 1.0])
    monkeypatch.setattr(choosing, "costs", lambda config, design: {"parameters": 1})
    return calls


def whole(config: dict, text: choosing.Text) -> Record:
    """All that a configuration asks for, as the command runs it."""
    record = Record(config, text)
    record.count()
    for runs in (record.pilots, record.trainings, record.other_rates, record.orders):
        record.catch_up(runs())
    record.tidy()
    return record


def test_only_what_is_new_is_run(ran, text, capsys):
    record = whole(small(), text)
    assert len(ran) == 4 + 2 * 2 * 2 + 4 + 4  # pilots, trainings, other rates, orders
    rows = recorded.read("choosing")["runs"]
    stages = 4 * ["pilot"] + 8 * ["main"] + 4 * ["other rate"] + 4 * ["order"]
    assert [row["stage"] for row in rows] == stages
    assert {row["lr"] for row in rows if row["stage"] == "main"} == {1e-3}
    assert [row["design"] for row in recorded.read("choosing")["costs"]] == list(record.costs)
    ran.clear()
    whole(small(), text)
    assert ran == []
    # A longer task is run again, and nothing else.
    config = small()
    config["tasks"]["text"]["steps"] = 3
    whole(config, text)
    assert {call[0] for call in ran} == {"text"}
    assert len(ran) == 4
    show(recorded.read("choosing"))
    told = capsys.readouterr().out
    assert "retention                   2 runs: " in told
    assert "softmax + KDA               4 runs: " in told


@pytest.mark.parametrize(
    ("begins", "again"),
    [
        ([3.00002, 2.0, 1.0003], 0),
        ([3.0001, 2.0, 1.0], 8),
        ([3.0, 2.001, 1.0], 8),
        ([3.0, 2.0, 1.001], 8),
    ],
)
def test_what_begins_otherwise_is_run_again(ran, text, monkeypatch, begins, again):
    whole(small(), text)
    ran.clear()
    monkeypatch.setattr(choosing, "first", lambda *which: begins)
    record = Record(small(), text)
    record.catch_up(record.trainings())
    assert len(ran) == again


def test_another_text_makes_nothing_new_but_is_read_by_all_when_it_is_by_one(ran, text):
    whole(small(), text)
    ran.clear()
    other = choosing.Text(text.learned.flip(0), text.held_out)
    whole(small(), other)
    assert ran == []
    record = Record(small(), other)
    left_out = next(run for run in record.rows if run.task == "text")
    del record.rows[left_out]
    assert record.missing([left_out]) == [left_out]
    record.catch_up(record.trainings())
    assert [call[0] for call in ran] == 4 * ["text"]
    assert len({row["text"] for row in record.rows.values() if row["task"] == "text"}) == 1


def test_the_pilots_choose_the_rate_with_the_smaller_loss(ran, text):
    record = Record(small(), text)
    for run in record.pilots():
        record.rows[run] = {"loss": 1.0 if (run.lr == 1e-2) == (run.design == "retention") else 2.0}
    assert record.rate("retention") == 1e-2
    assert record.rate("softmax attention") == 1e-3
    assert [*record.other_rates()] == [
        Run("other rate", seed, "swaps", design, lr)
        for seed in (0, 1)
        for design, lr in (("retention", 1e-3), ("softmax attention", 1e-2))
    ]
    assert ran == []


def test_what_is_recorded_is_whole():
    """Every design has every task with all seeds, at one rate and under one configuration."""
    result = recorded.read("choosing")
    config = result["configuration"]
    assert [row["design"] for row in result["costs"]] == list(config["designs"])
    main = [row for row in result["runs"] if row["stage"] == "main"]
    assert len({row["text"] for row in main if row["task"] == "text"}) == 1
    for design in config["designs"]:
        rows = [row for row in main if row["design"] == design]
        assert len({row["lr"] for row in rows}) == 1
        assert [(row["seed"], row["task"]) for row in rows] == [
            (seed, task) for seed in config["seeds"] for task in config["tasks"]
        ]
        for row in rows:
            assert len(row["accuracy"]) == len(config["tasks"][row["task"]]["test"])
            assert all(0 <= x <= 1 for x in row["accuracy"])


@pytest.mark.parametrize("task", CONFIG["tasks"])
@pytest.mark.parametrize("design", CONFIG["designs"])
def test_runs_begin_as_they_are_recorded(design, task, text):
    """And are asked for as they were: so nothing of the record is new."""
    record = Record(CONFIG, text)
    (run,) = (r for r in record.rows if r[:4] == ("main", 0, task, design))
    assert not record.is_new(run)


@pytest.mark.parametrize("task", CONFIG["orders"]["tasks"])
@pytest.mark.parametrize("design", CONFIG["orders"]["designs"])
def test_orders_begin_as_they_are_recorded(design, task, text):
    record = Record(CONFIG, text)
    (run, _) = (r for r in record.rows if r[:4] == ("order", 0, task, design))
    assert not record.is_new(run)


def test_all_that_is_recorded_is_as_configured(text):
    record = Record(CONFIG, text)
    assert [*record.rows] == [*record.planned()]
    assert all(row["configured"] == record.configured(run) for run, row in record.rows.items())


def test_a_model_reads_sums_of_tokens_by_one_block_after_the_other():
    configuration = choosing.configuration()
    model = choosing.Model(configuration["model"], configuration["designs"]["retention"], 9)
    x = torch.tensor([[[0, 1], [2, 3], [4, 8]]])
    h = model.embedding.weight[x[..., 0]] + model.embedding.weight[x[..., 1]]
    for block in model.blocks:
        h, _ = block(h)
    torch.testing.assert_close(model(x), model.norm(h) @ model.head.weight.T)
