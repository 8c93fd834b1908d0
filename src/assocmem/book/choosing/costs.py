"""What designs cost, counted: bytes while decoding, operations while training."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from assocmem import nn
from assocmem.book.choosing.designs import Model, Row, parameters
from assocmem.ops.strips import solve_strips, solve_strips_backward


@torch.no_grad()
def decoding(model: Model, T: int) -> Row:
    """What one more token costs after T tokens, counted at batch size 1, float32.

    Bytes that move: the weights and the state, which are read, and what is written: the whole of
    a state that does not grow, one entry of a cache that does.
    """
    state_bytes = moved = 0
    x = torch.zeros(1, T, model.embedding.embedding_dim)
    for block in model.blocks:
        _, before = block(x)
        _, after = block(x[:, :1], before)
        held, growth = (nn.state_bytes(s) for s in (before, after))
        growth -= held
        state_bytes += held
        moved += held + (growth or held)
    return {"T": T, "state_bytes": state_bytes, "moved_bytes": 4 * parameters(model.blocks) + moved}


class Inside:
    """Counts the matrix products inside an operator that PyTorch sees as one."""

    _get_raw = True  # the counter hands over tensors, not their shapes

    def __init__(self, operator: Any) -> None:
        self.operator = operator

    def __call__(self, *inputs: Any, out_val: Any = None) -> int:
        """Run it once more, and count."""
        with products() as counter:
            self.operator._init_fn(*inputs)
        return counter.get_total_flops()


def products() -> FlopCounterMode:
    """A counter of the operations of matrix products, those of DeltaFormer's operators too."""
    known: dict[Any, Any] = {
        op._opoverload._overloadpacket: Inside(op) for op in (solve_strips, solve_strips_backward)
    }
    known[torch.ops.aten.baddbmm_] = lambda _, a, b, **rest: 2 * prod(a) * b[-1]  # of shapes
    return FlopCounterMode(display=False, custom_mapping=known)


def costs(config: Row, design: str) -> Row:
    """What the blocks of a design cost, counted: weights, decoding, and a step of training.

    A step of training is forward and backward, on the batch that the configuration names. Its
    operations are those of matrix products, two for a multiplication and its addition; solving
    triangular systems is left out. Attention is counted in its plain form, two products forward
    and four backward: PyTorch's counter does not see into the fused one of a CPU.
    """
    at = config["costs"]
    torch.manual_seed(0)
    model = Model(config["model"], config["designs"][design], vocab_size=1)
    x = torch.zeros(at["batch"], at["length"], config["model"]["d_model"])
    with products() as counter, sdpa_kernel(SDPBackend.MATH):
        for block in model.blocks:
            x, _ = block(x)
        x.sum().backward()
    return {
        "parameters": parameters(model.blocks),
        "decoding": [decoding(model, T) for T in at["decoded"]],
        "step_flops": counter.get_total_flops(),
    }
