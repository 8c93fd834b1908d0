"""Layers and models on split sequences give what they give on whole ones, gradients included."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves

from assocmem.nn import DeltaFormer, GatedDeltaNet, SequenceModel, SoftmaxAttention
from tests.distributed.ranks import on_ranks
from tests.nn.test_mixers import MIXERS, layer, tokens
from tests.ops.reference import relative_error

SPLIT_MIXERS = [name for name in MIXERS if not name.startswith("DeltaFormer")]
ROUNDS = [(1, 0, 5, 9), (8, 2, 1, 4)]  # tokens a rank: fewer than a convolution sees, and none
HYBRID = [GatedDeltaNet, partial(SoftmaxAttention, rotary=True)]


def in_rounds(module, x: Tensor, group) -> tuple[list[Tensor], object]:
    """Outputs for this rank's tokens of each round, then of a step; the state goes on."""
    state, outputs, end = None, [], 0
    for pieces in ROUNDS:
        start, end = end, end + sum(pieces)
        if group is None:
            rows = slice(start, end)
        else:
            rank = dist.get_rank(group)
            rows = slice(start + sum(pieces[:rank]), start + sum(pieces[: rank + 1]))
        y, state = module(x[:, rows], state, group=group)
        outputs.append(y)
    y, state = module.step(x[:, end], state)
    return [*outputs, y], state


def gradients(outputs: list[Tensor], module, share: float) -> list[Tensor]:
    """Of a sum of squares, in which the last output, which every rank has, counts by a share."""
    loss = sum(y.square().sum() for y in outputs[:-1]) + share * outputs[-1].square().sum()
    return list(torch.autograd.grad(loss, list(module.parameters()), retain_graph=True))


def check_module(module, x: Tensor) -> None:
    """Two rounds of pieces on four ranks, and a step."""
    rank, group = dist.get_rank(), dist.group.WORLD
    whole, final = in_rounds(module, x, None)
    mine, state = in_rounds(module, x, group)
    for y, expected, pieces in zip(mine, whole, [*ROUNDS, None], strict=True):
        if pieces is not None:
            expected = expected[:, sum(pieces[:rank]) : sum(pieces[: rank + 1])]
        torch.testing.assert_close(y, expected, rtol=1e-11, atol=1e-11)
    for part, expected in zip(tree_leaves(state), tree_leaves(final), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-11, atol=1e-11)
    for first in (0, 1, 2):  # also where only later outputs count
        got = gradients(mine[first:], module, 1 / 4)
        for x, expected in zip(got, gradients(whole[first:], module, 1), strict=True):
            dist.all_reduce(x)  # the gradient of a weight is the sum over the ranks
            assert relative_error(x, expected) <= 1e-11


def check_wrapped(rank: int, mesh) -> None:
    """DDP and fully_shard over data x sequence ranks have the gradient of the mean loss."""
    generator = torch.manual_seed(0)
    model = SequenceModel(20, 16, 2, HYBRID).double()
    text = torch.randint(20, (4, 17), generator=generator)
    loss(model(text[:, :-1])[0], text[:, 1:]).backward()
    expected = [p.grad for p in model.parameters()]

    replicated, sharded = copy.deepcopy(model), copy.deepcopy(model)
    for block in sharded.blocks:
        fully_shard(block)
    fully_shard(sharded)
    data, piece = mesh.get_coordinate()
    rows, columns = slice(2 * data, 2 * data + 2), slice(8 * piece, 8 * piece + 9)
    x, y = text[rows, columns][:, :-1], text[rows, columns][:, 1:]
    for wrapped in (DistributedDataParallel(replicated), sharded):
        wrapped.zero_grad()
        loss(wrapped(x, group=mesh.get_group("sequence"))[0], y).backward()
        for p, grad in zip(wrapped.parameters(), expected, strict=True):
            got = p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad
            assert relative_error(got, grad) <= 1e-11, type(wrapped)


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(logits.flatten(0, 1), targets.flatten())


def check_packed(module, x: Tensor) -> None:
    """Packed sequences on four ranks, of which the second lies on three."""
    rank, pieces, cu_seqlens = dist.get_rank(), (3, 0, 9, 8), torch.tensor([0, 2, 16, 16, 20])
    whole, final = module(x, cu_seqlens=cu_seqlens)
    rows = slice(sum(pieces[:rank]), sum(pieces[: rank + 1]))
    y, state = module(x[:, rows], group=dist.group.WORLD, cu_seqlens=cu_seqlens)
    torch.testing.assert_close(y, whole[:, rows], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(state, final, rtol=1e-11, atol=1e-11)


def check_everything(rank: int) -> None:
    for name in SPLIT_MIXERS:
        check_module(layer(name), tokens(2, 40))
    for name in ("linear attention", "retention", "gated linear attention"):
        check_packed(layer(name), tokens(1, 20))
    torch.manual_seed(0)
    model = SequenceModel(20, 16, 2, HYBRID).double()
    check_module(model, torch.randint(20, (2, 40), generator=torch.Generator().manual_seed(1)))
    check_wrapped(rank, init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "sequence")))


def test_split_layers_and_models_equal_whole_ones():
    on_ranks(4, check_everything)


@pytest.mark.parametrize("name", ["DeltaNet", "DeltaProduct", "KDA", "softmax attention"])
def test_layers_say_that_they_cannot_split_packed_sequences(name):
    x, cu_seqlens = tokens(1, 10), torch.tensor([0, 4, 10])
    with pytest.raises(NotImplementedError, match=r"takes no .* with a group"):
        layer(name)(x, group=object(), cu_seqlens=cu_seqlens)
    if name == "softmax attention":
        _, state = layer(name)(x, cu_seqlens=cu_seqlens)
        with pytest.raises(NotImplementedError, match="packed sequences with a group"):
            layer(name)(tokens(2, 3), state, group=object())


def test_deltaformer_says_that_it_cannot_be_split():
    told = r"DeltaFormer takes no group: each of its corrections .* All other mixers take one"
    with pytest.raises(NotImplementedError, match=told):
        DeltaFormer(8, 2)(torch.randn(1, 3, 8), group=object())
