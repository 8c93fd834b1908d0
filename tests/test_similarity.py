"""Kernel functions: the formulas, the feature maps, and the properties the book relies on."""

import math

import pytest
import torch

from assocmem import similarity
from assocmem.similarity import Exponential, Linear, Polynomial, ReLU, Similarity

EVERY = [Linear(), Polynomial(2), Polynomial(3), Exponential(), Exponential(2.5), ReLU(), ReLU(2)]


def vectors(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


FORMULAS = [
    (Linear(), lambda z, d: z),
    (Polynomial(3), lambda z, d: z * z * z),
    (Exponential(), lambda z, d: math.exp(z / math.sqrt(d))),
    (Exponential(2.5), lambda z, d: math.exp(z / 2.5)),
    (ReLU(), lambda z, d: max(0.0, z)),
    (ReLU(2), lambda z, d: max(0.0, z) ** 2),
]


@pytest.mark.parametrize(("kappa", "f"), FORMULAS, ids=[str(kappa) for kappa, _ in FORMULAS])
def test_scores_are_the_formula_of_every_pair(kappa, f):
    q, k = vectors(3, 6), vectors(4, 6, seed=1)
    expected = [[f(sum(a * b for a, b in zip(x, y, strict=True)), 6) for y in k] for x in q]
    got = kappa(q, k)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=got.dtype), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("kappa", EVERY, ids=str)
def test_scores_of_a_batch(kappa):
    q, k = vectors(2, 3, 6), vectors(2, 4, 6, seed=1)
    torch.testing.assert_close(kappa(q, k)[1], kappa(q[1], k[1]))


@pytest.mark.parametrize("kappa", EVERY, ids=str)
def test_the_feature_map_gives_the_kernel_function(kappa):
    phi = kappa.feature_map
    if phi is None:
        assert isinstance(kappa, Exponential | ReLU)
        return
    q, k = vectors(2, 3, 6), vectors(2, 4, 6, seed=1)
    m = 6 ** getattr(kappa, "degree", 1)
    assert phi(q).shape == (2, 3, m)
    torch.testing.assert_close(phi(q) @ phi(k).mT, kappa(q, k), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kappa", EVERY[:5], ids=str)
def test_with_a_feature_map_of_any_size_no_eigenvalue_is_negative(kappa):
    x = vectors(12, 6)
    eigenvalues = torch.linalg.eigvalsh(kappa(x, x))
    assert eigenvalues.min() >= -1e-12 * eigenvalues.max()


def test_relu_is_not_positive_definite():
    angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
    x = torch.stack((angles.cos(), angles.sin()), -1)
    eigenvalues = torch.linalg.eigvalsh(similarity.relu(x, x))
    # Of a circulant matrix with first row (1, a, 0, 0, 0, 0, 0, a), a = cos 45°: 1 + 2a cos(45° j).
    assert eigenvalues.min().item() == pytest.approx(1 - math.sqrt(2), rel=1e-12)


def test_the_exponential_is_the_sum_of_the_polynomials():
    q, k = vectors(3, 6), vectors(4, 6, seed=1)
    series = sum(
        Polynomial(p)(q, k) / (2.5**p * math.factorial(p)) if p else 1.0 for p in range(40)
    )
    torch.testing.assert_close(Exponential(2.5)(q, k), series, rtol=1e-12, atol=0)


def test_names():
    for name, kappa in similarity.SIMILARITIES.items():
        assert similarity.get(name) is kappa
        assert getattr(similarity, name) is kappa
    assert similarity.get(ReLU(3)) == ReLU(3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Polynomial(0), ValueError, "degree must be an integer >= 1, got 0"),
        (lambda: Polynomial(1.5), ValueError, "degree must be an integer >= 1, got 1.5"),  # pyright: ignore[reportArgumentType]
        (lambda: ReLU(0), ValueError, "power must be an integer >= 1, got 0"),
        (lambda: Exponential(0.0), ValueError, "tau must be > 0, got 0.0"),
        (lambda: Exponential(float("nan")), ValueError, "tau must be > 0, got nan"),
        (lambda: similarity.get("cosine"), ValueError, "similarity must be one of .*'cosine'"),
        (lambda: similarity.get(3), TypeError, "must be a name or a Similarity, got int"),  # pyright: ignore[reportArgumentType]
        (
            lambda: similarity.linear(torch.zeros(2, 3), torch.zeros(2, 4)),
            ValueError,
            r"k must have last size 3 like q, got shape \[2, 4\]",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_kernel_function_without_a_profile_is_incomplete():
    with pytest.raises(NotImplementedError):
        Similarity()(torch.zeros(1, 2), torch.zeros(1, 2))
