"""Constructions: exact against permutations and graphs that are followed by hand."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch

from assocmem import constructions, ops, similarity, tasks

FORMS = ("recurrent", "chunk")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def places_after(pairs: torch.Tensor, n: int) -> list[list[int]]:
    """The elements in their places after each swap of one sequence `[T, 2]`."""
    held, states = list(range(n)), []
    for i, j in pairs.tolist():
        held[i], held[j] = held[j], held[i]
        states.append(list(held))
    return states


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("length", [0, 1, 300])
def test_parity(backend, length):
    bits = torch.randint(2, (3, length), generator=generator())
    right = [[sum(row[: t + 1]) % 2 for t in range(length)] for row in bits.tolist()]
    assert constructions.parity(bits, backend).tolist() == right


def test_parity_of_a_hundred_thousand_bits():
    bits = torch.randint(2, (1, 100_000), generator=generator())
    right = list(itertools.accumulate(bits[0].tolist(), lambda a, b: a ^ b))
    assert constructions.parity(bits)[0].tolist() == right


def test_a_step_size_of_at_most_one_cannot_hold_a_parity():
    """The control: with eigenvalues in [0, 1] the sign of the state never changes."""
    bits = torch.randint(2, (1, 200), generator=generator())
    one = torch.ones(1, 200, 1, 1, dtype=torch.float64)
    beta = bits[..., None].double()
    start = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    o, _ = ops.delta_rule(one, one, 0 * one, beta, scale=1.0, initial_state=start)
    assert (o >= 0).all()
    assert (bits.cumsum(1) % 2).float().mean() > 0.4


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize(("n", "length"), [(2, 50), (5, 2000), (16, 2000), (64, 1000)])
def test_swaps(n, length, backend):
    if backend == "recurrent":
        length //= 10
    drawn = tasks.swaps(2, length, n, generator())
    states = constructions.swaps(drawn.pairs, n, backend)
    assert states.tolist() == [places_after(pairs, n) for pairs in drawn.pairs]


def test_swaps_do_not_care_which_place_comes_first():
    pairs = tasks.swaps(1, 50, 7, generator()).pairs
    assert torch.equal(constructions.swaps(pairs, 7), constructions.swaps(pairs.flip(-1), 7))


@pytest.mark.parametrize("group", tasks.GROUPS)
def test_word_problem(group):
    elements = torch.tensor(tasks.GROUPS[group])
    drawn = tasks.word_problem(1, 5000, group, generator())
    assert set(drawn.tokens.unique().tolist()) == set(range(len(elements)))
    states = constructions.word_problem(elements[drawn.tokens])
    assert torch.equal(states, elements[drawn.targets])


@pytest.mark.parametrize("s", [1, 2, 3])
def test_unbiased_bases(s):
    d = 4**s
    keys = constructions.unbiased_bases(s)
    assert keys.shape == (d * (2**s + 1), d)
    products = (keys @ keys.mT).abs()
    basis = torch.arange(len(keys)) // d
    same = basis[:, None] == basis[None, :]
    assert torch.equal(products.where(same, 0.0), torch.eye(len(keys)).double())
    assert (products[~same] - d**-0.5).abs().max() <= 1e-15


def test_the_largest_bases():
    """A key of each: a polynomial that has factors would make some of them more alike."""
    keys = constructions.unbiased_bases(5)[::1024]
    products = (keys @ keys.mT).abs()
    assert torch.equal(products, torch.full_like(products, 1 / 32).fill_diagonal_(1.0))


def test_more_elements_than_dimensions():
    """4,352 elements under keys of size 256: not one wrong place in 2,000 swaps of any of them."""
    keys = constructions.unbiased_bases(4)
    drawn = tasks.swaps(1, 2000, len(keys), generator())
    read = constructions.swaps_of_similar_keys(drawn.pairs, keys)
    assert keys.shape == (4352, 256)
    assert torch.equal(read, drawn.states.double())


def test_the_linear_kernel_function_loses_similar_keys():
    keys = constructions.unbiased_bases(3)[:128]
    drawn = tasks.swaps(1, 300, 128, generator())
    exact = constructions.swaps_of_similar_keys(drawn.pairs, keys)
    linear = constructions.swaps_of_similar_keys(drawn.pairs, keys, "linear")
    assert torch.equal(exact, drawn.states.double())
    assert (linear[:, -1].round() == drawn.states[:, -1]).double().mean() < 0.1
    orthogonal = torch.eye(128, dtype=torch.float64)
    linear = constructions.swaps_of_similar_keys(drawn.pairs, orthogonal, "linear")
    assert torch.equal(linear, drawn.states.double())


def test_keys_that_are_too_similar_fail():
    """Beyond ε = 1/8 an inner product of two differences can round to the wrong integer."""
    keys = torch.randn(64, 32, generator=generator(), dtype=torch.float64)
    keys /= keys.norm(dim=1, keepdim=True)
    drawn = tasks.swaps(1, 300, 64, generator())
    read = constructions.swaps_of_similar_keys(drawn.pairs, keys)
    assert (read[:, -1] == drawn.states[:, -1]).double().mean() < 0.5


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0)])
def test_no_swaps_of_similar_keys(shape):
    pairs = torch.zeros(*shape, 2, dtype=torch.int64)
    read = constructions.swaps_of_similar_keys(pairs, torch.eye(3).double())
    assert read.shape == (*shape, 3)


def test_a_cache_that_is_rewritten_stays_short():
    keys = constructions.unbiased_bases(4)[:16]
    drawn = tasks.swaps(2, 400, 16, generator())
    held = []

    class Seen(similarity.Round):
        def scores(self, q, k):
            held.append(len(k))
            return super().scores(q, k)

    read = constructions.swaps_of_similar_keys(drawn.pairs, keys, Seen(), rewrite_every=16)
    assert torch.equal(read, drawn.states.double())
    assert max(held) == 16 + 16


@pytest.mark.parametrize("m", [2, 3, 5, 12])
def test_dihedral(m):
    tokens = torch.randint(2, (2, 3000), generator=generator())
    a, b = constructions.dihedral(tokens, m)
    for row, a_row, b_row in zip(tokens.tolist(), a.tolist(), b.tolist(), strict=True):
        rotation, mirrored, right = 0, 0, []
        for token in row:
            if token == 0:  # (r^a s^b) r = r^(a ± 1) s^b
                rotation = (rotation + (-1 if mirrored else 1)) % m
            else:
                mirrored ^= 1
            right.append((rotation, mirrored))
        assert list(zip(a_row, b_row, strict=True)) == right


def test_all_layers_of_dihedral_run_the_form_that_is_asked_for(monkeypatch):
    asked, delta_rule = [], ops.delta_rule

    def seen(*tokens, backend, **options):
        asked.append(backend)
        return delta_rule(*tokens, backend=backend, **options)

    monkeypatch.setattr(ops, "delta_rule", seen)
    constructions.dihedral(torch.tensor([[1]]), 3, "recurrent")
    assert asked == ["recurrent"] * 3


def random_graphs(count: int = 2000) -> tasks.Reachability:
    return tasks.reachability(count, 32, 1.5 / 32, generator())


@pytest.mark.parametrize("erase", ["linear", "mean"])
def test_reachability(erase):
    drawn = random_graphs()
    u = constructions.reachability(drawn.adjacency, erase=erase)
    assert torch.equal(u > 0, drawn.reachable)
    assert erase == "linear" or u.max() <= 1.0


def test_u_counts_paths():
    """0 → 1, 0 → 2, 1 → 3, 2 → 3, 3 → 4: two paths lead to 3 and to 4."""
    A = torch.zeros(1, 5, 5, dtype=torch.bool)
    for s, t in ((0, 1), (0, 2), (1, 3), (2, 3), (3, 4)):
        A[0, t, s] = True
    assert constructions.reachability(A)[0].tolist() == [1, 1, 1, 2, 2]
    assert constructions.reachability(A, erase="mean")[0].tolist() == [1, 1, 1, 1, 1]
    assert constructions.reachability(A, beta=-0.5)[0].tolist() == [1, 0.5, 0.5, 0.5, 0.25]


def test_more_paths_than_a_float_holds():
    everything = torch.ones(1, 1100, 1100).tril(-1).bool()
    u = constructions.reachability(everything)[0]
    assert u[:1025].isfinite().all()
    assert (u[1025:] == torch.inf).all()
    everything[0, -1] = False  # 0 · inf paths
    with pytest.raises(ValueError, match="adjacency must have fewer paths"):
        constructions.reachability(everything)


def test_the_other_sign_cancels_paths_and_random_weights_repair_it():
    drawn = random_graphs()
    u = constructions.reachability(drawn.adjacency, beta=1.0)
    right = ((u.abs() > 0.5) == drawn.reachable).all(1).double().mean()
    assert 0.85 < right < 0.97
    weights = torch.rand(drawn.adjacency.shape, generator=generator(1), dtype=torch.float64)
    u = constructions.reachability(weights * drawn.adjacency, beta=1.0)
    assert torch.equal(u.abs() > 1e-9, drawn.reachable)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: constructions.parity(torch.zeros(1, 2)), TypeError, "bits must be an int64"),
        (lambda: constructions.parity(torch.tensor([[0, 2]])), ValueError, "0 … 1, got 0 … 2"),
        (
            lambda: constructions.swaps(torch.tensor([[[0, 1], [2, 2]]]), 3),
            ValueError,
            "same twice",
        ),
        (lambda: constructions.swaps(torch.tensor([[[0, 3]]]), 3), ValueError, "0 … 2, got 0 … 3"),
        (lambda: constructions.swaps(torch.tensor([[[0, 1]]]), 1), ValueError, "n must be at"),
        (lambda: constructions.unbiased_bases(6), ValueError, "s must be at most 5, got 6"),
        (
            lambda: constructions.word_problem([[[0, 1]]]),  # pyright: ignore
            TypeError,
            "int64 tensor, got list",
        ),
        (
            lambda: constructions.word_problem(torch.tensor([[[0, 0, 1]]])),
            ValueError,
            "once in each row",
        ),
        (
            lambda: constructions.swaps_of_similar_keys(torch.tensor([[[0, 1]]]), torch.eye(3)),
            TypeError,
            "keys must be a float64 tensor, got torch.float32",
        ),
        (lambda: constructions.dihedral(torch.tensor([[0, 1]]), 1), ValueError, "m must be at"),
        (
            lambda: constructions.reachability(torch.ones(1, 3, 3, dtype=torch.bool)),
            ValueError,
            "strictly lower triangular",
        ),
        (
            lambda: constructions.reachability(torch.zeros(3, 3, dtype=torch.bool)),
            ValueError,
            r"\[B, n, n\] with n >= 1, got \[3, 3\]",
        ),
        (
            lambda: constructions.reachability(torch.zeros(1, 0, 0, dtype=torch.bool)),
            ValueError,
            r"with n >= 1, got \[1, 0, 0\]",
        ),
        (
            lambda: constructions.reachability(torch.zeros(1, 3, 4, dtype=torch.bool)),
            ValueError,
            r"\[B, n, n\] with n >= 1, got \[1, 3, 4\]",
        ),
        (
            lambda: constructions.swaps_of_similar_keys(
                torch.tensor([[[0, 1]]]), torch.eye(3).double(), "nope"
            ),
            ValueError,
            "kernel_function must be one of .*, got 'nope'",
        ),
        (
            lambda: constructions.reachability(torch.zeros(1, 3, 3)),
            TypeError,
            "adjacency must be a bool or float64 tensor, got torch.float32",
        ),
        (
            lambda: constructions.reachability(torch.zeros(1, 3, 3) > 0, beta=float("nan")),
            ValueError,
            "beta must be finite, got nan",
        ),
        (
            lambda: constructions.reachability(torch.zeros(1, 3, 3) > 0, beta="-1"),  # pyright: ignore
            TypeError,
            "beta must be a number, got str",
        ),
        (
            lambda: constructions.reachability(torch.zeros(1, 3, 3) > 0, erase="softmax"),
            ValueError,
            "erase must be one of .*, got 'softmax'",
        ),
        (
            lambda: constructions.swaps_of_similar_keys(
                torch.tensor([[[0, 1]]]), torch.ones(3).double()
            ),
            ValueError,
            r"keys must have shape \[n, d\] with n >= 2, got \[3\]",
        ),
        (
            lambda: constructions.swaps_of_similar_keys(
                torch.zeros(1, 0, 2).long(), torch.ones(1, 1).double()
            ),
            ValueError,
            r"keys must have shape \[n, d\] with n >= 2, got \[1, 1\]",
        ),
        *(
            (
                partial(
                    constructions.swaps_of_similar_keys,
                    torch.tensor([[[0, 1]]]).to(pairs),
                    torch.eye(2).double().to(keys),
                ),
                ValueError,
                f"pairs must be on {keys} like keys, got {pairs}",
            )
            for pairs, keys in (("cpu", "meta"), ("meta", "cpu"))
        ),
        (
            lambda: constructions.swaps_of_similar_keys(
                torch.tensor([[[0, 1]]]), 3 * torch.eye(2).double()
            ),
            ValueError,
            "keys must have length 1, got one that is off by 2",
        ),
        (
            lambda: constructions.swaps_of_similar_keys(
                torch.tensor([[[0, 1]]]), torch.eye(2).double().log()
            ),
            ValueError,
            "keys must be finite, got -inf",
        ),
        (
            lambda: constructions.swaps(torch.tensor([[[0, 1, 2]]]), 3),
            ValueError,
            r"pairs must have shape \[B, T, 2\], got \[1, 1, 3\]",
        ),
        (
            lambda: constructions.parity(torch.tensor([0, 1])),
            ValueError,
            r"bits must have shape \[B, T\], got \[2\]",
        ),
        (
            lambda: constructions.word_problem(torch.tensor([[[0]]])),
            ValueError,
            "n >= 2 elements, got 1",
        ),
        *(
            (partial(call, backend="triton"), RuntimeError, "backend='triton' cannot run here")
            for call in (
                partial(constructions.parity, torch.tensor([[1]])),
                partial(constructions.swaps, torch.tensor([[[0, 1]]]), 2),
                partial(constructions.word_problem, torch.tensor([[[1, 0]]])),
            )
        ),
        (lambda: constructions.unbiased_bases(0), ValueError, "s must be at least 1, got 0"),
        (
            lambda: constructions.dihedral(torch.tensor([[0, 2]]), 3),
            ValueError,
            "tokens must lie in 0 … 1, got 0 … 2",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_swaps_of_similar_keys_are_of_places_that_exist():
    pairs, keys = torch.tensor([[[1, -1]]]), torch.eye(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="0 … 2, got -1 … 1"):
        constructions.swaps_of_similar_keys(pairs, keys)


def test_the_word_problem_is_where_its_permutations_are():
    permutations = torch.tensor([[[1, 0, 2], [2, 0, 1]]])
    expected = constructions.word_problem(permutations)
    with torch.device("meta"):  # a default device, as "cuda" is one
        assert torch.equal(constructions.word_problem(permutations), expected)


def test_the_word_problem_of_two_elements():
    states = constructions.word_problem(torch.tensor([1, 0]).expand(1, 3, 2))
    assert states.tolist() == [[[1, 0], [0, 1], [1, 0]]]
