"""Whole numbers leave no room for rounding: every matrix product must be right to the bit.

On a GPU every kernel that is launched in its configuration for that GPU, with heads of 64 and 128
and in all precisions. No number that a kernel rounds grows past 256, the last that bfloat16 counts
to. A decay keeps everything or nothing.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.kernels.test_scans import DEVICE, run
from tests.ops.inputs import GATES, Inputs
from tests.ops.operators import OPERATORS

pytest.importorskip("triton", reason="triton is missing")
from assocmem_kernels import deltaformer as kernels

ON_GPU = DEVICE == "cuda"
SIZES = (64, 128) if ON_GPU else (32,)
DTYPES = (torch.float32, torch.float16, *(torch.bfloat16,) * ON_GPU)
T, H = (150, 2) if ON_GPU else (36, 1)  # chunks have 16 to 64 tokens


def integers(low: int, high: int, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high + 1, shape, generator=generator).float()


def one_entry(*shape: int, seed: int = 0) -> Tensor:
    """Vectors with one entry, 1 or −1: with other keys a memory that corrects itself would grow."""
    *rows, D = shape
    sign = 2 * integers(0, 1, *rows, 1, seed=seed + 1) - 1
    return sign * torch.eye(D)[integers(0, D - 1, *rows, seed=seed).long()]


def scan_inputs(name: str, gate: str, T: int, D: int) -> Inputs:
    q, k, v, do = (integers(-1, 1, 1, T, H, D, seed=seed) for seed in range(4))
    S, dS = (integers(-1, 1, 1, H, D, D, seed=seed) for seed in (4, 5))
    beta = None
    if name == "delta":
        k, beta = one_entry(1, T, H, D), integers(0, 2, 1, T, H, seed=6)
        # Three of four are 0, as corrections are larger than values.
        dense = enumerate((v, do, S, dS), 7)
        v, do, S, dS = (x * (integers(0, 3, *x.shape, seed=seed) == 0) for seed, x in dense)
    shape = {"none": None, "head": (1, T, H), "channel": (1, T, H, D)}[gate]
    g = None
    if shape:
        g = torch.zeros(shape)
        g[:, T // 3 :: 29] = -torch.inf  # a memory that is cleared
    return Inputs(q, k, v, g, S, do, dS, beta)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("D", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("T", [1, T])
def test_scans(name, gate, D, dtype, T):
    inputs = scan_inputs(name, gate, T, D)
    expected = inputs.run(OPERATORS[name].reference, torch.float64, scale=1.0)
    got = run(name, inputs, dtype, scale=1.0)
    for what in expected.keys() - {"dg"}:
        assert torch.equal(got[what], expected[what].to(got[what].dtype)), what


@pytest.mark.parametrize("erase", ["linear", "relu"])
@pytest.mark.parametrize("D", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_deltaformer(erase, D, dtype):
    """What it writes; what reads it is PyTorch's, and its softmax gives no whole numbers."""
    k = one_entry(1, T, H, D)
    w = k if erase == "linear" else one_entry(1, T, H, D, seed=2)
    v, du = (integers(-1, 1, 1, T, H, D, seed=seed) for seed in (3, 4))
    beta = integers(0, 1, 1, T, H, seed=5)

    def definition(w, k, v, beta):
        P = torch.einsum("bthd,bshd->bhts", w, k).tril(-1)
        P = P.relu() if erase == "relu" else P
        system = torch.eye(T).to(P) + beta.mT[..., None] * P
        u = torch.linalg.solve_triangular(system, v.transpose(1, 2), upper=False)
        return u.transpose(1, 2)

    def fused(w, k, v, beta):
        past = v[:, :0]
        return kernels.deltaformer(w, k, v, beta, past, 1.0, erase)[0]

    def run(operator, *tokens):
        leaves = [x.clone().requires_grad_() for x in tokens]
        u = operator(*leaves)
        return [u.detach(), *torch.autograd.grad(u, leaves, du.to(u))]

    expected = run(definition, w.double(), k.double(), v.double(), beta.double())
    half = [x.to(DEVICE, dtype) for x in (w, k, v)]
    got = run(fused, *half, beta.to(DEVICE))
    for what, x, y in zip(("u", "dw", "dk", "dv", "dbeta"), got, expected, strict=True):
        assert torch.equal(x.cpu(), y.to(x.dtype)), what
