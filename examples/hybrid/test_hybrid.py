"""The example resumes exactly, and decodes with the memory that it states."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import decode
import pytest
import torch
import train_hybrid
from train_hybrid import Config, load, new_model, train

TEXT = str(Path(__file__).parent / "README.md")
SMALL = Config(TEXT, steps=40, d_model=32, n_heads=2, batch=4, length=64, lr=1e-2, every=10)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], Path]:
    """The losses of a run without interruption, and its folder."""
    folder = tmp_path_factory.mktemp("unbroken")
    return list(train(SMALL, folder)), folder


def test_it_learns(unbroken):
    losses, _ = unbroken
    assert len(losses) == 40
    assert losses[0] > 5  # ln 256 = 5.5
    assert sum(losses[-5:]) / 5 < 3


def test_an_interrupted_run_has_the_losses_and_weights_of_an_unbroken_one(unbroken, tmp_path):
    losses, folder = unbroken
    assert list(islice(train(SMALL, tmp_path), 33)) == losses[:33]  # the last checkpoint is of 30
    assert list(train(SMALL, tmp_path)) == losses
    expected, got = load(folder)[1].state_dict(), load(tmp_path)[1].state_dict()
    assert all(torch.equal(got[name], x) for name, x in expected.items())


def test_an_interruption_while_it_is_written_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    config = replace(SMALL, every=2, steps=4)

    def breaks_off(state, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    losses = list(islice(train(config, tmp_path), 3))
    with monkeypatch.context() as patch:
        patch.setattr(train_hybrid.torch, "save", breaks_off)
        with pytest.raises(KeyboardInterrupt):
            list(train(config, tmp_path))
    assert len(load(tmp_path)[2]["losses"]) == 2
    assert list(train(config, tmp_path))[:3] == losses


def test_another_configuration_does_not_continue_a_run(unbroken):
    _, folder = unbroken
    with pytest.raises(ValueError, match=r"is of Config.*lr=0.01.*not of Config.*lr=0.02"):
        next(train(replace(SMALL, lr=2e-2), folder))
    with pytest.raises(ValueError, match="more than 10000000 bytes"):
        next(train(replace(SMALL, length=10**7), folder))


def test_another_text_does_not_continue_a_run(tmp_path):
    text = tmp_path / "text"
    text.write_bytes(1000 * b"a")
    config = replace(SMALL, text=str(text), steps=2, every=1)
    list(islice(train(config, tmp_path), 1))
    text.write_bytes(1000 * b"b")
    with pytest.raises(ValueError, match=r"text is not what it was when .* was begun"):
        next(train(config, tmp_path))


@pytest.mark.parametrize("option", [["--prompt", ""], ["--tokens", "0"]])
def test_decoding_needs_a_prompt_and_a_number_of_tokens(option, unbroken, capsys):
    with pytest.raises(SystemExit):
        decode.main([str(unbroken[1]), *option])
    assert "must" in capsys.readouterr().err


@pytest.mark.parametrize("mixers", train_hybrid.MIXERS)
def test_decoding_is_the_whole_sequence_read_again_with_the_memory_that_is_stated(mixers):
    model = new_model(replace(SMALL, mixers=mixers))
    prompt = b"Three memories"
    found, states = zip(*islice(decode.decode(model, prompt), 60), strict=True)
    with torch.no_grad():
        logits, _ = model(torch.tensor([[*prompt, *found]]))
    assert logits[0, len(prompt) - 1 : -1].argmax(-1).tolist() == list(found)
    *recurrent, last = zip(*([decode.bytes_of(part) for part in x] for x in states), strict=True)
    assert all(len(set(sizes)) == 1 for sizes in recurrent)
    if mixers == "recurrent":
        assert len(set(last)) == 1
    else:  # a key and a value for every token, in float32
        assert last == tuple(2 * 32 * 4 * (len(prompt) + n) for n in range(60))


def test_the_commands(tmp_path, capsys):
    train_hybrid.main([str(tmp_path), "--steps", "2", "--text", TEXT])
    decode.main([str(tmp_path), "--prompt", "A hybrid", "--tokens", "9"])
    lines = capsys.readouterr().out.splitlines()
    growth = [list(map(int, re.findall(r"\d+", line))) for line in lines[-3:]]
    assert [tokens for tokens, *_ in growth] == [8, 12, 16]
    assert [sizes[-1] for sizes in growth] == [2 * 64 * 4 * n for n in (8, 12, 16)]
    assert len({tuple(sizes[1:-1]) for sizes in growth}) == 1
