"""Scores with a decay a channel, of keys and gradients of very different sizes."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.test_scans import DEVICE
from tests.ops.reference import relative_error

pytest.importorskip("triton", reason="triton is missing")

from assocmem_kernels.channel_scores import channel_scores, channel_scores_backward
from assocmem_kernels.chunks import chunk_table

T, K, STRONG = 16, 32, 3


def scores(q, k, g):
    """The definition: A_ts = Σ_c q_tc k_sc exp(Σ_{s<r≤t} g_rc) for s ≤ t."""
    G, earlier = g.cumsum(1)[:, :, 0], torch.ones(T, T).tril().bool()
    D = torch.where(earlier[..., None], G[:, :, None] - G[:, None], -torch.inf)
    return torch.einsum("bthc,bshc,btsc->bths", q, k, D.exp())


@pytest.mark.parametrize("size", [1e15, 1.0, 1e-15])
@pytest.mark.parametrize("total", [-74.0, -300.0])
def test_strong_decays_of_large_and_small_keys(size, total):
    """In float32 1e15 exp(74) is infinite and 1e-15 exp(-74) is 0: a factor has half of a decay.

    dg is a difference of sums that are much larger than it where decays are strong.
    """
    gen = torch.Generator().manual_seed(0)
    q, k, dA = (torch.randn(1, T, 1, d, generator=gen) for d in (K, K, T))
    g = torch.full((1, T, 1, K), -0.1)
    g[..., STRONG] = total / (T - 1)
    q[..., STRONG] /= size
    k[..., STRONG] *= size
    tokens = (q.bfloat16(), k.bfloat16(), g)
    wide = [x.double().requires_grad_() for x in tokens]
    expected = scores(*wide)
    expected.backward(1e-6 * dA.double())

    tokens = [x.to(DEVICE) for x in tokens]
    chunks = chunk_table(torch.tensor([0, T], device=DEVICE), T, T)
    got = channel_scores(*tokens, chunks)
    assert relative_error(got.cpu(), expected.detach()) <= 1e-6
    grads = [torch.zeros(x.shape, device=DEVICE) for x in tokens]
    channel_scores_backward(*tokens, 1e-6 * dA.to(DEVICE), *grads, chunks)
    for x, grad, bound in zip(wide, grads, (1e-6, 1e-6, 1e-3), strict=True):
        for c in (0, STRONG):  # together the large ones would hide what the others are
            assert relative_error(grad[..., c].cpu(), x.grad[..., c]) <= bound
