"""Facts that nothing relates to each other: whatever answers them has stored them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from assocmem.arguments import check_counts, check_device, check_finite, check_floats
from assocmem.capacity.vectors import sphere
from assocmem.tasks.uniform import integers


class Facts(NamedTuple):
    """Facts for a memory that is asked with vectors.

    Args:
        inputs: the vector that asks for each fact `[N, d_model]`, of length √d_model.
        labels: which of the answers is right `[N]`, int64.
        answers: the vectors to choose from `[n_answers, d_model]`, of length √d_model.
    """

    inputs: Tensor
    labels: Tensor
    answers: Tensor

    def accuracy(self, outputs: Tensor) -> float:
        """Share of the outputs `[N, d_model]` whose largest dot product is with their answer.

        Raises:
            TypeError: when outputs is not a tensor in the dtype of the answers.
            ValueError: when it is not `[N, d_model]`, on another device, or not finite.
        """
        check_floats(answers=self.answers, outputs=outputs)
        if outputs.shape != self.inputs.shape:
            raise ValueError(
                f"outputs must have shape [N, d_model] = {list(self.inputs.shape)}, "
                f"got {list(outputs.shape)}"
            )
        check_device("outputs", outputs, self.answers, "answers")
        check_finite("outputs", outputs)
        return ((outputs @ self.answers.mT).argmax(-1) == self.labels).double().mean().item()


def fact_storage(
    n_facts: int,
    d_model: int,
    n_answers: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> Facts:
    """Random facts: inputs and answers uniform on a sphere, labels uniform.

    Nothing relates one fact to another, so that whatever answers them has stored them.

    Args:
        n_facts: facts N.
        d_model: size of the vectors.
        n_answers: answers to choose from.
        generator: the source of randomness.
        dtype: floating-point type of the vectors.

    Returns:
        `Facts`.

    Raises:
        TypeError, ValueError: when a size is not an integer >= 1, generator is not a
            `torch.Generator`, or dtype is not a floating dtype.

    Example:
        >>> import torch
        >>> from assocmem import tasks
        >>> generator = torch.Generator().manual_seed(0)
        >>> facts = tasks.fact_storage(100, d_model=16, n_answers=8, generator=generator)
        >>> facts.inputs.shape, facts.labels.shape, facts.answers.shape
        (torch.Size([100, 16]), torch.Size([100]), torch.Size([8, 16]))
    """
    check_counts(n_facts=n_facts, d_model=d_model, n_answers=n_answers)
    inputs = d_model**0.5 * sphere(n_facts, d_model, generator, dtype)
    answers = d_model**0.5 * sphere(n_answers, d_model, generator, dtype)
    labels = integers(n_answers, n_facts, generator=generator)
    return Facts(inputs, labels, answers)
