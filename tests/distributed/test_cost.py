"""The model of what splitting costs, against the bytes that are sent and the work that is done."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from assocmem import distributed, ops
from assocmem.distributed import (
    Link,
    attention_traffic,
    break_even,
    convolution_traffic,
    scan_traffic,
    scan_work,
    split_seconds,
)
from assocmem.nn import GatedDeltaNet, LinearAttention, SoftmaxAttention
from tests.distributed.ranks import on_ranks

B, H, K, V, WORLD = 2, 3, 4, 8, 3
COST = {"token_seconds": 1e-6, "exchange": 1e-3, "scan_share": 0.5, "work": 3.0}


class Sent(TorchDispatchMode):
    """Bytes that this rank sends to each of the others, in all collectives."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            self.bytes += self.of(func.__name__, args)
        return func(*args, **(kwargs or {}))

    def of(self, name: str, args) -> int:
        if name.startswith("allgather_."):
            return args[1][0].nbytes
        if name.startswith("allreduce_."):  # by a ring: a sum of every part, then the parts
            return 2 * args[0][0].nbytes // WORLD
        raise NotImplementedError(name)


def measured(layer, T: int) -> tuple[int, int]:
    """Bytes a pair of ranks, forward and backward."""
    x = torch.randn(B, T, 24, dtype=layer.q_proj.weight.dtype)
    with Sent() as forward:
        y, _ = layer(x, group=dist.group.WORLD)
    with Sent() as backward:
        y.sum().backward()
    return forward.bytes, backward.bytes


def added(*traffic: tuple[int, int]) -> tuple[int, int]:
    return sum(t[0] for t in traffic), sum(t[1] for t in traffic)


def work_of(operator, T: int, *rest, **options) -> int:
    q, v = torch.randn(1, T, 1, 32), torch.randn(1, T, 1, 64)
    with FlopCounterMode(display=False) as counter:
        operator(q, q, v, *(x.expand(1, T, 1) for x in rest), **options)
    return counter.get_total_flops()


def check_costs(rank: int) -> None:
    sizes = {"d_key": K, "d_value": V}
    scan = scan_traffic(H, K, V, batch=B)
    convolution = convolution_traffic(H * (2 * K + V), batch=B)
    normalised = scan_traffic(H, K, V + 1, batch=B)
    for T in (5, 50):
        assert measured(GatedDeltaNet(24, H, **sizes), T) == added(scan, convolution)
        assert measured(LinearAttention(24, H, **sizes), T) == normalised
        attention = attention_traffic(T, H, K, V, batch=B)
        assert measured(SoftmaxAttention(24, H, **sizes), T) == attention
        shared = attention_traffic(T, 1, K, V, batch=B)
        assert measured(SoftmaxAttention(24, H, n_kv_heads=1, **sizes), T) == shared
    scan = scan_traffic(H, K, V, batch=B, itemsize=8)
    convolution = convolution_traffic(H * (2 * K + V), 6, batch=B, itemsize=8)
    wide = GatedDeltaNet(24, H, conv_width=6, **sizes)
    assert measured(wide.double(), 5) == added(scan, convolution)
    attention = attention_traffic(5, H, K, V, batch=B, itemsize=8)
    assert measured(SoftmaxAttention(24, H, **sizes).double(), 5) == attention
    one = torch.ones(())
    for operator, rest in (("linear_attention", ()), ("delta_rule", (one,))):
        whole = work_of(getattr(ops, operator), 1024, *rest)
        split = work_of(getattr(distributed, operator), 1024, *rest)
        assert 0.95 * scan_work(32, 64) <= split / whole <= scan_work(32, 64)


def test_bytes_and_work_are_those_of_the_model():
    on_ranks(WORLD, check_costs)


def test_a_ring_takes_all_ranks_but_one_steps():
    assert Link(bandwidth=100.0, latency=0.5).seconds(50, ranks=3) == 2 * (0.5 + 0.5)
    assert Link(bandwidth=100.0).seconds(50, ranks=1) == 0


def test_splitting_pays_from_the_break_even_on():
    for ranks in (3, 8):
        T = break_even(ranks, **COST)
        assert split_seconds(round(T), ranks, **COST) == pytest.approx(T * 1e-6, rel=1e-3)
        assert split_seconds(2 * round(T), ranks, **COST) < split_seconds(2 * round(T), 1, **COST)
    assert break_even(2, **COST) == float("inf")  # two ranks, each with twice the work


def test_what_is_not_possible_says_so():
    with pytest.raises(ValueError, match="bandwidth must be finite and > 0"):
        Link(bandwidth=0.0)
    with pytest.raises(ValueError, match="latency must be finite and >= 0"):
        Link(bandwidth=1.0, latency=-1.0)
    with pytest.raises(ValueError, match="ranks must be at least 1, got 0"):
        Link(1.0).seconds(8, 0)
    with pytest.raises(ValueError, match="size must be finite and >= 0, got -8"):
        Link(1.0).seconds(-8, 2)
    for wrong, message in (
        ({"exchange": -1.0}, "exchange must be finite and >= 0, got -1.0"),
        ({"work": float("nan")}, "work must be finite and > 0, got nan"),
        ({"scan_share": 1.5}, "scan_share must lie in"),
        ({"token_seconds": 0.0}, "token_seconds must be finite and > 0"),
    ):
        for function in (partial(break_even, 3), partial(split_seconds, 8, 3)):
            with pytest.raises(ValueError, match=message):
                function(**(COST | wrong))
    with pytest.raises(ValueError, match="ranks must be at least 2"):
        break_even(1, **COST)
    for count in (
        partial(scan_traffic, 0, 4, 4),
        partial(convolution_traffic, 0),
        partial(attention_traffic, 0, 1, 4, 4),
        partial(scan_work, 0, 4),
        partial(split_seconds, 0, 2, **COST),
    ):
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            count()
