"""The scans, each with its definition and its inputs, for tests of what they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from assocmem import ops
from tests.ops import reference
from tests.ops.inputs import GATES, Inputs, delta_inputs, random_inputs
from tests.ops.reference import relative_error


@dataclass(frozen=True)
class Operator:
    """A scan: the public function, its recurrence in float64, random inputs, names of tokens."""

    function: Callable
    reference: Callable
    inputs: Callable[..., Inputs]
    arguments: tuple[str, ...]

    def run(self, inputs: Inputs, dtype: torch.dtype, backend: str, **options) -> dict[str, Tensor]:
        """Outputs and gradients of the library's operator."""
        options = {"output_final_state": True, "backend": backend, **options}
        return inputs.run(self.function, dtype, **options)

    def expected(self, inputs: Inputs) -> dict[str, Tensor]:
        """The same by the recurrence in float64."""
        return inputs.run(self.reference, torch.float64)


LINEAR = Operator(ops.linear_attention, reference.linear_attention, random_inputs, ("q", "k", "v"))
DELTA = Operator(ops.delta_rule, reference.delta_rule, delta_inputs, ("q", "k", "v", "beta"))
OPERATORS = {"linear": LINEAR, "delta": DELTA}
TORCH_2_6 = torch.__version__.startswith("2.6.")
# Every argument of every operator with every gate: (operator, gate, argument).
ARGUMENTS = [(op, gate, x) for op in OPERATORS for gate in GATES for x in OPERATORS[op].arguments]
ARGUMENTS += [(op, gate, "g") for op in OPERATORS for gate in ("head", "channel")]


def worst(got: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[float, str]:
    """The largest relative error, and of what."""
    return max((relative_error(got[name], expected[name]), name) for name in expected)
