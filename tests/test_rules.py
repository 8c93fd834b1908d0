"""Every rule of the table against its recurrence written out, and against its objective.

The recurrences are written down again as the book has them, with S as d_v × d_k.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from assocmem import ops, rules
from assocmem.rules import RULES, Write

K, V, T, N, B = 6, 5, 12, 3, 4  # N corrections a token (DeltaProduct), B pairs a batch (TTT-Linear)
EXACT = 1e-12
I = torch.eye(K, dtype=torch.float64)


def numbers(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def between(low, high, *shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def unit(*shape, seed):
    return torch.nn.functional.normalize(numbers(*shape, seed=seed), dim=-1)


CHANNEL_DECAY = {"gla", "rwkv6", "hgrn2", "kda", "comba", "rwkv7", "titans"}
SEVERAL = {"deltaproduct": (N,), "ttt_linear": (B,)}  # pairs in a token


def writes(name):
    """T tokens with every gate drawn at random: a rule must leave out what it does not have."""
    pairs = SEVERAL.get(name, ())
    shape = {"deltaproduct": (N,), "rwkv7": (K,)}.get(name, ())
    return [
        Write(
            k=unit(*pairs, K, seed=8 * t),
            v=numbers(*pairs, V, seed=8 * t + 1),
            beta=between(0.1, 0.5 if name == "ttt_linear" else 1.8, *shape, seed=8 * t + 2),
            decay=between(0.5, 1, *((K,) if name in CHANNEL_DECAY else ()), seed=8 * t + 3),
            momentum=between(0, 0.9, seed=8 * t + 4),
            ridge=between(0.5, 1.5, K, seed=7),
            q=numbers(K, seed=8),
            write_key=unit(K, seed=8 * t + 5),
        )
        for t in range(T)
    ]


def states(name):
    """The states before each write, and the one after the last."""
    state = RULES[name].empty(writes(name)[0])
    found = [state]
    for write in writes(name):
        state = RULES[name].step(state, write)
        found.append(state)
    return found


def outer(v, k):
    return v[:, None] * k[None, :]


def householder(k, beta):
    return I - beta * outer(k, k)


def product(S, w):
    for k, v, beta in zip(w.k, w.v, w.beta, strict=True):
        S = S @ householder(k, beta) + beta * outer(v, k)
    return S


def implicit(S, w):
    # Solve the normal equations of the minimiser: X (I + β k kᵀ) = S + β v kᵀ.
    A = I + w.beta * outer(w.k, w.k)
    return torch.linalg.solve(A, (S + w.beta * outer(w.v, w.k)).T).T


# S_{t-1} [V, K], write → S_t, as the table says it.
RECURRENCES = {
    "linear_attention": lambda S, w: S + outer(w.v, w.k),
    "retnet": lambda S, w: w.decay * S + outer(w.v, w.k),
    "mamba2": lambda S, w: w.decay * S + w.beta * outer(w.v, w.k),
    "gla": lambda S, w: S @ torch.diag(w.decay) + outer(w.v, w.k),
    "rwkv6": lambda S, w: S @ torch.diag(w.decay) + outer(w.v, w.k),
    "hgrn2": lambda S, w: S @ torch.diag(w.decay) + outer(w.v, 1 - w.decay),
    "deltanet": lambda S, w: S @ householder(w.k, w.beta) + w.beta * outer(w.v, w.k),
    "gated_deltanet": lambda S, w: (
        w.decay * S @ householder(w.k, w.beta) + w.beta * outer(w.v, w.k)
    ),
    "kda": lambda S, w: (
        S @ torch.diag(w.decay) @ householder(w.k, w.beta) + w.beta * outer(w.v, w.k)
    ),
    "comba": lambda S, w: (
        S @ (torch.diag(w.decay) - w.beta * outer(w.k, w.k)) + w.beta * outer(w.v, w.k)
    ),
    "rwkv7": lambda S, w: (
        S @ (torch.diag(w.decay) - outer(w.k, w.beta * w.k)) + outer(w.v, w.beta * w.k)
    ),
    "deltaproduct": product,
    "longhorn": implicit,
    "ttt_linear": lambda S, w: S + w.beta * (w.v - w.k @ S.T).T @ w.k,
}


def test_there_are_as_many_rules_as_is_said():
    assert len(RULES) == 19
    assert len({rule.name for rule in RULES.values()}) == 19


@pytest.mark.parametrize("name", RULES)
def test_the_recurrence_is_the_step_on_the_objective(name):
    before = states(name)
    for state, write in zip(before, writes(name), strict=False):
        assert RULES[name].residual(state, write) < EXACT


@pytest.mark.parametrize("name", RULES)
def test_a_residual_notices_a_wrong_recurrence(name):
    rule, state, write = RULES[name], states(name)[3], writes(name)[3]
    wrong = replace(rule, step=lambda S, w: rule.step(S, replace(w, v=1.1 * w.v)))
    assert wrong.residual(state, write) > 1e-3


@pytest.mark.parametrize("name", RECURRENCES)
def test_the_recurrence_is_the_one_of_the_table(name):
    S = torch.zeros(V, K, dtype=torch.float64)
    for write, state in zip(writes(name), states(name)[1:], strict=True):
        S = RECURRENCES[name](S, write)
        torch.testing.assert_close(state.T, S, rtol=EXACT, atol=EXACT)


def descend(loss, X):
    X = X.clone().requires_grad_(True)
    return torch.autograd.grad(loss(X), X)[0]


# The objective, written down again: L(S) for S [V, K]. Steps on these are taken by autograd.
OBJECTIVES = {
    "linear_attention": lambda S, w: -(S @ w.k) @ w.v,
    "retnet": lambda S, w: -(S @ w.k) @ w.v + (1 - w.decay) / 2 * (S * S).sum(),
    "mamba2": lambda S, w: -w.beta * (S @ w.k) @ w.v + (1 - w.decay) / 2 * (S * S).sum(),
    "gla": lambda S, w: -(S @ w.k) @ w.v + ((1 - w.decay) * S * S).sum() / 2,
    "rwkv6": lambda S, w: -(S @ w.k) @ w.v + ((1 - w.decay) * S * S).sum() / 2,
    "hgrn2": lambda S, w: ((1 - w.decay) * (S - w.v[:, None]) ** 2).sum() / 2,
    "deltanet": lambda S, w: ((S @ w.k - w.v) ** 2).sum() / 2,
    "gated_deltanet": lambda S, w: ((S @ w.k - w.v) ** 2).sum() / 2,
    "kda": lambda S, w: ((S @ w.k - w.v) ** 2).sum() / 2,
    "comba": lambda S, w: (
        ((S @ w.k - w.v) ** 2).sum() / 2 + ((1 - w.decay) / w.beta * S * S).sum() / 2
    ),
    "rwkv7": lambda S, w: (
        ((S @ w.k - w.v) ** 2).sum() / 2 + ((1 - w.decay) / w.beta * S * S).sum() / 2
    ),
    "ttt_linear": lambda S, w: ((S @ w.k.T - w.v.T) ** 2).sum() / 2,
}
ADDING = ("linear_attention", "retnet", "mamba2", "gla", "rwkv6", "hgrn2")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_of_autograd_on_the_objective_written_out(name):
    before = states(name)
    for write, state, after in zip(writes(name), before, before[1:], strict=False):
        S = state.T * write.decay if name in ("gated_deltanet", "kda") else state.T
        rate = 1.0 if name in ADDING else write.beta
        S = S - rate * descend(lambda X, w=write: OBJECTIVES[name](X, w), S)
        torch.testing.assert_close(after.T, S, rtol=EXACT, atol=EXACT)


def test_deltaproduct_takes_a_step_on_each_of_its_objectives():
    before = states("deltaproduct")
    for write, state, after in zip(writes("deltaproduct"), before, before[1:], strict=False):
        S = state.T
        for k, v, beta in zip(write.k, write.v, write.beta, strict=True):
            S = S - beta * descend(lambda X, k=k, v=v: ((X @ k - v) ** 2).sum() / 2, S)
        torch.testing.assert_close(after.T, S, rtol=EXACT, atol=EXACT)


def test_longhorn_minimises_its_objective():
    before = states("longhorn")
    for write, state, after in zip(writes("longhorn"), before, before[1:], strict=False):

        def loss(X, S=state.T, w=write):
            return ((X - S) ** 2).sum() + w.beta * ((X @ w.k - w.v) ** 2).sum()

        assert descend(loss, after.T).abs().max() < EXACT


def test_titans_is_gradient_descent_with_momentum():
    S = M = torch.zeros(V, K, dtype=torch.float64)
    for write, state in zip(writes("titans"), states("titans")[1:], strict=True):
        gradient = descend(lambda X, w=write: ((X @ w.k - w.v) ** 2).sum(), S)
        M = write.momentum * M - write.beta * gradient
        S = write.decay * S + M
        torch.testing.assert_close(state.S.T, S, rtol=EXACT, atol=EXACT)


def test_mesa_minimises_the_error_of_all_pairs_so_far():
    all_writes = writes("mesanet")
    for t, state in enumerate(states("mesanet")[1:]):

        def loss(X, t=t):
            total = ((X * all_writes[0].ridge) * X).sum() / 2
            for j, w in enumerate(all_writes[: t + 1]):
                kept = math.prod(x.decay for x in all_writes[j + 1 : t + 1])
                total = total + kept * ((X @ w.k - w.v) ** 2).sum() / 2
            return total

        assert descend(loss, RULES["mesanet"].memory(state).T).abs().max() < EXACT


def test_mesa_without_decay_is_a_delta_rule_with_a_matrix_of_step_sizes():
    rule = RULES["mesanet"]
    state = rule.empty(writes("mesanet")[0])
    for write in writes("mesanet"):
        write = replace(write, decay=1.0)
        S, P = rule.memory(state), rule.learning_rate(state, write)
        state = rule.step(state, write)
        corrected = S + P @ torch.outer(write.k, write.v - write.k @ S)
        torch.testing.assert_close(rule.memory(state), corrected, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("name", ["softmax_attention", "fox"])
def test_attention_reads_a_weighted_average(name):
    all_writes, q = writes(name), writes(name)[0].q
    g = torch.stack([w.decay for w in all_writes]).log()
    for t, state in enumerate(states(name)[1:]):
        k = torch.stack([w.k for w in all_writes[: t + 1]])
        v = torch.stack([w.v for w in all_writes[: t + 1]])
        D = torch.stack([g[s + 1 : t + 1].sum() for s in range(t + 1)])
        p = torch.softmax(k @ q + (D if name == "fox" else 0), 0)
        torch.testing.assert_close(state.o, p @ v, rtol=EXACT, atol=EXACT)
        scores = torch.exp(k @ q + (D if name == "fox" else 0))
        left = descend(lambda o, c=scores, v=v: (c[:, None] * (v - o) ** 2).sum(), state.o)
        assert left.abs().max() < 1e-11  # the scores add up to some 50


def test_attention_is_what_the_operator_computes():
    all_writes = writes("fox")
    k, v = (torch.stack([getattr(w, x) for w in all_writes])[None, :, None] for x in "kv")
    q = all_writes[0].q.expand(1, T, 1, K)
    g = torch.stack([w.decay for w in all_writes]).log()[None, :, None]
    for name, gate in (("softmax_attention", None), ("fox", g)):
        o = ops.softmax_attention(q, k, v, gate, scale=1.0, backend="recurrent")[0, :, 0]
        ours = torch.stack([state.o for state in states(name)[1:]])
        torch.testing.assert_close(ours, o, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("name", ["softmax_attention", "fox"])
def test_attention_reads_scores_that_are_no_floats(name):
    k = torch.tensor([[10.0, 0.0], [9.9, 1.0], [10.1, 0.0]])  # qᵀk up to 101: e^101 in float32
    v, q = torch.eye(3), torch.tensor([10.0, 0.0])
    state = RULES[name].empty(Write(k[0], v[0]))
    for k_t, v_t in zip(k, v, strict=True):
        write = Write(k_t, v_t, decay=0.5, q=q)
        assert RULES[name].residual(state, write) < 1e-6
        state = RULES[name].step(state, write)
    faded = torch.tensor([0.25, 0.5, 1.0]).log() if name == "fox" else torch.zeros(3)
    torch.testing.assert_close(state.o, torch.softmax(k @ q + faded, 0))


@pytest.mark.parametrize("decay", [0.0, -0.5])
def test_a_decay_of_attention_has_a_gradient_wherever_it_lies(decay):
    rule, gamma = RULES["fox"], torch.tensor(decay, dtype=torch.float64, requires_grad=True)
    (first, second), q = writes("fox")[:2], numbers(K, seed=5)
    state = rule.step(rule.empty(first), replace(first, q=q))
    o = rule.step(state, replace(second, q=q, decay=gamma)).o
    a, b = ((q @ write.k).exp() for write in (first, second))
    torch.testing.assert_close(o, (gamma * a * first.v + b * second.v) / (gamma * a + b))
    (slope,) = torch.autograd.grad(o.sum(), gamma)
    expected = a * b * (first.v - second.v).sum() / (gamma * a + b) ** 2
    torch.testing.assert_close(slope, expected.detach())


def test_the_objective_of_deltaformer_has_a_gradient_in_its_key():
    rule = RULES["deltaformer"]
    first, second = writes("deltaformer")[:2]
    state = rule.step(rule.empty(first), first)

    def objective(k):
        write = replace(second, k=k)
        return rule.objective(rule.faded(state, write), state, write)

    assert torch.autograd.gradcheck(objective, second.k.requires_grad_())
    many = torch.func.vmap(objective)(torch.stack((second.k, 2 * second.k)))
    torch.testing.assert_close(many[0], objective(second.k))


def test_deltaformer_writes_a_key_twice():
    """The scores of its keys have no inverse then, but features all the same."""
    rule = RULES["deltaformer"]
    first, second, third = writes("deltaformer")[:3]
    state = rule.empty(first)
    for write in (first, replace(second, k=first.k), third, first):
        assert rule.residual(state, write) < EXACT
        assert math.isfinite(rule.departure(state, write))
        state = rule.step(state, write)
    S, gram = rule.memory(state), torch.exp(state.k @ state.k.T)
    torch.testing.assert_close(S.T @ S, state.u.T @ gram @ state.u, rtol=EXACT, atol=EXACT)


def test_deltaformer_is_a_delta_rule_on_features():
    """The features of T keys, from the eigenvectors of their scores: φ_iᵀφ_j = exp(k_iᵀk_j)."""
    all_writes = writes("deltaformer")
    k = torch.stack([w.k for w in all_writes])
    eigenvalues, vectors = torch.linalg.eigh(torch.exp(k @ k.T))
    phi = vectors * eigenvalues.sqrt()
    S = torch.zeros(V, T, dtype=k.dtype)
    for t, (w, state) in enumerate(zip(all_writes, states("deltaformer")[1:], strict=True)):
        S = S - w.beta * descend(lambda X, w=w, t=t: ((X @ phi[t] - w.v) ** 2).sum() / 2, S)
        stored = state.u.T @ phi[: t + 1]
        torch.testing.assert_close(stored, S, rtol=EXACT, atol=EXACT * S.abs().max().item())


def test_deltaformer_solves_a_triangular_system():
    all_writes, state = writes("deltaformer"), states("deltaformer")[-1]
    k, v = (torch.stack([getattr(w, x) for w in all_writes]) for x in "kv")
    beta = torch.stack([w.beta for w in all_writes])[:, None]
    A = torch.eye(T, dtype=k.dtype) + beta * torch.exp(k @ k.T).tril(-1)
    U = torch.linalg.solve(A, beta * v)
    torch.testing.assert_close(state.u, U, rtol=1e-10, atol=1e-10 * U.abs().max().item())


AFFINE = ("linear_attention", "retnet", "mamba2", "gla", "rwkv6", "hgrn2", "deltanet",
          "gated_deltanet", "kda", "comba", "rwkv7", "deltaproduct", "longhorn",
          "ttt_linear")  # fmt: skip


def transition(name, write):
    """The matrix A [K, K] with S_t = A S_{t-1} + …, found by writing into the identity."""
    write = replace(write, v=write.v.new_zeros(*write.v.shape[:-1], K))
    return RULES[name].step(I, write)


def spectrum(name, write):
    return torch.linalg.eigvals(transition(name, write))


def even(name, write):
    """The same gates in all channels, and orthogonal keys for DeltaProduct."""
    if name in CHANNEL_DECAY:
        write = replace(write, decay=write.decay[0].expand(K))
    if name == "rwkv7":
        write = replace(write, beta=write.beta[0].expand(K))
    if name == "deltaproduct":
        write = replace(write, k=1.3 * torch.linalg.qr(numbers(K, N, seed=3)).Q.T)
    return write


@pytest.mark.parametrize("name", AFFINE)
def test_the_eigenvalues_are_in_the_spectrum(name):
    for state, write in zip(states(name), writes(name), strict=False):
        write = even(name, write)
        found = spectrum(name, write)
        for x in RULES[name].eigenvalue(state, write):
            assert (found - x).abs().min() < 1e-10


def test_the_eigenvalue_of_mesa():
    rule, state = RULES["mesanet"], states("mesanet")[3]
    write = replace(writes("mesanet")[3], decay=1.0)
    S = rule.memory(state)
    kept = write.k @ rule.memory(rule.step(state, replace(write, v=torch.zeros_like(write.v))))
    torch.testing.assert_close(kept, rule.eigenvalue(state, write) * (write.k @ S))


def test_the_eigenvalue_of_deltaformer():
    rule, state, write = RULES["deltaformer"], states("deltaformer")[4], writes("deltaformer")[4]

    def read(cache):
        return torch.exp(write.k @ cache.k.T) @ cache.u

    kept = read(rule.step(state, replace(write, v=torch.zeros_like(write.v))))
    torch.testing.assert_close(kept, rule.eigenvalue(state, write) * read(state))


@pytest.mark.parametrize("name", ["softmax_attention", "fox"])
def test_the_eigenvalue_of_attention(name):
    rule, state, write = RULES[name], states(name)[4], writes(name)[4]
    kept = rule.step(state, replace(write, v=torch.zeros_like(write.v))).o
    torch.testing.assert_close(kept, rule.eigenvalue(state, write) * state.o)


@pytest.mark.parametrize("name", RULES)
def test_the_limit_is_where_a_factor_reaches_one(name):
    rule = RULES[name]
    for state, write in zip(states(name), writes(name), strict=False):
        write = even(name, write)
        write = replace(write, k=1.7 * write.k)
        limit = rule.limit(state, write)
        if math.isinf(limit):
            far = replace(write, beta=1e6 * torch.ones_like(write.beta))
            assert rule.eigenvalue(state, far).abs().max() <= 1
            continue
        at = [
            rule.eigenvalue(state, replace(write, beta=x * limit * torch.ones_like(write.beta)))
            for x in (1 - 1e-6, 1 + 1e-6)
        ]
        assert at[0].abs().max() < 1 < at[1].abs().max()


@pytest.mark.parametrize("name", RULES)
def test_a_key_of_zeros_and_a_decay_of_zero_have_a_limit(name):
    rule, state, write = RULES[name], states(name)[2], writes(name)[2]
    nothing = replace(write, k=torch.zeros_like(write.k))
    assert rule.limit(state, nothing) == (2.0 if name == "deltaformer" else math.inf)
    forgets = replace(write, decay=torch.zeros_like(write.decay))
    limit = rule.limit(state, forgets)
    assert limit == math.inf if name in ("gated_deltanet", "kda") else limit > 0


def test_released_models_depart_from_their_objectives():
    for name, smallest in (("rwkv7", 0.3), ("longhorn", 0.1), ("deltaformer", 0.3)):
        gaps = [
            RULES[name].departure(state, write)
            for state, write in zip(states(name)[1:], writes(name)[1:], strict=False)
        ]
        assert sum(gaps) / len(gaps) > smallest, (name, gaps)
    assert RULES["deltanet"].departure(states("deltanet")[1], writes("deltanet")[1]) == 0


def test_released_rwkv7_follows_its_objective_with_the_same_key():
    for state, write in zip(states("rwkv7")[1:], writes("rwkv7")[1:], strict=False):
        together = replace(write, write_key=write.beta * write.k)
        assert RULES["rwkv7"].departure(state, together) < EXACT
        S, w = state.T, write  # and by how much it departs: the difference of the two keys
        gap = outer(w.v, w.write_key - w.beta * w.k)
        expected = gap.norm() / RECURRENCES["rwkv7"](S, w).norm()
        assert RULES["rwkv7"].departure(state, write) == pytest.approx(expected.item(), rel=1e-10)


def test_released_longhorn_is_exact_for_keys_along_an_axis():
    state, write = states("longhorn")[3], writes("longhorn")[3]
    assert RULES["longhorn"].departure(state, replace(write, k=I[2])) < EXACT
    delta = write.beta / (1 + write.beta * write.k @ write.k)
    off_diagonal = outer(write.k, write.k) - torch.diag(write.k**2)
    gap = (delta * state.T @ off_diagonal).norm()
    expected = gap / implicit(state.T, write).norm()
    assert RULES["longhorn"].departure(state, write) == pytest.approx(expected.item(), rel=1e-10)


def test_an_empty_memory_has_no_departure():
    write = replace(writes("longhorn")[0], v=torch.zeros(V, dtype=torch.float64))
    with pytest.raises(ValueError, match="must leave a memory that is not zero"):
        RULES["longhorn"].departure(RULES["longhorn"].empty(write), write)


@pytest.mark.parametrize("name", ["softmax_attention", "fox"])
def test_attention_needs_a_query(name):
    write = replace(writes(name)[0], q=None)
    with pytest.raises(ValueError, match="must have a query q"):
        RULES[name].step(RULES[name].empty(write), write)


def test_released_rwkv7_needs_its_key():
    write = replace(writes("rwkv7")[0], write_key=None)
    with pytest.raises(ValueError, match="must have a write_key"):
        RULES["rwkv7"].departure(states("rwkv7")[1], write)


# Against the operators.


def sequence(name):
    """q, k, v, β and g of the writes as operators take them."""
    ws = writes(name)
    k, v = (torch.stack([getattr(w, x) for w in ws])[None, :, None] for x in "kv")
    beta, g = (torch.stack([getattr(w, x) for w in ws]) for x in ("beta", "decay"))
    g = g.log()
    return numbers(1, T, 1, K, seed=9), k, v, beta[None, :, None], g[None, :, None]


@pytest.mark.parametrize("name", ["linear_attention", "retnet", "mamba2", "gla"])
def test_rules_that_add_are_linear_attention(name):
    q, k, v, beta, g = sequence(name)
    v = beta[..., None] * v if name == "mamba2" else v
    g = None if name == "linear_attention" else g
    _, S = ops.linear_attention(q, k, v, g, output_final_state=True)
    torch.testing.assert_close(states(name)[-1], S[0, 0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["deltanet", "gated_deltanet", "kda"])
def test_rules_that_correct_are_the_delta_rule(name):
    q, k, v, beta, g = sequence(name)
    g = None if name == "deltanet" else g
    _, S = ops.delta_rule(q, k, v, beta, g, output_final_state=True)
    torch.testing.assert_close(states(name)[-1], S[0, 0], rtol=1e-12, atol=1e-12)


# Sequence operators, against the recurrences written out.


def read(S, q, scale):
    return scale * (S @ q)


def test_delta_product():
    ws, q = writes("deltaproduct"), numbers(T, K, seed=9)
    k, v, beta = (torch.stack([getattr(w, x) for w in ws]) for x in ("k", "v", "beta"))
    g = between(-1, 0, T, seed=4)
    S, expected = torch.zeros(V, K, dtype=k.dtype), []
    for t, w in enumerate(ws):
        S = product(g[t].exp() * S, w)
        expected.append(read(S, q[t], 0.5))
    args = (q[None, :, None], k[None, :, :, None], v[None, :, :, None], beta[None, ..., None])
    o, state = rules.delta_product(*args, g[None, :, None], scale=0.5)
    torch.testing.assert_close(o[0, :, 0], torch.stack(expected), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(state[0, 0].T, S, rtol=1e-11, atol=1e-11)


def test_longhorn():
    ws, q = writes("longhorn"), numbers(T, K, seed=9)
    k, v, beta = (torch.stack([getattr(w, x) for w in ws]) for x in ("k", "v", "beta"))
    S, expected = torch.zeros(V, K, dtype=k.dtype), []
    for t, w in enumerate(ws):
        S = implicit(S, replace(w, k=1.7 * w.k))
        expected.append(read(S, q[t], K**-0.5))
    o, state = rules.longhorn(*(x[None, :, None] for x in (q, 1.7 * k, v, beta)))
    torch.testing.assert_close(o[0, :, 0], torch.stack(expected), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(state[0, 0].T, S, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("gated", [True, False])
def test_titans(gated):
    ws, q = writes("titans"), numbers(T, K, seed=9)
    names = ("k", "v", "beta", "momentum", "decay")
    k, v, beta, mu, decay = (torch.stack([getattr(w, x) for w in ws]) for x in names)
    decay = decay[:, 0] if gated else torch.ones_like(mu)  # the operator has one a head
    g = decay.log()[None, :, None] if gated else None
    S = M = torch.zeros(V, K, dtype=k.dtype)
    expected = []
    for t in range(T):
        M = mu[t] * M + 2 * beta[t] * outer(v[t] - S @ k[t], k[t])
        S = decay[t] * S + M
        expected.append(read(S, q[t], 0.3))
    tokens = (x[None, :, None] for x in (q, k, v, beta, mu))
    o, (S_end, M_end) = rules.titans(*tokens, g, scale=0.3)
    torch.testing.assert_close(o[0, :, 0], torch.stack(expected), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(S_end[0, 0].T, S, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(M_end[0, 0].T, M, rtol=1e-11, atol=1e-11)


def test_mesa():
    ws, q = writes("mesanet"), numbers(T, K, seed=9)
    k, v, decay = (torch.stack([getattr(w, x) for w in ws]) for x in ("k", "v", "decay"))
    ridge, expected = ws[0].ridge, []
    for t in range(T):
        kept = torch.stack([decay[j + 1 : t + 1].prod() for j in range(t + 1)])[:, None].sqrt()
        # Ridge regression as least squares: the ridge as K further rows.
        A = torch.cat((kept * k[: t + 1], torch.diag(ridge.sqrt())))
        b = torch.cat((kept * v[: t + 1], torch.zeros(K, V, dtype=v.dtype)))
        expected.append(q[t] @ torch.linalg.lstsq(A, b).solution)
    args = [x[None, :, None] for x in (q, k, v)]
    o, (G, H) = rules.mesa(*args, ridge[None], decay.log()[None, :, None])
    torch.testing.assert_close(o[0, :, 0], torch.stack(expected), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(G[0, 0], states("mesanet")[-1].G, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(H[0, 0], states("mesanet")[-1].H, rtol=1e-11, atol=1e-11)


def test_mesa_weighs_a_pair_by_what_multiplies_its_key_and_value():
    q, k, v, beta = inputs()
    ridge = between(0.5, 1, 2, K, seed=6)
    weight = beta.sqrt()[..., None]
    o, _ = rules.mesa(q, weight * k, weight * v, ridge, scale=0.3)
    w, x, y = beta[1, :, 0, None], k[1, :, 0], v[1, :, 0]
    W = torch.linalg.solve(x.T @ (w * x) + torch.diag(ridge[0]), x.T @ (w * y))
    torch.testing.assert_close(o[1, -1, 0], 0.3 * q[1, -1, 0] @ W, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["recurrent", "chunk"])
def test_longhorn_of_long_keys_in_half_precision(dtype, backend):
    """Keys of 64 times 33: ‖k‖² is beyond float16, and δ‖k‖² has to be 1 to a part in 1e5."""
    k = torch.full((1, 1, 1, 64), 33.0, dtype=dtype)
    v, beta = torch.ones(1, 1, 1, 2, dtype=dtype), torch.ones(1, 1, 1, dtype=dtype)
    o, S = rules.longhorn(k, k, v, beta, scale=1.0, backend=backend)
    torch.testing.assert_close(o, v)
    start = torch.randn(1, 1, 64, 2, generator=torch.Generator().manual_seed(0))
    _, S = rules.longhorn(k, k, 0 * v, beta, initial_state=start, backend=backend)
    read = (k[0, 0, 0].float() @ S[0, 0]).abs().max()
    assert read < 1e-3 * (k[0, 0, 0].float() @ start[0, 0]).abs().max()


def test_longhorn_refuses_a_negative_step_where_it_may_look():
    q, k, v, beta = inputs()
    beta[1, 3, 0] = -0.5
    with pytest.raises(ValueError, match=r"beta must be at least 0, got a minimum of -0\.5"):
        rules.longhorn(q, k, v, beta)
    several = [torch.stack((x, x)) for x in (q, k, v, beta)]
    o = torch.func.vmap(lambda *x: rules.longhorn(*x, backend="recurrent")[0])(*several)
    compiled = torch.compile(rules.longhorn, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(q, k, v, beta, backend="recurrent")[0], o[0])


def test_mesa_refuses_a_ridge_that_is_not_positive_where_it_may_look():
    """The refusal itself: `test_operators_check_what_they_are_given`."""
    q, k, v, _ = inputs()
    ridges = between(0.5, 1, 3, 2, K, seed=6)
    o = torch.func.vmap(lambda ridge: rules.mesa(q, k, v, ridge)[0])(ridges)
    compiled = torch.compile(rules.mesa, fullgraph=True, backend="eager")
    for ridge, expected in zip(ridges, o, strict=True):
        torch.testing.assert_close(compiled(q, k, v, ridge)[0], expected)
    on_meta = (x.to("meta") for x in (q, k, v, ridges[0]))
    assert rules.mesa(*on_meta)[0].shape == v.shape


def inputs(n=None):
    """Two sequences of two heads, T tokens, as the operators take them."""
    pairs = () if n is None else (n,)
    q = numbers(2, T, 2, K, seed=1)
    k, v = unit(2, T, *pairs, 2, K, seed=2), numbers(2, T, *pairs, 2, V, seed=3)
    return q, k, v, between(0, 1, 2, T, *pairs, 2, seed=4)


def run(name, piece, state, given=None):
    given = given or inputs(2 if name == "delta_product" else None)
    q, k, v, beta = (x[:, piece] for x in given)
    gate = -between(0, 1, 2, T, 2, seed=5)[:, piece]
    if name == "titans":
        return rules.titans(q, k, v, beta, beta / 2, gate, initial_state=state)
    if name == "mesa":
        ridge = between(0.5, 1, 2, K, seed=6)
        return rules.mesa(q, k, v, ridge, gate, initial_state=state)
    return getattr(rules, name)(q, k, v, beta, initial_state=state)


@pytest.mark.parametrize("name", ["delta_product", "longhorn", "titans", "mesa"])
def test_pieces_give_what_the_whole_gives(name):
    whole, _ = run(name, slice(None), None)
    first, state = run(name, slice(0, 5), None)
    second, _ = run(name, slice(5, T), state)
    torch.testing.assert_close(torch.cat((first, second), 1), whole, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["delta_product", "longhorn"])
def test_packed_sequences_do_not_see_each_other(name):
    given = [x[:1] for x in inputs(2 if name == "delta_product" else None)]
    starts = numbers(3, 2, K, V, seed=7)
    packed = partial(getattr(rules, name), *given, initial_state=starts)
    o, S = packed(cu_seqlens=torch.tensor([0, 5, 5, T]))
    for i, (start, end) in enumerate(((0, 5), (5, 5), (5, T))):
        alone = [x[:, start:end] for x in given]
        expected, last = getattr(rules, name)(*alone, initial_state=starts[i : i + 1])
        torch.testing.assert_close(o[:, start:end], expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(S[i : i + 1], last, rtol=1e-12, atol=1e-12)
    with pytest.raises(
        ValueError, match=r"cu_seqlens must rise from 0 to T = 12 .*got \[0, 5, 13\]"
    ):
        packed(cu_seqlens=torch.tensor([0, 5, 13]))


@pytest.mark.parametrize("name", ["delta_product", "longhorn", "titans", "mesa"])
def test_no_tokens_are_no_outputs_that_depend_on_all(name):
    given = [x.requires_grad_() for x in inputs(2 if name == "delta_product" else None)]
    o, _ = run(name, slice(0, 0), None, given)
    assert o.shape == (2, 0, 2, V)
    used = given if name != "mesa" else given[:3]
    assert all(not x.any() for x in torch.autograd.grad(o.sum(), used))


@pytest.mark.parametrize("name", ["delta_product", "longhorn", "titans", "mesa"])
def test_gradients_of_operators(name):
    given = [x.requires_grad_() for x in inputs(2 if name == "delta_product" else None)]
    if name == "mesa":
        given[3].requires_grad_(False)  # it has no step sizes

    def read(*given):
        return run(name, slice(0, 4), None, given)[0]

    assert torch.autograd.gradcheck(read, given, fast_mode=True)


@pytest.mark.parametrize("name", ["delta_product", "longhorn"])
def test_an_operator_runs_the_form_that_it_is_asked_for(name):
    given = inputs(2 if name == "delta_product" else None)
    with pytest.raises(RuntimeError, match="backend='triton' cannot run here"):
        getattr(rules, name)(*given, backend="triton")


def test_operators_check_what_they_are_given():
    q, k, v, beta = inputs()
    with pytest.raises(ValueError, match="k must have shape"):
        rules.delta_product(q, k, v, beta)
    several = [torch.stack((x, x), 2) for x in (k, v, beta)]
    for name, i, shape in (
        ("k", 0, r"\[B, T, n, H, K\] = \[2, 12, n, 2, 6\] like q, .* got \[2, 11, 2, 2, "),
        ("v", 1, r"\[B, T, n, H, V\] = \[2, 12, 2, 2, V\] like k, got \[2, 11, 2, 2, "),
        ("beta", 2, r"\[B, T, n, H\] = \[2, 12, 2, 2\] like k, got \[2, 11, 2, 2\]"),
    ):
        wrong = [x[:, 1:] if j == i else x for j, x in enumerate(several)]
        with pytest.raises(ValueError, match=f"{name} must have shape {shape}"):
            rules.delta_product(q, *wrong)
    with pytest.raises(ValueError, match=r"k must have shape .* with n >= 1"):
        rules.delta_product(q, *(x[:, :, :0] for x in several))
    with pytest.raises(ValueError, match=r"g must have shape \[B, T, H\] = \[2, 12, 2\]"):
        rules.delta_product(q, *several, beta[:, 1:])
    with pytest.raises(ValueError, match=r"q must have shape \[B, T, H, K\]"):
        rules.delta_product(q[0, 0, 0], k[:, :, None], v[:, :, None], beta[:, :, None])
    with pytest.raises(TypeError, match="beta must be a torch"):
        rules.delta_product(q, k[:, :, None], v[:, :, None], 1.0)
    with pytest.raises(ValueError, match="beta must have shape"):
        rules.longhorn(q, k, v, beta[:, :-1])
    with pytest.raises(TypeError, match="k must be a torch"):
        rules.longhorn(q, None, v, beta)
    with pytest.raises(ValueError, match="beta must have shape"):
        rules.titans(q, k, v, beta[:, :-1], beta)
    with pytest.raises(ValueError, match="momentum must have shape"):
        rules.titans(q, k, v, beta, beta[..., :1])
    with pytest.raises(ValueError, match="ridge must have shape"):
        rules.mesa(q, k, v, torch.ones(K))
    with pytest.raises(ValueError, match="ridge must be positive"):
        rules.mesa(q, k, v, torch.zeros(2, K))
    single = [x.float() for x in (q, k, v)]
    with pytest.raises(ValueError, match=r"ridge must be positive in torch\.float32"):
        rules.mesa(*single, torch.full((2, K), 1e-60, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"ridge must be a floating-point tensor, got torch\.bool"):
        rules.mesa(q, k, v, torch.ones(2, K).bool())
    for no_pair in (torch.zeros(2, 2, K, V), ()):
        with pytest.raises(TypeError, match="initial_state must be a pair of states or None"):
            rules.titans(q, k, v, beta, beta, initial_state=no_pair)
    half, ridge = (torch.zeros(2, 2, K, V, dtype=q.dtype), None), torch.ones(2, K)
    for call in (partial(rules.titans, q, k, v, beta, beta), partial(rules.mesa, q, k, v, ridge)):
        with pytest.raises(TypeError, match=r"initial_state must be a torch\.Tensor, got NoneType"):
            call(initial_state=half)
    wrong = (torch.zeros(2, 2, K, V, dtype=q.dtype),) * 2
    with pytest.raises(ValueError, match="initial_state must have shape"):
        rules.mesa(q, k, v, torch.ones(2, K), initial_state=wrong)


def test_autocast_casts_what_operators_take_and_keeps_their_states():
    q, k, v, beta = (x.float() for x in inputs())
    gates_of = {
        rules.longhorn: (beta,),
        rules.titans: (beta, beta),
        rules.mesa: (torch.ones(2, K),),
    }
    for operator, gates in gates_of.items():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            o, states = operator(q, k.bfloat16(), v, *gates)
        expected, others = operator(*(x.bfloat16() for x in (q, k, v)), *gates)
        assert o.dtype == torch.bfloat16
        assert torch.equal(o, expected)
        assert all(torch.equal(x, y) for x, y in zip(states, others, strict=True))


def test_the_table_has_a_row_for_every_rule():
    text = rules.table("objective", "recurrence")
    lines = text.splitlines()
    assert len(lines) == 2 + len(RULES)
    assert all(line.count("|") == 4 for line in lines)
    for rule, line in zip(RULES.values(), lines[2:], strict=True):
        assert rule.name in line
        assert rule.source in line
        assert rule.tex.recurrence in line
    assert text._repr_markdown_() == text
    assert repr(text) == "Table of 19 rules"
    for columns in (("colour",), (["limit"],), ()):
        with pytest.raises(ValueError, match="columns must be some of"):
            rules.table(*columns)


def test_the_released_deltaformer_takes_off_a_weighted_average():
    rule = RULES["deltaformer"]
    for state, write in zip(states("deltaformer")[1:], writes("deltaformer")[1:], strict=False):
        got = rule.released(state, write)
        p = torch.softmax(state.k @ write.k, 0)
        expected = write.v - write.beta * (p @ state.u)
        torch.testing.assert_close(got.u[-1], expected, rtol=EXACT, atol=EXACT)
        assert torch.equal(got.u[:-1], state.u)
        assert torch.equal(got.k, torch.cat((state.k, write.k[None])))


@pytest.mark.parametrize("name", RULES)
def test_a_residual_leaves_the_state_as_it_is(name):
    state, write = states(name)[3], writes(name)[3]
    RULES[name].residual(state, write)
    assert not any(x.requires_grad for x in ([state] if torch.is_tensor(state) else state))


@pytest.mark.parametrize("name", ["mesanet", "fox"])
def test_a_rule_without_channels_refuses_a_decay_a_channel(name):
    write = replace(writes(name)[0], decay=torch.ones(K, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"decay must be a number for this rule, got shape \[6\]"):
        RULES[name].step(RULES[name].empty(write), write)


@pytest.mark.parametrize(
    "name",
    ["mamba2", "deltanet", "kda", "comba", "titans", "longhorn", "ttt_linear", "deltaformer"],
)
def test_a_rule_with_one_step_size_refuses_one_a_channel(name):
    v = numbers(*writes(name)[0].v.shape[:-1], K, seed=1)  # as long as the key: it would be spread
    write = replace(writes(name)[0], v=v, beta=torch.ones(K, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"beta must be a number for this rule, got shape \[6\]"):
        RULES[name].step(RULES[name].empty(write), write)


@pytest.mark.parametrize("name", [name for name in RULES if name not in SEVERAL])
def test_a_rule_of_one_pair_refuses_several(name):
    rule, write = RULES[name], writes(name)[0]
    several = replace(write, k=torch.stack([write.k] * 2), v=torch.stack([write.v] * 2))
    asked = [rule.step, rule.released or rule.step]
    asked += [] if name in ADDING else [rule.eigenvalue]
    asked += [] if rule.limit(states(name)[3], write) == math.inf else [rule.limit]
    for function in asked:
        with pytest.raises(ValueError, match=r"k must have shape \[K\] for .* got \[2, 6\]"):
            function(states(name)[3], several)


def spectrum_of_titans(write):
    """Of the matrix that maps S and M, found by writing zeros into unit states."""
    rule, zero = RULES["titans"], torch.zeros(K, 2 * K, dtype=torch.float64)
    blank = replace(write, v=torch.zeros(2 * K, dtype=torch.float64))
    start = rule.empty(blank)._replace(S=zero.clone(), M=zero.clone())
    start.S[:, :K], start.M[:, K:] = I, I
    return torch.linalg.eigvals(torch.cat(rule.step(start, blank)))


def test_the_eigenvalues_of_titans():
    write = even("titans", replace(writes("titans")[0], k=1.3 * unit(K, seed=5)))
    found = spectrum_of_titans(write)
    for x in RULES["titans"].eigenvalue(None, write):
        assert (found - x).abs().min() < 1e-10


@pytest.mark.parametrize("name", ["gated_deltanet", "kda", "comba", "rwkv7", "titans"])
def test_within_its_limit_a_memory_with_a_decay_a_channel_is_stable(name):
    """Whatever the decays: where they differ, the limit may be below what would do."""
    for write in writes(name):
        write = replace(write, beta=torch.ones(K if name == "rwkv7" else (), dtype=torch.float64))
        decay = between(0, 1, K, seed=int(1e6 * write.k[0].abs()))
        write = replace(write, k=1.7 * write.k, decay=decay)
        beta = RULES[name].limit(None, write) * write.beta
        write = replace(write, beta=beta)
        found = spectrum_of_titans(write) if name == "titans" else spectrum(name, write)
        assert found.abs().max() < 1 + 1e-12


def test_deltaproduct_of_one_pair_is_deltanet():
    state, write = states("deltanet")[3], writes("deltanet")[3]
    one, other = (RULES[name].step(state, write) for name in ("deltaproduct", "deltanet"))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"k": [1.0]}, TypeError, "k must be a torch.Tensor, got list"),
        ({"v": torch.ones(V)}, TypeError, "v must be torch.float64 like k, got torch.float32"),
        ({"k": I[None]}, ValueError, r"k must have shape \[K\] or \[n, K\], got \[1, 6, 6\]"),
        ({"v": I[0, 0]}, ValueError, r"v must have shape \[V\] like k, got \[\]"),
        ({"v": I}, ValueError, r"v must have shape \[V\] like k, got \[6, 6\]"),
        ({"k": I[:2], "v": I}, ValueError, r"v must have shape \[2, V\] like k, got \[6, 6\]"),
        ({"q": I[0, :1]}, ValueError, r"q must have shape \[K\] = \[6\] like k, got \[1\]"),
        ({"write_key": I}, ValueError, r"write_key must have shape \[K\] = \[6\] like k"),
        ({"beta": "large"}, TypeError, "beta must be a number, got str"),
        ({"beta": I[0, :2]}, ValueError, r"beta must be a number or of shape \[6\], got"),
        ({"decay": I[0].long()}, TypeError, "decay must be a tensor of floats, got torch.int64"),
        ({"decay": I}, ValueError, r"decay must be .* of shape \[6\], got shape \[6, 6\]"),
        ({"momentum": I[0]}, ValueError, r"momentum must be a number, got shape \[6\]"),
        ({"ridge": True}, TypeError, "ridge must be a number, got bool"),
        ({"v": I[0].to("meta")}, ValueError, "v must be on cpu like k, got meta"),
        ({"beta": I[0].to("meta")}, ValueError, "beta must be on cpu like k, got meta"),
    ],
)  # fmt: skip
def test_a_write_checks_what_it_is_given(wrong, error, message):
    right = {"k": I[0], "v": numbers(V, seed=1)}
    with pytest.raises(error, match=message):
        Write(**right | wrong)


def test_a_write_keeps_gates_that_there_are():
    with pytest.raises(ValueError, match=r"gates must be some of \['beta', .*, got \['gamma'\]"):
        Write(I[0], I[0]).only("gamma")


def test_a_rule_has_a_kind():
    with pytest.raises(ValueError, match="got 'lazy'"):
        replace(RULES["deltanet"], kind="lazy")


@pytest.mark.parametrize("name", ["titans", "mesa"])
def test_what_runs_token_by_token_checks_all_that_it_takes(name):
    q, k, v, beta = inputs()
    gates = {"beta": beta, "momentum": beta}
    if name == "mesa":
        gates = {"ridge": torch.ones(2, k.shape[-1])}
    right = {"q": q, "k": k, "v": v, **gates}
    for wrong, message in (
        ({"k": k[..., 1:]}, "k must have shape"),
        ({"v": v[:, 1:]}, "v must have shape"),
        ({"g": beta[:, :-1]}, "g must have shape"),
        ({"scale": math.nan}, "scale must be finite, got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            getattr(rules, name)(**right | wrong)
