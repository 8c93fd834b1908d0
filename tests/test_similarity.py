"""Kernel functions: the formulas, the feature maps, and the properties the book relies on."""

import math

import pytest
import torch

from assocmem import similarity
from assocmem.similarity import (
    DPFP,
    GELU,
    RBF,
    EluPlusOne,
    Exponential,
    Linear,
    Polynomial,
    PositiveRandomFeatures,
    ReLU,
    Round,
    SiLU,
    Similarity,
    SoLU,
    Taylor,
)
from assocmem.similarity.features import directions

# Those with a feature map, and its size for d = 6.
FINITE = {
    Linear(): 6,
    Polynomial(2): 36,
    Polynomial(3): 216,
    Taylor(2): 1 + 6 + 36,
    Taylor(3, 1.5): 1 + 6 + 36 + 216,
    EluPlusOne(): 6,
    DPFP(1): 12,
    DPFP(3): 36,
    PositiveRandomFeatures(50): 50,
    PositiveRandomFeatures(7, 2.0, seed=3): 7,
}
# Those with features without end, and those with none at all.
INFINITE = [Exponential(), Exponential(2.5), RBF(), RBF(1.5), SoLU(3.0)]
INDEFINITE = [ReLU(), ReLU(2), GELU(), SiLU(0.5), Round(3.0)]
EVERY = [*FINITE, *INFINITE, *INDEFINITE]


def vectors(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def logistic(u):
    return 1 / (1 + math.exp(-u))


def normal(u):
    return 0.5 * math.erfc(-u / math.sqrt(2))


def dot(f):
    """A kernel function of the dot product, pair by pair in plain Python."""
    return lambda x, y: f(sum(a * b for a, b in zip(x, y, strict=True)))


def through(phi):
    """A kernel function by its features."""
    return lambda x, y: sum(a * b for a, b in zip(phi(x), phi(y), strict=True))


def dpfp(nu):
    def phi(x):
        r = [max(0.0, a) for a in x] + [max(0.0, -a) for a in x]
        return [r[i] * r[i - j] for j in range(1, nu + 1) for i in range(len(r))]

    return phi


FORMULAS = [
    (Linear(), dot(lambda z: z)),
    (Polynomial(3), dot(lambda z: z * z * z)),
    (Taylor(), dot(lambda z: 1 + z / math.sqrt(6) + z * z / 12)),
    (Taylor(3, 2.0), dot(lambda z: 1 + z / 2 + z**2 / 8 + z**3 / 48)),
    (Exponential(), dot(lambda z: math.exp(z / math.sqrt(6)))),
    (Exponential(2.5), dot(lambda z: math.exp(z / 2.5))),
    (SoLU(), dot(lambda z: z * math.exp(z / math.sqrt(6)))),
    (SoLU(2.5), dot(lambda z: z * math.exp(z / 2.5))),
    (RBF(), lambda x, y: math.exp(-(math.dist(x, y) ** 2) / (2 * math.sqrt(6)))),
    (RBF(1.5), lambda x, y: math.exp(-(math.dist(x, y) ** 2) / 4.5)),
    (ReLU(), dot(lambda z: max(0.0, z))),
    (ReLU(2), dot(lambda z: max(0.0, z) ** 2)),
    (GELU(), dot(lambda z: z / math.sqrt(6) * normal(z / math.sqrt(6)))),
    (GELU(0.5), dot(lambda z: z / 0.5 * normal(z / 0.5))),
    (SiLU(), dot(lambda z: z / math.sqrt(6) * logistic(z / math.sqrt(6)))),
    (Round(), dot(lambda z: float(round(z)))),
    (Round(0.7), dot(lambda z: float(round(z / 0.7)))),
    (EluPlusOne(), through(lambda x: [a + 1 if a > 0 else math.exp(a) for a in x])),
    (DPFP(), through(dpfp(1))),
    (DPFP(3), through(dpfp(3))),
]


@pytest.mark.parametrize(("kappa", "f"), FORMULAS, ids=[str(kappa) for kappa, _ in FORMULAS])
def test_scores_are_the_formula_of_every_pair(kappa, f):
    q, k = vectors(3, 6), vectors(4, 6, seed=1)
    expected = [[f(x, y) for y in k.tolist()] for x in q.tolist()]
    got = kappa(q, k)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=got.dtype), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kappa", EVERY, ids=str)
def test_scores_of_a_batch(kappa):
    q, k = vectors(2, 3, 6), vectors(2, 4, 6, seed=1)
    torch.testing.assert_close(kappa(q, k)[1], kappa(q[1], k[1]))
    torch.testing.assert_close(kappa(q, k[1])[1], kappa(q[1], k[1]))
    torch.testing.assert_close(kappa(q[1], k)[1], kappa(q[1], k[1]))


@pytest.mark.parametrize("kappa", EVERY, ids=str)
def test_the_dtype_is_that_of_the_keys(kappa):
    assert kappa(vectors(3, 6).float(), vectors(4, 6).float()).dtype == torch.float32


@pytest.mark.parametrize("kappa", FINITE, ids=str)
def test_the_feature_map_gives_the_kernel_function(kappa):
    phi, q, k = kappa.feature_map, vectors(2, 3, 6), vectors(2, 4, 6, seed=1)
    assert phi(q).shape == (2, 3, FINITE[kappa])
    torch.testing.assert_close(phi(q) @ phi(k).mT, kappa(q, k), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kappa", [*INFINITE, *INDEFINITE], ids=str)
def test_without_a_finite_feature_map_there_is_none(kappa):
    assert kappa.feature_map is None


@pytest.mark.parametrize("kappa", [*FINITE, *INFINITE], ids=str)
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


@pytest.mark.parametrize("kappa", INDEFINITE, ids=str)
def test_activations_are_not_positive_definite(kappa):
    angles = torch.arange(16, dtype=torch.float64) * math.pi / 8
    x = 2 * torch.stack((angles.cos(), angles.sin()), -1)
    eigenvalues = torch.linalg.eigvalsh(kappa(x, x))
    assert eigenvalues.min() < -1e-3 * eigenvalues.max()


def test_on_a_sphere_the_rbf_is_the_exponential():
    x = vectors(7, 6)
    x = 1.7 * x / x.norm(dim=1, keepdim=True)
    ratio = RBF(1.3)(x, x) / Exponential(1.3**2)(x, x)
    torch.testing.assert_close(ratio, torch.full_like(ratio, math.exp(-((1.7 / 1.3) ** 2))))


def test_the_rbf_does_not_exceed_one():
    x = 1e4 * vectors(50, 6)
    assert RBF()(x, x).max() <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_rbf_of_near_keys_is_exact_in_half_precision(dtype):
    x = (3 * vectors(50, 64)).to(dtype)
    got = RBF(1.0)(x, x)
    assert got.dtype == dtype
    assert (got.diagonal() == 1).all()


@pytest.mark.parametrize("offset", [1e3, 1e4])
def test_the_rbf_of_keys_far_from_the_origin(offset):
    x, y = (torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    x, y = x + offset, y + offset  # what float32 holds of them
    expected = (-torch.cdist(x.double(), y.double()).square() / 2 / 9).exp()
    torch.testing.assert_close(RBF(3.0)(x, y).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("far", [1e4, 1e20])
def test_a_key_far_away_leaves_the_rbf_of_others(far):
    k = torch.tensor([[0.0], [0.5], [far]])
    expected = torch.tensor([1.0, math.exp(-1 / 8), 0.0])
    torch.testing.assert_close(RBF(1.0)(torch.zeros(1), k), expected)


@pytest.mark.parametrize("name", similarity.SIMILARITIES)
def test_one_query_has_one_row_of_scores(name):
    q, k = vectors(1, 6), vectors(4, 6, seed=1)
    kappa = similarity.get(name)
    assert torch.equal(kappa(q[0], k), kappa(q, k)[0])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_key_that_is_not_finite_reaches_its_own_rbf_alone(bad):
    k = vectors(4, 6)
    k[2, 0] = bad
    got, expected = RBF()(vectors(3, 6, seed=1), k), RBF()(vectors(3, 6, seed=1), vectors(4, 6))
    kept = torch.tensor([0, 1, 3])
    torch.testing.assert_close(got[:, kept], expected[:, kept])


def test_the_rbf_without_keys_has_a_gradient():
    q = vectors(3, 6).requires_grad_()
    (RBF()(q, vectors(0, 6)) @ vectors(0, 2)).sum().backward()
    assert q.grad is not None
    assert not q.grad.any()


@pytest.mark.parametrize("sigma", [1e-150, 1e-25, 1e25, 1e150])
def test_the_rbf_of_any_width_is_one_where_query_and_key_agree(sigma):
    x = vectors(5, 6).float()
    expected = torch.eye(5) if sigma < 1 else torch.ones(5, 5)
    assert torch.equal(RBF(sigma)(x, x), expected)


@pytest.mark.parametrize(
    ("dtype", "x"), [(torch.float32, -20.0), (torch.float32, -80.0), (torch.bfloat16, -8.0)]
)
def test_the_tail_of_elu_plus_one_is_an_exponential(dtype, x):
    tail = similarity.elu_plus_one(torch.tensor([x], dtype=dtype))
    torch.testing.assert_close(tail, torch.tensor([math.exp(x)], dtype=dtype), rtol=1e-2, atol=0)


def test_elu_plus_one_is_smooth_and_takes_what_is_not_finite():
    x = torch.tensor([-3.0, -1e-6, 0.0, 1e-6, 2.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(similarity.elu_plus_one(x).sum(), x)
    torch.testing.assert_close(gradient, x.detach().clamp_max(0).exp(), rtol=1e-15, atol=0)
    x = torch.tensor([-1.3, 0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(similarity.elu_plus_one, x)
    x = torch.tensor([-math.inf, math.inf, math.nan])
    assert str(similarity.elu_plus_one(x).tolist()) == "[0.0, inf, nan]"


def test_features_of_a_high_degree():
    x = torch.tensor([[0.7]], dtype=torch.float64)
    phi = Taylor(180, 1.0).features(x)
    assert phi.shape == (1, 181)
    assert (phi @ phi.mT).item() == pytest.approx(math.exp(0.49), rel=1e-14)


def test_random_features_keep_nothing_of_their_first_caller():
    x, kappa = vectors(2, 6), PositiveRandomFeatures(11, seed=12345)
    with torch.inference_mode(), torch.device("meta"):
        kappa.features(x)
    x.requires_grad_()
    kappa.features(x).sum().backward()
    assert x.grad is not None


def test_positive_random_features_are_unbiased_with_the_variance_of_the_book():
    q, k = 0.3 * vectors(1, 6), 0.3 * vectors(1, 6, seed=1)
    estimates = torch.stack(
        [PositiveRandomFeatures(40, 1.3, seed)(q, k).squeeze() for seed in range(3000)]
    )
    q, k = q / 1.3**0.5, k / 1.3**0.5
    exact = math.exp((q * k).sum())
    variance = (math.exp((q + k).square().sum()) - 1) * exact**2 / 40
    assert abs(estimates.mean().item() - exact) < 4 * (variance / 3000) ** 0.5
    # The variance of a variance: heavy tails make it larger than a Gaussian's 2/3000.
    assert estimates.var().item() == pytest.approx(variance, rel=0.25)


def test_random_features_are_the_same_at_every_call_and_others_for_another_seed():
    x = vectors(2, 6)
    first = PositiveRandomFeatures(9, seed=1)
    assert torch.equal(first.features(x), PositiveRandomFeatures(9, seed=1).features(x))
    assert not torch.equal(first.features(x), PositiveRandomFeatures(9, seed=2).features(x))


def test_taylor_approaches_the_exponential():
    q, k = vectors(3, 6), vectors(4, 6, seed=1)
    errors = [(Taylor(p)(q, k) - Exponential()(q, k)).abs().max().item() for p in (2, 6, 20)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-10


def test_the_exponential_is_the_sum_of_the_polynomials():
    q, k = vectors(3, 6), vectors(4, 6, seed=1)
    series = sum(
        Polynomial(p)(q, k) / (2.5**p * math.factorial(p)) if p else 1.0 for p in range(40)
    )
    torch.testing.assert_close(Exponential(2.5)(q, k), series, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kappa", similarity.SIMILARITIES.values(), ids=str)
def test_a_graph_holds_a_kernel_function(kappa):
    for dynamic in (None, True):
        torch.compiler.reset()  # after eight kernel functions PyTorch gives up
        compiled = torch.compile(kappa, fullgraph=True, dynamic=dynamic, backend="aot_eager")
        for d in (6, 8):
            q, k = vectors(4, d, seed=1), vectors(5, d, seed=2)
            torch.testing.assert_close(compiled(q, k), kappa(q, k))


def test_opcheck_of_directions():
    torch.library.opcheck(directions, (5, 6, 0))


def test_names():
    for name, kappa in similarity.SIMILARITIES.items():
        assert similarity.get(name) is kappa
    for name in ("linear", "polynomial", "exponential", "relu"):
        assert getattr(similarity, name) is similarity.get(name)
    assert similarity.get(ReLU(3)) == ReLU(3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Polynomial(0), ValueError, "degree must be at least 1, got 0"),
        (lambda: Polynomial(1.5), TypeError, "degree must be an integer, got float"),  # pyright: ignore[reportArgumentType]
        (lambda: Taylor(0), ValueError, "degree must be at least 1, got 0"),
        (lambda: Taylor(2, 0.0), ValueError, "tau must be finite and > 0, got 0.0"),
        (lambda: SoLU(-1.0), ValueError, "tau must be finite and > 0, got -1.0"),
        (lambda: GELU(0.0), ValueError, "tau must be finite and > 0, got 0.0"),
        (lambda: SiLU(0.0), ValueError, "tau must be finite and > 0, got 0.0"),
        (lambda: Round(0.0), ValueError, "tau must be finite and > 0, got 0.0"),
        (lambda: RBF(0.0), ValueError, "sigma must be finite and > 0, got 0.0"),
        (lambda: DPFP(0), ValueError, "nu must be at least 1, got 0"),
        (lambda: PositiveRandomFeatures(0), ValueError, "m must be at least 1, got 0"),
        (lambda: PositiveRandomFeatures(seed=-1), ValueError, "seed must be at least 0, got -1"),
        (lambda: PositiveRandomFeatures(seed=2**63), ValueError, r"seed must be below 2 \*\* 63"),
        (
            lambda: PositiveRandomFeatures(4, 0.0),
            ValueError,
            "tau must be finite and > 0, got 0.0",
        ),
        (lambda: ReLU(0), ValueError, "power must be at least 1, got 0"),
        (lambda: Exponential(0.0), ValueError, "tau must be finite and > 0, got 0.0"),
        (lambda: Exponential(float("nan")), ValueError, "tau must be finite and > 0, got nan"),
        (lambda: Exponential(math.inf), ValueError, "tau must be finite and > 0, got inf"),
        (lambda: Exponential("a"), TypeError, "tau must be a number, got str"),  # pyright: ignore[reportArgumentType]
        (lambda: Exponential(torch.ones(2)), TypeError, "tau must be a number, got Tensor"),  # pyright: ignore[reportArgumentType]
        (lambda: Exponential(True), TypeError, "tau must be a number, got bool"),
        (lambda: Round(None), TypeError, "tau must be a number, got NoneType"),  # pyright: ignore[reportArgumentType]
        (lambda: Polynomial(True), TypeError, "degree must be an integer, got bool"),
        (lambda: RBF(1e-200), ValueError, "sigma must lie between 1e-150 and 1e150"),
        (lambda: RBF(1e200), ValueError, "sigma must lie between 1e-150 and 1e150"),
        (
            lambda: similarity.linear(torch.tensor(1.0), torch.zeros(2, 3)),
            ValueError,
            r"q must have shape \[..., T, d\] with d >= 1, got \[\]",
        ),
        (
            lambda: similarity.linear(torch.zeros(2, 3), torch.zeros(3)),
            ValueError,
            r"k must have shape \[..., N, d\] with d >= 1, got \[3\]",
        ),
        (
            lambda: similarity.linear(torch.zeros(2, 0), torch.zeros(3, 0)),
            ValueError,
            r"q must have shape \[..., T, d\] with d >= 1, got \[2, 0\]",
        ),
        (
            lambda: similarity.linear(torch.zeros(4, 2, 3), torch.zeros(5, 2, 3)),
            ValueError,
            r"k must have leading sizes that broadcast with \[4\] of q, got shape \[5, 2, 3\]",
        ),
        (
            lambda: similarity.linear(torch.zeros(2, 3), torch.zeros(2, 3, device="meta")),
            ValueError,
            "k must be on cpu like q, got meta",
        ),
        (lambda: similarity.get("cosine"), ValueError, "similarity must be one of .*'cosine'"),
        (lambda: similarity.get(3), TypeError, "must be a name or a Similarity, got int"),  # pyright: ignore[reportArgumentType]
        (
            lambda: similarity.linear(torch.zeros(2, 3), torch.zeros(2, 4)),
            ValueError,
            r"k must have last size 3 like q, got shape \[2, 4\]",
        ),
        (
            lambda: similarity.linear([[1.0]], torch.zeros(2, 1)),  # pyright: ignore[reportArgumentType]
            TypeError,
            "q must be a torch.Tensor, got list",
        ),
        (
            lambda: similarity.linear(torch.zeros(2, 1), torch.ones(2, 1).long()),
            TypeError,
            "k must be a tensor of floats, got torch.int64",
        ),
        (
            lambda: RBF()(torch.zeros(2, 1), torch.zeros(2, 1).double()),
            TypeError,
            "k must be torch.float32 like q, got torch.float64",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_scores_of_another_shape_are_refused():
    class Sum(Similarity):
        def scores(self, q, k):
            return (q @ k.mT).sum(-1, keepdim=True)

    with pytest.raises(
        ValueError, match=r"scores of .*Sum\(\) must have shape \[\.\.\., T, N\] = \[2, 3\], got"
    ):
        Sum()(torch.ones(2, 5), torch.ones(3, 5))


@pytest.mark.parametrize(
    ("phi", "came"),
    [
        (lambda x: x.norm(dim=-1), r"\[2\]"),
        (lambda x: x.norm(), r"\[\]"),
        (lambda x: x.shape, "Size"),
    ],
)
def test_features_of_another_shape_are_refused(phi, came):
    class Own(similarity.Featured):
        def features(self, x):
            return phi(x)

    refused = pytest.raises(
        ValueError,
        match=rf"features of .*Own\(\) must have shape \[\.\.\., m\] = \[2, m\], got {came}$",
    )
    with refused:
        Own()(torch.ones(2, 5), torch.ones(3, 5))
    with refused:
        Own().feature_map(torch.ones(2, 5))


@pytest.mark.parametrize(
    "kappa", [Similarity(), similarity.DotProduct(), similarity.Featured()], ids=str
)
def test_a_kernel_function_without_its_formula_is_incomplete(kappa):
    with pytest.raises(NotImplementedError):
        kappa(torch.zeros(1, 2), torch.zeros(1, 2))
