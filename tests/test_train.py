"""The training loop: what it does at each step, that a seed decides, and that it can be silent."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from assocmem.train import train


def line(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 1).double()


def noisy(model: nn.Module):
    """The loss of a linear regression on a batch of its own."""

    def loss(generator: torch.Generator) -> Tensor:
        x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
        return (model(x)[:, 0] - 100 * x[:, 0]).square().mean()

    return loss


def by_hand(model: nn.Module, steps: int, lr: float, seed: int) -> list[float]:
    """AdamW, written down again: β = (0.9, 0.999), ε = 10⁻⁸, weight decay 0.01."""
    loss, losses = noisy(model), []
    generator = torch.Generator().manual_seed(seed)
    weights = list(model.parameters())
    mean = [torch.zeros_like(w) for w in weights]
    power = [torch.zeros_like(w) for w in weights]
    for s in range(steps):
        value = loss(generator)
        losses.append(value.item())
        gradients = torch.autograd.grad(value, weights)
        length = math.sqrt(sum(g.square().sum().item() for g in gradients))
        rate = lr * (1 + math.cos(math.pi * s / steps)) / 2
        with torch.no_grad():
            for w, g, m, p in zip(weights, gradients, mean, power, strict=True):
                g = g * min(1.0, 1 / (length + 1e-6))
                m.mul_(0.9).add_(0.1 * g)
                p.mul_(0.999).add_(0.001 * g.square())
                w.mul_(1 - rate * 0.01)
                m_hat, p_hat = m / (1 - 0.9 ** (s + 1)), p / (1 - 0.999 ** (s + 1))
                w.sub_(rate * m_hat / (p_hat.sqrt() + 1e-8))
    return losses


def test_every_step_is_as_documented():
    ours, theirs = line(), line()
    lr = torch.tensor(0.05, dtype=torch.float64)
    losses = train(ours, noisy(ours), 12, lr=lr, seed=3, silent=True)
    assert lr == 0.05  # the schedule's steps are not the caller's
    assert losses == pytest.approx(by_hand(theirs, 12, 0.05, 3), rel=1e-12)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=0)


def test_the_seed_decides_the_batches():
    def losses(seed: int) -> list[float]:
        model = line()
        return train(model, noisy(model), 3, seed=seed, silent=True)

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_progress_is_shown_unless_silent(capsys):
    model = line()
    train(model, noisy(model), 2, silent=True)
    assert capsys.readouterr() == ("", "")
    train(model, noisy(model), 2)
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "2/2" in shown
    assert "loss=" in shown


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"loss": 3}, TypeError, "loss must be a function of a generator, got int"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": 1.0}, TypeError, "steps must be an integer, got float"),
        ({"model": None}, TypeError, r"model must be a torch\.nn\.Module, got NoneType"),
        ({"seed": 2**64}, ValueError, r"seed must be below 2 \*\* 64"),
        ({"seed": None}, TypeError, "seed must be an integer, got NoneType"),
        ({"lr": -1.0}, ValueError, "lr must be finite and > 0, got -1.0"),
    ],
)
def test_bad_input_is_named(change, error, message):
    model = line()
    with pytest.raises(error, match=message):
        train(**({"model": model, "loss": noisy(model), "steps": 1} | change))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0.5, TypeError, r"loss must return a torch\.Tensor, got float"),
        (torch.zeros(2), ValueError, r"loss must return a scalar, got shape \[2\]"),
        (torch.zeros(()), ValueError, "loss must return a scalar with a gradient"),
    ],
)
def test_a_loss_that_is_no_scalar_is_named(value, error, message):
    with pytest.raises(error, match=message):
        train(line(), lambda _: value, steps=1, silent=True)


def test_a_loss_that_is_not_finite_leaves_the_model_as_it_was():
    model = line()
    before = model.state_dict()["weight"].clone()
    with pytest.raises(ValueError, match="loss must be finite, got nan at step 0"):
        train(model, lambda _: model.weight.sum() * math.nan, steps=1, silent=True)
    with pytest.raises(ValueError, match="loss must have a finite gradient, got nan at step 0"):
        train(model, lambda _: (0 * model.weight).sum().abs().sqrt(), steps=1, silent=True)
    assert torch.equal(model.weight, before)
