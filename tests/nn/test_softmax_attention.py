"""`nn.SoftmaxAttention` against its equations: forget gate, positions, cache."""

from __future__ import annotations

import pytest
import torch

from assocmem.nn import SoftmaxAttention
from assocmem.nn.rotary import rotate
from tests.nn.reference import split
from tests.ops.reference import relative_error


def layer(**options) -> SoftmaxAttention:
    torch.manual_seed(0)
    return SoftmaxAttention(24, 3, **options).double()


@pytest.mark.parametrize("forget_gate", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
@torch.no_grad()
def test_equals_its_equations(forget_gate, rotary):
    attention = layer(forget_gate=forget_gate, rotary=rotary, d_key=4, d_value=10)
    T = 30
    x = torch.randn(2, T, 24, dtype=torch.float64)
    q, k, v = (
        split(x @ proj.weight.T, 3)
        for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    if rotary:  # pairs of channels as complex numbers, times e^{i t ω}
        ω = torch.tensor([1.0, 10000.0**-0.5], dtype=torch.float64)
        turn = torch.exp(1j * torch.arange(T)[:, None, None] * ω)
        q, k = (
            torch.view_as_real(torch.view_as_complex(z.unflatten(-1, (2, 2))) * turn).flatten(-2)
            for z in (q, k)
        )
    log_f = torch.zeros(2, T, 3, dtype=torch.float64)
    if attention.forget_proj is not None:
        z = x @ attention.forget_proj.weight.T + attention.forget_proj.bias
        log_f = (1 / (1 + (-z).exp())).log()
    outputs = []
    for t in range(T):
        score = (q[:, t : t + 1] * k[:, : t + 1]).sum(-1) / 2  # √K = 2
        for s in range(t + 1):
            score[:, s] += log_f[:, s + 1 : t + 1].sum(1)
        p = score.exp() / score.exp().sum(1, keepdim=True)
        outputs.append((p[..., None] * v[:, : t + 1]).sum(1))
    expected = torch.stack(outputs, 1).flatten(-2) @ attention.o_proj.weight.T
    assert relative_error(attention(x)[0], expected) <= 1e-12


@pytest.mark.parametrize("backend", ["recurrent", "chunk"])
@torch.no_grad()
def test_queries_in_a_row_share_keys_and_values(backend):
    options = {"d_value": 5, "forget_gate": True, "backend": backend}
    grouped = SoftmaxAttention(24, 6, n_kv_heads=2, **options).double()
    full = SoftmaxAttention(24, 6, **options).double()
    weights = grouped.state_dict()
    for name in ("k_proj.weight", "v_proj.weight"):
        own = weights[name].unflatten(0, (2, -1))
        weights[name] = torch.cat([own[0]] * 3 + [own[1]] * 3)
    full.load_state_dict(weights)
    x = torch.randn(2, 30, 24, dtype=torch.float64)
    y, state = grouped(x)
    expected, whole = full(x)
    assert relative_error(y, expected) <= 1e-12
    assert state.k.shape == (2, 30, 2, 4)
    torch.testing.assert_close(state.v, whole.v[:, :, ::3], rtol=1e-12, atol=1e-12)


def test_scores_see_only_the_distance_of_positions():
    q, k = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64)

    def turned(x, t):
        return rotate(x, torch.tensor([t]))

    scores = [(turned(q, start + 7) * turned(k, start)).sum() for start in (0, 1, 1000)]
    torch.testing.assert_close(torch.stack(scores), scores[0].expand(3), rtol=1e-12, atol=1e-12)
    assert abs((turned(q, 8) * turned(k, 0)).sum() - scores[0]) > 1e-3
    assert turned(q.bfloat16(), 3).dtype == torch.bfloat16


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="d_key must be even with rotary, got 3"):
        SoftmaxAttention(24, 3, d_key=3, rotary=True)
    with pytest.raises(ValueError, match="n_kv_heads must divide n_heads = 3, got 2"):
        SoftmaxAttention(24, 3, n_kv_heads=2)
    with pytest.raises(ValueError, match="n_kv_heads must be at least 1, got 0"):
        SoftmaxAttention(24, 3, n_kv_heads=0)
    x = torch.zeros(2, 4, 24, dtype=torch.float64)
    _, without = layer()(x)
    with pytest.raises(
        ValueError, match=r"state must have g = torch.float64 \[2, S, 3\] on cpu, got None"
    ):
        layer(forget_gate=True)(x, without)
