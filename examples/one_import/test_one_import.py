"""The layer on our operator, and on flash-linear-attention's where `fla-core` is installed."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from assocmem import ops

FOLDER = Path(__file__).parent
OURS = "from assocmem.ops import delta_rule as chunk_gated_delta_rule  # from fla.ops import ...\n"


def layer_with(line: str) -> Any:
    """The module, with another line in place of its import."""
    source = (FOLDER / "gated_delta_net.py").read_text()
    assert source.count(OURS) == 1
    module = ModuleType("layer")
    exec(source.replace(OURS, line), vars(module))
    return module


@torch.no_grad()
def outputs(module: Any, *pieces: Tensor, **packed: Tensor) -> tuple[Tensor, Any]:
    """Of pieces of a sequence, one after the other, by the same weights."""
    torch.manual_seed(0)
    layer = module.GatedDeltaNetLayer(32, 4).to(pieces[0])
    done, state = [], None
    for x in pieces:
        y, state = layer(x, state, **packed)
        done.append(y)
    return torch.cat(done, 1), state


def error(x: Tensor, expected: Tensor) -> float:
    return float((x - expected).norm() / expected.norm())


def tokens(B: int, T: int) -> Tensor:
    return torch.randn(B, T, 32, generator=torch.Generator().manual_seed(1))


def test_ours_takes_the_same_names_and_gives_the_recurrence():
    ours, x = layer_with(OURS), tokens(2, 100)
    y, S = outputs(ours, *x.split([70, 30], 1))
    definition = layer_with(OURS)
    definition.chunk_gated_delta_rule = partial(ops.delta_rule, backend="recurrent")
    expected, expected_S = outputs(definition, x.double())
    assert error(y, expected) <= 2e-6
    assert error(S, expected_S) <= 2e-6
    borders = torch.tensor([0, 40, 100])
    packed, S = outputs(ours, x[:1], cu_seqlens=borders)
    assert S.shape == (2, 4, 8, 8)
    assert error(packed[:, 40:], outputs(ours, x[:1, 40:])[0]) <= 2e-6


def test_theirs_gives_the_same():
    """Their reference on a CPU, and their kernel on a GPU."""
    pytest.importorskip("fla", reason="fla-core is missing")
    on_gpu = torch.cuda.is_available()
    x = tokens(2, 100).to("cuda" if on_gpu else "cpu")
    theirs = layer_with("from fla.ops import chunk_gated_delta_rule\n")
    if not on_gpu:
        naive = pkgutil.resolve_name(
            "fla.ops.gated_delta_rule.naive:naive_recurrent_gated_delta_rule"
        )
        theirs.chunk_gated_delta_rule = lambda cu_seqlens, **call: naive(**call)
    y, S = outputs(theirs, *x.split([70, 30], 1))
    expected, expected_S = outputs(layer_with(OURS), x)
    bound = 5e-3 if on_gpu else 2e-6  # their kernels multiply in TF32
    assert error(y, expected) <= bound
    assert error(S, expected_S) <= bound


STATE = dict(initial_state=None, output_final_state=True)
COMMON = dict(q=0, k=0, v=0, cu_seqlens=None)
# (theirs, ours, the arguments that mean the same in both)
PAIRS = [
    *[("linear_attn", f"{form}_linear_attn", ops.linear_attention, ("scale", "normalize"), STATE)
      for form in ("chunk", "fused_recurrent")],
    *[("simple_gla", f"{form}_simple_gla", ops.linear_attention, ("g", "scale"), STATE)
      for form in ("chunk", "fused_recurrent")],
    ("gla", "chunk_gla", ops.linear_attention, ("g", "scale"), STATE),
    ("gla", "fused_recurrent_gla", ops.linear_attention, ("scale",), STATE),
    *[("delta_rule", f"{form}_delta_rule", ops.delta_rule, ("beta", "scale"), STATE)
      for form in ("chunk", "fused_recurrent")],
    *[(f"{rule}", f"{form}_{rule}", ops.delta_rule, ("beta", "g", "scale"), STATE)
      for rule in ("gated_delta_rule", "kda") for form in ("chunk", "fused_recurrent")],
    ("attn", "parallel_attn", ops.softmax_attention, ("g", "scale"), {}),
    ("forgetting_attn", "parallel_forgetting_attn", ops.softmax_attention, ("g", "scale"), {}),
]  # fmt: skip


def calls() -> Iterator[tuple[str, Callable, dict]]:
    """Their function, ours, and a call by name that is meant for both."""
    for folder, name, ours, more, state in PAIRS:
        yield f"fla.ops.{folder}:{name}", ours, {**COMMON, **dict.fromkeys(more, 0), **state}


def test_ours_take_the_names():
    for _, ours, call in calls():
        inspect.signature(ours).bind(**call)


def test_theirs_take_the_names():
    pytest.importorskip("fla", reason="fla-core is missing")
    for place, _, call in calls():
        theirs = inspect.signature(pkgutil.resolve_name(place))
        assert set(call) <= set(theirs.parameters), place  # not into their **kwargs


def test_the_table_lists_every_pair():
    table = (FOLDER / "README.md").read_text()
    for _, name, ours, *_ in PAIRS:
        (row,) = (line for line in table.splitlines() if f"`{name}`" in line)
        assert f"`{ours.__name__}`" in row.split("|")[2]
