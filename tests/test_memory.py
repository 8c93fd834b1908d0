"""AssociativeMemory: both representations against sums written out, in float64."""

import pickle
from functools import partial
from typing import Any

import pytest
import torch

from assocmem import AssociativeMemory, ops, similarity
from assocmem.similarity import DotProduct, Exponential, Polynomial, ReLU

FINITE = ["linear", "polynomial", Polynomial(3)]
INFINITE = ["exponential", Exponential(2.0), "relu", ReLU(2)]
EVERY = FINITE + INFINITE


def pairs(N, d_k=5, d_v=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    k = torch.randn(N, d_k, generator=g, dtype=torch.float64)
    return k, torch.randn(N, d_v, generator=g, dtype=torch.float64)


def memory(*args: Any, **kw: Any) -> Any:
    return AssociativeMemory(5, 3, *args, dtype=torch.float64, **kw)


def close(got: Any, expected: Any, rtol: float = 1e-12) -> None:
    scale = expected.abs().max().item() or 1.0
    torch.testing.assert_close(got, expected, rtol=rtol, atol=rtol * scale)


def gates(N, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(2, N, generator=g, dtype=torch.float64).unbind()


def test_it_says_how_it_was_made():
    told = "AssociativeMemory(5, 3, ReLU(power=2), 'delta', normalize=True)"
    assert str(memory(ReLU(2), "delta", normalize=True)) == told


@pytest.mark.parametrize("kind", similarity.SIMILARITIES)
def test_it_is_loaded_as_it_was_saved(kind):
    before = memory(kind)
    k, v = pairs(4)
    before.write(k, v)
    assert torch.equal(pickle.loads(pickle.dumps(before)).read(k), before.read(k))


# --- reading ---


@pytest.mark.parametrize("kind", EVERY, ids=str)
def test_a_reading_is_the_weighted_sum_of_the_values(kind):
    k, v = pairs(7)
    q, _ = pairs(4, seed=2)
    m = memory(kind)
    m.write(k, v)
    close(m.read(q), similarity.get(kind)(q, k) @ v)
    close(m.read(q[1]), m.read(q)[1])
    assert m.read(q[1]).shape == (3,)


@pytest.mark.parametrize("kind", EVERY, ids=str)
@pytest.mark.parametrize("rule", ["hebbian", "delta"])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_batch_is_its_pairs_in_order(kind, rule, normalize):
    k, v = pairs(6)
    beta, decay = gates(6)
    q, _ = pairs(4, seed=2)
    whole, single = (memory(kind, rule, normalize=normalize) for _ in range(2))
    whole.write(k, v, beta, decay)
    for i in range(6):
        single.write(k[i], v[i], beta[i], decay[i])
    close(whole.read(q), single.read(q), rtol=1e-9)  # the normaliser can come close to 0


def test_the_state_of_the_linear_memory_is_the_sum_of_outer_products():
    k, v = pairs(6)
    m = memory()
    m.write(k, v)
    close(m.state, sum(torch.outer(a, b) for a, b in zip(k, v, strict=True)))


@pytest.mark.parametrize("kind", EVERY, ids=str)
def test_decay_scales_what_is_stored(kind):
    k, v = pairs(5)
    q, _ = pairs(4, seed=2)
    beta, decay = gates(5)
    m = memory(kind)
    m.write(k, v, beta, decay)
    weights = torch.stack([beta[i] * decay[i + 1 :].prod() for i in range(5)])
    close(m.read(q), similarity.get(kind)(q, k) @ (weights[:, None] * v))


def test_sizes_of_the_states():
    k, v = pairs(4)
    for kind, m in [("linear", 5), ("polynomial", 25), (Polynomial(3), 125)]:
        memory_of_kind = memory(kind)
        assert memory_of_kind.state.shape == (m, 3)
        memory_of_kind.write(k, v)
        assert memory_of_kind.state.shape == (m, 3)
    keeps = memory("exponential", normalize=True)
    keeps.write(k, v)
    assert [tuple(x.shape) for x in keeps.state] == [(4, 5), (4, 4)]


@pytest.mark.parametrize("gate", [None, 0.9])
def test_it_agrees_with_the_operator(gate):
    k, v = pairs(9)
    q, _ = pairs(9, seed=2)
    g = None if gate is None else torch.full((1, 9, 1), gate, dtype=torch.float64).log()
    o, _ = ops.linear_attention(
        *(x[None, :, None] for x in (q, k, v)), g, scale=1.0, backend="recurrent"
    )
    m = memory()
    for t in range(9):
        m.write(k[t], v[t], decay=gate or 1.0)
        close(m.read(q[t]), o[0, t, 0])


def test_a_normalised_exponential_memory_is_softmax_attention():
    k, v = pairs(8)
    q, _ = pairs(4, seed=2)
    m = memory("exponential", normalize=True)
    m.write(k, v)
    close(m.read(q), torch.nn.functional.scaled_dot_product_attention(q, k, v))


# --- the delta rule ---


@pytest.mark.parametrize("kind", EVERY, ids=str)
def test_the_delta_rule_overwrites(kind):
    k, v = pairs(6)
    m = memory(kind, "delta")
    m.write(k, v, 0.01)
    last = k[-1:]
    beta = 1 / similarity.get(kind)(last, last).squeeze()
    m.write(k[-1], v[0], beta)
    close(m.read(k[-1]), v[0])


def test_the_delta_rule_written_out():
    k, v = pairs(5)
    beta, decay = gates(5)
    m = memory("linear", "delta")
    m.write(k, v, beta, decay)
    S = torch.zeros(5, 3, dtype=torch.float64)
    for k_t, v_t, b, y in zip(k, v, beta, decay, strict=True):
        S = (torch.eye(5, dtype=torch.float64) - b * torch.outer(k_t, k_t)) @ (y * S)
        S = S + b * torch.outer(k_t, v_t)
    close(m.state, S)


def test_both_representations_follow_the_same_delta_rule():
    class Square(DotProduct):
        """Polynomial(2), for a memory that does not know of φ."""

        def profile(self, z: torch.Tensor, d: int) -> torch.Tensor:
            return z**2

    k, v = pairs(6)
    q, _ = pairs(4, seed=2)
    beta, decay = gates(6)
    readings = []
    for kind in (Polynomial(2), Square()):
        m = memory(kind, "delta")
        m.write(k, v, 0.05 * beta, decay)
        readings.append(m.read(q))
    close(*readings)


# --- forgetting ---


@pytest.mark.parametrize("kind", EVERY, ids=str)
@pytest.mark.parametrize("rule", ["hebbian", "delta"])
@pytest.mark.parametrize("normalize", [False, True])
def test_nothing_is_read_where_the_memory_forgot(kind, rule, normalize):
    k, v = pairs(6)
    m = memory(kind, rule, normalize=normalize)
    m.write(k, v, 0.05)
    before = m.read(k[2]).abs().max()
    m.forget(k[2])
    assert m.read(k[2]).abs().max() <= 1e-13 * max(before, 1)


@pytest.mark.parametrize("kind", EVERY, ids=str)
def test_forgetting_changes_others_by_their_likeness(kind):
    k, v = pairs(6)
    q, _ = pairs(4, seed=2)
    kappa = similarity.get(kind)
    m = memory(kind)
    m.write(k, v)
    before, lost = m.read(q), m.read(k[2])
    m.forget(k[2])
    share = kappa(q, k[2:3]) / kappa(k[2:3], k[2:3])
    close(m.read(q), before - share * lost)


def test_forgetting_leaves_orthogonal_keys_alone():
    _, v = pairs(5)
    m = memory()
    m.write(torch.eye(5, dtype=torch.float64), v)
    m.forget(torch.eye(5, dtype=torch.float64)[1])
    expected = v.clone()
    expected[1] = 0
    assert torch.equal(m.read(torch.eye(5, dtype=torch.float64)), expected)


# --- ordinary corner cases ---


def test_an_empty_memory_answers_zero_and_normalised_it_has_no_answer():
    q, _ = pairs(4)
    assert torch.equal(memory("relu").read(q), torch.zeros(4, 3, dtype=torch.float64))
    assert memory(normalize=True).read(q).isnan().all()


@pytest.mark.parametrize("kind", ["linear", "exponential"])
@pytest.mark.parametrize("rule", ["hebbian", "delta"])
def test_a_batch_of_no_pairs_changes_nothing(kind, rule):
    k, v = pairs(4)
    m = memory(kind, rule)
    m.write(k, v, 0.1)
    before = m.read(k)
    m.write(k[:0], v[:0])
    assert torch.equal(m.read(k), before)


def test_inputs_of_another_precision_are_cast():
    k, v = pairs(3)
    m = AssociativeMemory(5, 3)
    m.write(k.half(), v.bfloat16())
    assert m.read(k).dtype == torch.float32
    assert isinstance(m.state, torch.Tensor)
    assert m.state.dtype == torch.float32


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("rule", ["hebbian", "delta"])
@pytest.mark.parametrize("kind", ["linear", "relu"])
def test_gradients_reach_what_was_written(kind, rule, normalize):
    k, v = pairs(3)
    q = k.clone()

    def read(k, v, beta, decay):
        m = memory(kind, rule, normalize=normalize)
        m.write(k, v, beta, decay)
        return m.read(q)

    leaves = [x.requires_grad_() for x in (k, v, *gates(3))]
    assert torch.autograd.gradcheck(read, leaves)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", EVERY, ids=str)
def test_autocast_leaves_the_dtype_of_the_memory(kind, normalize):
    def story():
        m = AssociativeMemory(5, 3, kind, "delta", normalize=normalize)
        k, v = pairs(4)
        m.write(k.float(), v.float(), beta=0.3)
        m.forget(k[0].float())
        return m.read(k.float())

    expected = story()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(story(), expected)


@pytest.mark.parametrize("kind", ["polynomial", "exponential"])
def test_forgetting_where_numbers_must_not_be_looked_at(kind):
    def story(k, v):
        m = AssociativeMemory(5, 3, kind)
        m.write(k, v)
        m.forget(k[0])
        return m.read(k)

    k, v = (x.float() for x in pairs(4))
    expected = story(k, v)
    compiled = torch.compile(story, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(k, v), expected)
    torch.testing.assert_close(torch.func.vmap(story)(k[None], v[None])[0], expected)
    on_meta = AssociativeMemory(5, 3, kind, device="meta")
    on_meta.forget(k[0].to("meta"))


@pytest.mark.parametrize("kind", ["linear", "relu"])
def test_the_state_is_what_is_read_and_a_write_makes_a_new_one(kind):
    k, v = pairs(3)
    m = memory(kind)
    m.write(k, v)
    values = m.state if kind == "linear" else m.state[1]
    values.zero_()
    assert not m.read(k).any()
    m.write(k, v)
    assert m.read(k).any()
    assert not values.any()


# --- errors ---

OK = torch.zeros(5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: AssociativeMemory(0, 3), ValueError, "d_k must be at least 1, got 0"),
        (lambda: AssociativeMemory(5, 2.5), TypeError, "d_v must be an integer, got float"),  # pyright: ignore[reportArgumentType]
        (lambda: memory(rule="hebb"), ValueError, r"rule must be one of .*, got 'hebb'"),
        (lambda: memory("cosine"), ValueError, r"similarity must be one of .*, got 'cosine'"),
        (lambda: memory(3), TypeError, "similarity must be a name or a Similarity, got int"),
        (
            lambda: AssociativeMemory(5, 3, dtype=torch.int64),
            TypeError,
            "dtype must be a floating dtype, got torch.int64",
        ),
        (lambda: memory().read([1.0]), TypeError, "q must be a tensor of floats, got list"),
        (
            lambda: memory().read(torch.ones(5, dtype=torch.int64)),
            TypeError,
            "q must be a tensor of floats, got torch.int64",
        ),
        (lambda: memory().read(torch.zeros(4)), ValueError, r"\[5\] or \[N, 5\], got \[4\]"),
        (
            lambda: memory().read(torch.zeros(1, 2, 5)),
            ValueError,
            r"q must have shape \[5\] or \[N, 5\], got \[1, 2, 5\]",
        ),
        (
            lambda: memory().write(torch.zeros(2, 5), torch.zeros(3, 3)),
            ValueError,
            "v must hold as many rows as k, 2, got 3",
        ),
        (
            lambda: memory().write(OK, torch.zeros(3), beta=torch.zeros(2)),
            ValueError,
            r"beta must be a number or have shape \[1\], got \[2\]",
        ),
        (
            lambda: memory().write(OK, torch.zeros(3), decay="slow"),
            TypeError,
            "decay must be a number or a tensor, got str",
        ),
        (
            lambda: memory().forget(torch.zeros(2, 5)),
            ValueError,
            r"k must have shape \[d_k\] = \[5\], got \[2, 5\]",
        ),
        (lambda: memory().forget(OK), ValueError, "k must have κ"),
        (
            lambda: memory("exponential").forget(torch.full((5,), 30.0)),
            ValueError,
            r"k must have κ\(k, k\) that is finite in torch.float64, got inf",
        ),
        (
            lambda: memory().write(OK, torch.zeros(3), beta=torch.tensor(1j)),
            TypeError,
            "beta must be a tensor of real numbers, got torch.complex64",
        ),
        (
            lambda: memory().write(OK, torch.zeros(3), beta=torch.tensor(True)),
            TypeError,
            "beta must be a tensor of real numbers, got torch.bool",
        ),
        (
            lambda: memory().write(OK, torch.zeros(3), beta=1j),
            TypeError,
            "beta must be a number or a tensor, got complex",
        ),
        (
            lambda: memory().write(OK, torch.zeros(3), decay=True),
            TypeError,
            "decay must be a number or a tensor, got bool",
        ),
        (
            lambda: memory().read(torch.zeros(5, device="meta")),
            ValueError,
            "q must be on cpu like the memory, got meta",
        ),
        *(
            (
                partial(
                    memory().write, OK, torch.zeros(3), **{gate: torch.ones((), device="meta")}
                ),
                ValueError,
                f"{gate} must be on cpu like the memory, got meta",
            )
            for gate in ("beta", "decay")
        ),
        (lambda: memory(normalize=2), TypeError, "normalize must be a bool, got int"),
        (lambda: AssociativeMemory(True, 3), TypeError, "d_k must be an integer, got bool"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("kind", EVERY, ids=str)
def test_forgetting_leaves_the_divisor_as_it_is(kind):
    k, v = pairs(6)
    q, _ = pairs(4, seed=2)
    m, weights = memory(kind, normalize=True), memory(kind)
    m.write(k, v)
    weights.write(k, torch.ones_like(v))
    kappa = similarity.get(kind)
    share = kappa(q, k[2:3]) / kappa(k[2:3], k[2:3])
    before, lost, divisor = m.read(q), m.read(k[2]) * weights.read(k[2]), weights.read(q)
    m.forget(k[2])
    close(m.read(q), before - share * lost / divisor, rtol=1e-9)
