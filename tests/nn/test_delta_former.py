"""`nn.DeltaFormer` against its equations, and its cache of keys and corrections."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from assocmem.nn import DeltaFormer, KUCache
from assocmem.nn.rotary import rotate
from tests.nn.reference import split, unit
from tests.ops.reference import relative_error

H, K, V, T = 3, 4, 10, 70


def layer(**options) -> DeltaFormer:
    torch.manual_seed(0)
    return DeltaFormer(24, H, d_key=K, d_value=V, **options).double()


def tokens() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, T, 24, dtype=torch.float64, generator=generator)


def softmax(x: Tensor) -> Tensor:
    return x.exp() / x.exp().sum(1, keepdim=True)


@pytest.mark.parametrize("erase", ["softmax", "linear", "relu"])
@pytest.mark.parametrize("own_erase_keys", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("factor", [1, 2])
@torch.no_grad()
def test_equals_its_equations(erase, own_erase_keys, rotary, factor):
    former = layer(
        erase=erase, own_erase_keys=own_erase_keys, rotary=rotary,
        allow_negative_eigenvalues=factor == 2,
    )  # fmt: skip
    x = tokens()
    q, k, v = (
        split(x @ proj.weight.T, H) for proj in (former.q_proj, former.k_proj, former.v_proj)
    )
    w = k if former.w_proj is None else split(x @ former.w_proj.weight.T, H)
    assert (former.w_proj is not None) == own_erase_keys
    if erase != "softmax":
        w, k = unit(w), unit(k)
    if rotary:  # itself tested with `nn.SoftmaxAttention`
        q, w, k = (rotate(z, torch.arange(z.shape[1])) for z in (q, w, k))
    beta = factor / (1 + (-(x @ former.beta_proj.weight.T)).exp())
    root = 2 if erase == "softmax" else 1  # √K = 2
    u, o = torch.zeros(2, 0, H, V, dtype=x.dtype), []
    for t in range(T):
        weights = (w[:, t : t + 1] * k[:, :t]).sum(-1)
        if erase == "softmax":
            weights = softmax(weights / root)
        if erase == "relu":
            weights = weights * (weights > 0)
        erased = beta[:, t, :, None] * (weights[..., None] * u).sum(1)
        u = torch.cat((u, (v[:, t] - erased)[:, None]), 1)
        p = softmax((q[:, t : t + 1] * k[:, : t + 1]).sum(-1) / root)
        o.append((p[..., None] * u).sum(1))
    expected = torch.stack(o, 1).flatten(-2) @ former.o_proj.weight.T
    y, cache = former(x)
    assert relative_error(y, expected) <= 1e-12
    assert relative_error(cache.k, k) <= 1e-12
    assert relative_error(cache.u, u) <= 1e-12


@torch.no_grad()
def test_a_step_reads_keys_and_corrections_once(monkeypatch):
    """One product with the cached keys for w and q, and one with the corrections."""
    former, x = layer(), tokens()
    _, cache = former(x)
    products, einsum = [], torch.einsum

    def counted(equation, *operands):
        products.extend(y.shape[1] for y in operands)
        return einsum(equation, *operands)

    monkeypatch.setattr(torch, "einsum", counted)
    former.step(x[:, 0], cache)
    assert products.count(T + 1) == 1  # the keys, the new one among them
    assert products.count(T) == 1  # the corrections


def test_the_cache_keeps_corrections_in_float32():
    former, x = layer().bfloat16(), tokens().bfloat16()
    _, cache = former(x)
    assert (cache.k.dtype, cache.u.dtype) == (torch.bfloat16, torch.float32)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="d_key must be even with rotary, got 3"):
        DeltaFormer(24, 3, d_key=3, rotary=True)
    with pytest.raises(ValueError, match=r"erase must be one of .*, got 'exp'"):
        DeltaFormer(24, 3, erase="exp")
    cache = KUCache(torch.zeros(2, 5, H, K), torch.zeros(2, 5, H, V).double())
    expected = rf"k = torch.float64 \[2, S, {H}, {K}\] on cpu, got torch.float32 \[2, S, {H}, {K}\]"
    with pytest.raises(ValueError, match=f"state must have {expected}"):
        layer()(tokens(), cache)
