"""One small training loop, for models that fit on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from assocmem.arguments import check_count, check_positive, check_seed

__all__ = ["train"]


def train(
    model: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    steps: int,
    *,
    lr: float = 3e-3,
    seed: int = 0,
    silent: bool = False,
) -> list[float]:
    """Minimise a loss with AdamW, a learning rate that falls as a cosine, and clipped gradients.

    Step s of S has the learning rate lr · (1 + cos(πs/S))/2; gradients longer than 1 are scaled
    to length 1. All parameters have AdamW's weight decay of 0.01, including those of norms and
    decays, which larger models leave out. The model starts from the weights that it has, so seed
    torch before making it.

    Args:
        model: what is trained, in place.
        loss: draws a batch from the generator that it is given, and returns the model's loss on
            it, a scalar with a gradient.
        steps: how many steps S to take.
        lr: learning rate of the first step.
        seed: of the generator, so that equal calls see equal batches.
        silent: show no progress bar.

    Returns:
        The loss at each step, before it is taken.

    Raises:
        TypeError, ValueError: when model is not a module, loss not a function, steps not an integer
            >= 1, seed not an integer from 0 to 2 ** 64 − 1, lr not finite and > 0, or what loss
            returns is not a finite scalar with a finite gradient. The model is then as after the
            last step.

    Example:
        >>> import torch
        >>> from assocmem.train import train
        >>> model = torch.nn.Linear(4, 1)
        >>> def loss(generator):
        ...     x = torch.randn(32, 4, generator=generator)
        ...     return (model(x).squeeze(1) - x.sum(1)).square().mean()
        >>> losses = train(model, loss, steps=50, lr=0.1, silent=True)
        >>> len(losses), losses[-1] < losses[0] / 10
        (50, True)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not callable(loss):
        raise TypeError(f"loss must be a function of a generator, got {type(loss).__name__}")
    check_count("steps", steps)
    check_seed(seed, bits=64)
    check_positive("lr", lr)
    from tqdm import trange  # so that a wheel without its dependencies can be imported

    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), float(lr))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses: list[float] = []
    for step in (bar := trange(steps, desc="training", disable=silent)):
        value = loss(generator)
        check_loss(value, step)
        optimizer.zero_grad()
        value.backward()
        length = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not length.isfinite():
            raise ValueError(f"loss must have a finite gradient, got {length} at step {step}")
        optimizer.step()
        schedule.step()
        losses.append(value.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
    return losses


def check_loss(loss: Tensor, step: int) -> None:
    """Raise unless what a loss returned is a tensor of one finite number with a gradient."""
    if not isinstance(loss, Tensor):
        raise TypeError(f"loss must return a torch.Tensor, got {type(loss).__name__}")
    if loss.ndim != 0:
        raise ValueError(f"loss must return a scalar, got shape {list(loss.shape)}")
    if not loss.requires_grad:
        raise ValueError("loss must return a scalar with a gradient, got one that has none")
    if not loss.isfinite():
        raise ValueError(f"loss must be finite, got {loss.item()} at step {step}")
