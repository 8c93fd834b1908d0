"""Scores with a decay a channel, of keys and gradients of very different sizes."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.test_scans import DEVICE
from tests.ops.reference import relative_error

pytest.importorskip("triton", reason="triton is missing")

from assocmem_kernels.channel_decay import channel_decay, channel_decay_backward
from assocmem_kernels.chunks import chunk_table

T, K, STRONG = 16, 64, 3  # two slices of channels, one of them without strong decays


def scores(q, k, g):
    """The definition: A_ts = Σ_c q_tc k_sc exp(Σ_{s<r≤t} g_rc) for s ≤ t."""
    G, earlier = g.cumsum(1)[:, :, 0], torch.ones(T, T).tril().bool()
    D = torch.where(earlier[..., None], G[:, :, None] - G[:, None], -torch.inf)
    return torch.einsum("bthc,bshc,btsc->bths", q, k, D.exp())


def assert_right(dtype, size, total, device):
    """In float32 1e15 exp(74) is infinite and 1e-15 exp(-74) is 0: a factor has half of a decay.

    dg is a difference of sums that are much larger than it where decays are strong.
    """
    gen = torch.Generator().manual_seed(0)
    q, k, dA, dM = (torch.randn(1, T, 1, d, generator=gen) for d in (K, K, T, T))
    g = torch.full((1, T, 1, K), -0.1)
    g[..., STRONG] = total / (T - 1)
    q[..., STRONG] /= size
    k[..., STRONG] *= size
    dM /= size  # so that k gets as much from M, of k and k, as q from A
    tokens = (q.to(dtype), k.to(dtype), g)
    wide = [x.double().requires_grad_() for x in tokens]
    q, k, g = wide
    expected = scores(q, k, g), scores(k, k, g)
    torch.autograd.backward(expected, (1e-6 * dA.double(), 1e-6 * dM.double()))

    tokens = [x.to(device) for x in tokens]
    chunks = chunk_table(torch.tensor([0, T], device=device), T, T)
    A, M, *_ = channel_decay(*tokens, chunks, torch.float32)
    for got, exact in zip((A, M), expected, strict=True):
        assert relative_error(got.cpu(), exact.detach()) <= 1e-6
    none = [torch.zeros(x.shape, device=device) for x in (k, k, k, k[:, 0])]  # from the states
    dA, dM = 1e-6 * dA.to(device), 1e-6 * dM.to(device)
    grads = channel_decay_backward(*tokens, dA, dM, *none, chunks)
    own = 1e-6 if dtype == torch.float32 else 1e-3  # of bfloat16 one in a column may lie next to it
    for x, grad, bound in zip(wide, grads, (own, own, 1e-3), strict=True):
        exact = x.grad.to(grad.dtype).cpu()
        for c in (0, STRONG, K - 1):  # together the large ones would hide what the others are
            assert relative_error(grad[..., c].cpu(), exact[..., c].double()) <= bound


SIZES, TOTALS = [1e15, 1.0, 1e-15], [-74.0, -300.0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("total", TOTALS)
@pytest.mark.parametrize("dtype", [torch.float32] + [torch.bfloat16] * (DEVICE == "cuda"))
def test_strong_decays_of_large_and_small_keys(dtype, size, total):
    """In bfloat16, which Triton's interpreter does not multiply, without a GPU: `test_ptx.py`."""
    assert_right(dtype, size, total, DEVICE)
