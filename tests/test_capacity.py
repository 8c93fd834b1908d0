"""Capacity: every closed form against an independent computation, and the measurement itself."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch

from assocmem import capacity, similarity
from assocmem.capacity import retrieval
from assocmem.capacity.exponential_forms import damped_log_0f1, log_0f1
from assocmem.similarity import GELU, RBF, Exponential, Polynomial, ReLU, Round, SiLU, SoLU, Taylor


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(N, d, d_v, seed=0):
    g = generator(seed)
    return (
        torch.randn(N, d, generator=g, dtype=torch.float64),
        torch.randn(N, d_v, generator=g, dtype=torch.float64),
    )


def by_definition(keys, values, kappa, queries=None):
    """‖o_i − c_i v_i‖² / (c_i² ‖v_i‖²), item by item."""
    queries = keys if queries is None else queries
    out = []
    for q, k, v in zip(queries, keys, values, strict=True):
        o = sum(kappa(q @ kj) * vj for kj, vj in zip(keys, values, strict=True))
        c = kappa(q @ k)
        out.append(((o - c * v) @ (o - c * v) / (c**2 * (v @ v))).item())
    return torch.tensor(out, dtype=torch.float64)


# --- the measurement ---


@pytest.mark.parametrize(
    ("name", "kappa"),
    [
        ("linear", lambda z: z),
        (similarity.Polynomial(3), lambda z: z**3),
        (similarity.Exponential(5.0), lambda z: torch.exp(z / 5)),
        (similarity.ReLU(2), lambda z: z.clamp_min(0) ** 2),
    ],
)
def test_noise_to_signal_is_the_definition(name, kappa):
    keys, values = pairs(9, 4, 3)
    queries = keys + 0.1 * pairs(9, 4, 3, seed=1)[0]
    for q in (None, queries):
        got = capacity.noise_to_signal(keys, values, name, q)
        torch.testing.assert_close(got, by_definition(keys, values, kappa, q), rtol=1e-10, atol=0)


def test_snr_of_a_memory_worked_by_hand():
    keys = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([0.36, 0.04, 0.64], dtype=torch.float64)
    torch.testing.assert_close(capacity.noise_to_signal(keys, values), expected)
    assert capacity.retrieval_snr(keys, values).item() == pytest.approx(3 / 1.04)


def test_blocks_do_not_change_the_answer(monkeypatch):
    keys, values = pairs(50, 8, 5)
    whole = capacity.noise_to_signal(keys, values)
    accuracy = capacity.nearest_value_accuracy(keys, values)
    monkeypatch.setattr("assocmem.capacity.retrieval.BLOCK", 50 * 7)
    monkeypatch.setattr("assocmem.capacity.decoding.BLOCK", 50 * 7)
    torch.testing.assert_close(capacity.noise_to_signal(keys, values), whole)
    assert capacity.nearest_value_accuracy(keys, values) == accuracy


def test_orthogonal_keys_have_no_crosstalk_and_one_pair_none_at_all():
    _, values = pairs(4, 4, 3)
    assert capacity.retrieval_snr(torch.eye(4, dtype=torch.float64), values) == math.inf
    assert capacity.retrieval_snr(*pairs(1, 4, 3)) == math.inf


def test_a_tiny_noise_is_not_lost_to_rounding():
    keys = torch.eye(2, dtype=torch.float64)
    keys[1, 0] = 1e-12
    values = torch.ones(2, 1, dtype=torch.float64)
    assert capacity.noise_to_signal(keys, values)[0].item() == pytest.approx(1e-24, rel=1e-12)


class Faint(similarity.DotProduct):
    """The dot product times 1e-30."""

    def profile(self, z: torch.Tensor, d: int) -> torch.Tensor:
        return 1e-30 * z


def test_scores_whose_squares_are_no_floats():
    keys, values = 8 * capacity.cone(5, 64, 0.8, generator()), capacity.sphere(5, 8, generator(1))
    for kappa in (Exponential(1.0), Faint()):  # e^64, and 1e-28
        expected = capacity.noise_to_signal(keys, values, kappa)
        got = capacity.noise_to_signal(keys.float(), values.float(), kappa)
        torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=0)
        snr = capacity.retrieval_snr(keys.float(), values.float(), kappa).item()
        assert snr == pytest.approx(1 / expected.mean().item(), rel=1e-3, abs=0)
    # c = e^−64 against scores of e^−51: the ratio of powers is a float. Against e^51 it is none.
    faint = capacity.noise_to_signal(keys.float(), values.float(), Exponential(1.0), -keys.float())
    expected = capacity.noise_to_signal(keys, values, Exponential(1.0), -keys)
    torch.testing.assert_close(faint.double(), expected, rtol=1e-3, atol=0)
    keys[::2] *= -1
    ratios = capacity.noise_to_signal(keys.float(), values.float(), Exponential(1.0), -keys.float())
    assert (ratios == math.inf).all()


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.float32, 1e-25),
        (torch.float32, 1e25),
        (torch.float64, 1e-200),
        (torch.float64, 1e200),
    ],
)
def test_values_whose_squares_are_no_floats(dtype, scale):
    keys, values = (x.to(dtype) for x in pairs(5, 8, 4))
    for measure in (capacity.noise_to_signal, capacity.nearest_value_accuracy):
        got = measure(keys, scale * values)
        torch.testing.assert_close(got, measure(keys, values), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_small_value_beside_a_large_one_has_a_signal(dtype):
    keys, small = torch.eye(2, dtype=dtype), {torch.float32: 1e-30, torch.float64: 1e-250}[dtype]
    keys[0, 1] = small
    values = torch.tensor([[1.0, 1.0], [small, small]], dtype=dtype)
    ratios = capacity.noise_to_signal(keys, values, queries=torch.eye(2, dtype=dtype))
    torch.testing.assert_close(ratios, torch.tensor([0.0, 1.0], dtype=dtype))


def test_without_a_signal_the_ratio_is_infinite_and_the_gradient_is_not():
    keys, values = pairs(5, 4, 3)
    keys[1], values[3] = 0, 0
    keys.requires_grad_()
    ratios = capacity.noise_to_signal(keys, values)
    assert ratios.isinf().tolist() == [False, True, False, True, False]
    (gradient,) = torch.autograd.grad(ratios[ratios.isfinite()].sum(), keys)
    assert gradient.isfinite().all()


def test_a_score_that_is_no_float():
    keys, values = pairs(5, 4, 3)
    queries = keys.clone()
    queries[2] *= 1000  # against other keys e^{−∞}, or e^∞
    ratios = capacity.noise_to_signal(keys, values, Exponential(1.0), queries)
    assert ratios.isnan().tolist() == [False, False, True, False, False]
    with pytest.raises(ValueError, match=r"similarity must have scores that are finite"):
        capacity.monte_carlo(5, 64, Exponential(0.05))


class FromTheTop(similarity.DotProduct):
    """exp((z − d)/τ), which is the exponential up to a constant, and 1 for a key of norm √d."""

    def profile(self, z: torch.Tensor, d: int) -> torch.Tensor:
        return torch.exp((z - d) / 0.15)


def test_monte_carlo_of_scores_whose_squares_are_no_floats():
    drawn = capacity.monte_carlo(65, 64, Exponential(0.15), draws=50)
    expected = capacity.monte_carlo(65, 64, FromTheTop(), draws=50)
    assert drawn.mean == pytest.approx(expected.mean, rel=1e-9, abs=0)
    assert drawn.median == pytest.approx(expected.median, rel=1e-9, abs=0)


def test_monte_carlo_without_noise_and_without_signal():
    assert capacity.MonteCarlo(0.0, 0.0, 0.0, (0.0, 0.0)).snr == math.inf
    silent = capacity.monte_carlo(5, 8, Round(1000.0), draws=10)
    assert (silent.mean, silent.standard_error, silent.snr) == (math.inf, math.inf, 0.0)


def test_a_nan_reaches_only_the_items_that_depend_on_it():
    keys, values = pairs(5, 4, 3)
    queries = keys.clone()
    queries[2, 0] = math.nan
    got = capacity.noise_to_signal(keys, values, queries=queries)
    assert got.isnan().tolist() == [False, False, True, False, False]


def test_snr_is_differentiable():
    leaves = [*pairs(6, 4, 3), pairs(6, 4, 3, seed=1)[0]]

    def snr(keys, values, queries):
        return capacity.retrieval_snr(keys, values, queries=keys + 0.1 * queries)

    assert torch.autograd.gradcheck(snr, [x.requires_grad_() for x in leaves])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"keys": [[1.0]]}, TypeError, "keys must be a torch.Tensor, got list"),
        ({"values": torch.ones(3, 2)}, TypeError, "values must be torch.float64 like keys"),
        ({"keys": torch.ones(3, 2, dtype=torch.int64)}, TypeError, "keys must be .* of floats"),
        (
            {"keys": torch.ones(3, dtype=torch.float64)},
            ValueError,
            r"keys must have shape \[N, d\]",
        ),
        (
            {"values": torch.ones(4, 2, dtype=torch.float64)},
            ValueError,
            r"values must have shape \[N, d_v\] with N = 3 like keys, got \[4, 2\]",
        ),
        (
            {"queries": torch.ones(3, 5, dtype=torch.float64)},
            ValueError,
            r"queries must have shape \[N, d\] = \[3, 2\] like keys, got \[3, 5\]",
        ),
        (
            {"values": torch.ones(3, 2, dtype=torch.float64, device="meta")},
            ValueError,
            "values must be on cpu like keys, got meta",
        ),
        (
            {"queries": torch.ones(3, 2, dtype=torch.float64, device="meta")},
            ValueError,
            "queries must be on cpu like keys, got meta",
        ),
        (
            {"values": torch.ones(3, dtype=torch.float64)},
            ValueError,
            r"values must have shape \[N, d_v\] with N = 3 like keys, got \[3\]",
        ),
        ({"similarity": "cosine"}, ValueError, "similarity must be one of"),
    ],
)
@pytest.mark.parametrize("function", [capacity.retrieval_snr, capacity.nearest_value_accuracy])
def test_bad_pairs_are_named(function, change, error, message):
    good = {
        "keys": torch.ones(3, 2, dtype=torch.float64),
        "values": torch.ones(3, 2, dtype=torch.float64),
    }
    with pytest.raises(error, match=message):
        function(**(good | change))


def test_an_answer_that_is_not_finite_is_neither_right_nor_wrong():
    keys, values = torch.randn(8, 8192, generator=generator(0)), torch.eye(8)
    assert capacity.nearest_value_accuracy(keys, values, "exponential").isnan()
    assert capacity.nearest_value_accuracy(keys.double(), values.double(), "exponential") == 1


def test_no_pairs_is_an_error():
    with pytest.raises(ValueError, match="keys must hold at least one pair"):
        capacity.retrieval_snr(torch.ones(0, 2), torch.ones(0, 3))


# --- closed forms against Monte Carlo: 4.5 standard errors, so that none of 20 fails by chance ---

FORMS = [
    ("linear", capacity.snr_linear),
    (similarity.Polynomial(2), lambda N, d, keys: capacity.snr_polynomial(N, d, 2, keys)),
    (similarity.Polynomial(3), lambda N, d, keys: capacity.snr_polynomial(N, d, 3, keys)),
    ("relu", lambda N, d, keys: capacity.snr_relu(N, d, 1, keys)),
    (similarity.ReLU(2), lambda N, d, keys: capacity.snr_relu(N, d, 2, keys)),
    (similarity.Exponential(12.0), lambda N, d, keys: capacity.snr_exponential(N, d, 12.0, keys)),
    (SoLU(12.0), lambda N, d, keys: capacity.snr_solu(N, d, 12.0, keys)),
    (RBF(3.5), lambda N, d, keys: capacity.snr_rbf(N, d, 3.5, keys)),
]


@pytest.mark.parametrize("keys", ["gaussian", "gaussian-random", "sphere"])
@pytest.mark.parametrize(("kappa", "form"), FORMS, ids=[str(kappa) for kappa, _ in FORMS])
def test_closed_form_against_monte_carlo(kappa, form, keys):
    # Small N, so that N − 1 against N is 11 standard errors or more for the linear form.
    N, d = 10, 20
    drawn = capacity.monte_carlo(N, d, kappa, keys=keys, d_v=32, draws=6000, generator=generator(1))
    assert abs(drawn.mean - 1 / form(N, d, keys)) < 4.5 * drawn.standard_error
    assert drawn.standard_error < 0.12 * drawn.mean


FORMS_OF_TWO_KINDS = [
    (Taylor(), lambda N, d, keys: capacity.snr_taylor(N, d, keys=keys)),
    (Taylor(3, 6.0), lambda N, d, keys: capacity.snr_taylor(N, d, 3, 6.0, keys)),
    (GELU(), lambda N, d, keys: capacity.snr_by_quadrature(N, d, GELU(), keys)),
    (SiLU(3.0), lambda N, d, keys: capacity.snr_by_quadrature(N, d, SiLU(3.0), keys)),
]


@pytest.mark.parametrize("keys", ["gaussian", "sphere"])
@pytest.mark.parametrize(
    ("kappa", "form"), FORMS_OF_TWO_KINDS, ids=[str(x) for x, _ in FORMS_OF_TWO_KINDS]
)
def test_other_forms_against_monte_carlo(kappa, form, keys):
    N, d = 10, 20
    drawn = capacity.monte_carlo(N, d, kappa, keys=keys, d_v=32, draws=6000, generator=generator(1))
    assert abs(drawn.mean - 1 / form(N, d, keys)) < 4.5 * drawn.standard_error
    assert drawn.standard_error < 0.05 * drawn.mean


def test_rounding_against_monte_carlo():
    N, d = 60, 8
    drawn = capacity.monte_carlo(N, d, Round(8.0), keys="sphere", draws=4000)
    assert abs(drawn.mean - 1 / capacity.snr_round(N, d)) < 4.5 * drawn.standard_error


def test_n_minus_one_is_told_from_n():
    drawn = capacity.monte_carlo(4, 16, draws=20_000, d_v=32, keys="sphere")
    assert abs(drawn.mean - 3 / 16) < 4.5 * drawn.standard_error
    assert abs(drawn.mean - 4 / 16) > 20 * drawn.standard_error


# --- closed forms against integrals ---


def on_the_sphere(f, d):
    """E f(cos θ) for a uniform direction in R^d, by quadrature of sin^{d−2} θ."""
    weight = lambda t: math.sin(t) ** (d - 2)  # noqa: E731
    top = scipy.integrate.quad(lambda t: f(math.cos(t)) * weight(t), 0, math.pi, epsabs=0)[0]
    return top / scipy.integrate.quad(weight, 0, math.pi, epsabs=0)[0]


def taylor_3(u):
    return 1 + u + u**2 / 2 + u**3 / 6


@pytest.mark.parametrize("d", [2, 3, 8, 33])
def test_sphere_forms_against_quadrature(d):
    N, tau = 7, 1.7
    cases = [
        (capacity.snr_linear(N, d, "sphere"), lambda c: c**2),
        (capacity.snr_polynomial(N, d, 3, "sphere"), lambda c: c**6),
        (capacity.snr_relu(N, d, 2, "sphere"), lambda c: max(c, 0) ** 4),
        (capacity.snr_exponential(N, d, tau, "sphere"), lambda c: math.exp(2 * d / tau * (c - 1))),
        (capacity.snr_rbf(N, d, 1.3, "sphere"), lambda c: math.exp(2 * d / 1.69 * (c - 1))),
        (
            capacity.snr_solu(N, d, tau, "sphere"),
            lambda c: c**2 * math.exp(2 * d / tau * (c - 1)),
        ),
        (
            capacity.snr_taylor(N, d, 3, tau, "sphere"),
            lambda c: (taylor_3(c * d / tau) / taylor_3(d / tau)) ** 2,
        ),
    ]
    for snr, squared in cases:
        assert 1 / snr == pytest.approx((N - 1) * on_the_sphere(squared, d), rel=1e-7)


@pytest.mark.parametrize("s2", [8.0, 13.0])
def test_exponential_gaussian_against_quadrature(s2):
    tau = 3.0
    density = lambda z: math.exp(-z * z / (2 * s2)) / math.sqrt(2 * math.pi * s2)  # noqa: E731
    mean = scipy.integrate.quad(
        lambda z: math.exp(2 * z / tau) * density(z), -60, 90, points=[2 * s2 / tau]
    )[0]
    expected = 4 * mean / math.exp(2 * s2 / tau)
    assert 1 / capacity.snr_exponential(5, int(s2), tau) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("tau", [3.0, 9.0])
def test_gaussian_forms_against_quadrature(tau):
    N, d = 5, 8
    density = lambda z: math.exp(-z * z / (2 * d)) / math.sqrt(2 * math.pi * d)  # noqa: E731
    cases = [
        (capacity.snr_solu(N, d, tau), lambda z: z * math.exp(z / tau)),
        (capacity.snr_taylor(N, d, 3, tau), lambda z: taylor_3(z / tau)),
        (capacity.snr_taylor(N, d, 2, tau), lambda z: 1 + z / tau + (z / tau) ** 2 / 2),
    ]
    for snr, f in cases:
        squared = lambda z, f=f: f(z) ** 2 * density(z)  # noqa: E731
        mean = scipy.integrate.quad(squared, -60, 60, points=[0.0, 2 * d / tau])[0]
        assert 1 / snr == pytest.approx((N - 1) * mean / f(d) ** 2, rel=1e-8)


@pytest.mark.parametrize("sigma", [1.5, 4.0])
def test_rbf_form_against_one_dimension_at_a_time(sigma):
    # ‖k_j − k_i‖² is a sum over coordinates: one is N(0, 1) − √d, the others N(0, 1).
    d = 5
    along = lambda shift: scipy.integrate.quad(  # noqa: E731
        lambda x: math.exp(-((x - shift) ** 2) / sigma**2 - x * x / 2) / math.sqrt(2 * math.pi),
        -20,
        20,
    )[0]
    expected = 6 * along(0.0) ** (d - 1) * along(math.sqrt(d))
    assert 1 / capacity.snr_rbf(7, d, sigma) == pytest.approx(expected, rel=1e-9)


def test_products_that_leave_the_range_of_a_float_on_their_way():
    exact = math.prod(Fraction(2000, 2 * m + 1) for m in range(2718)) / 64
    assert 0 < exact < 10**300
    assert capacity.snr_polynomial(65, 2000, 2718) == pytest.approx(float(exact), rel=1e-11)
    assert capacity.snr_polynomial(65, 4000, 2001, "gaussian-random") == 0.0


@pytest.mark.parametrize("keys", ["gaussian", "sphere"])
def test_taylor_form_of_high_degree_is_that_of_the_exponential(keys):
    expected = capacity.snr_exponential(65, 64, keys=keys)
    for degree in (150, 300):
        got = capacity.snr_taylor(65, 64, degree, keys=keys)
        assert got == pytest.approx(expected, rel=1e-12)
    assert capacity.snr_taylor(65, 64, 150, 1e200, keys) == pytest.approx(1 / 64)  # κ = 1
    highest = capacity.snr_polynomial(65, 64, 150, keys)  # the only term that counts
    got = capacity.snr_taylor(65, 64, 150, 1e-160, keys)
    assert got == pytest.approx(highest, rel=1e-9, abs=0)


@pytest.mark.parametrize("keys", ["gaussian", "gaussian-random", "sphere"])
def test_exponential_forms_at_temperatures_whose_squares_are_no_floats(keys):
    cold = math.inf if keys == "sphere" else 0.0
    for form in (capacity.snr_exponential, capacity.snr_solu):
        assert form(65, 64, 1e-200, keys) == cold
    assert capacity.snr_exponential(65, 64, 1e200, keys) == pytest.approx(1 / 64)  # κ = 1
    linear = capacity.snr_linear(65, 64, keys)
    assert capacity.snr_solu(65, 64, 1e200, keys) == pytest.approx(linear)


@pytest.mark.parametrize("d", [2, 3, 8, 16, 32, 257])
def test_rounding_form_against_the_incomplete_beta_function(d):
    expected = 6 * (1 - scipy.special.betainc(0.5, (d - 1) / 2, 0.25))
    if expected > 1e-12:
        assert 1 / capacity.snr_round(7, d) == pytest.approx(expected, rel=1e-9)
    else:
        assert capacity.snr_round(7, d) > 1e11


def test_quadrature_against_closed_forms():
    N, d = 40, 16
    for keys in ("gaussian", "sphere"):
        for kappa, form in FORMS[:6]:
            got = capacity.snr_by_quadrature(N, d, similarity.get(kappa), keys)
            assert got == pytest.approx(form(N, d, keys), rel=1e-6)
    gelu = float(GELU().profile(torch.tensor(16.0, dtype=torch.float64), 16))
    expected = 39 * (1 / 3 + 1 / (2 * math.pi * math.sqrt(3))) / gelu**2
    assert 1 / capacity.snr_by_quadrature(N, d, GELU()) == pytest.approx(expected, rel=1e-6)


def test_quadrature_in_as_many_dimensions_as_it_allows():
    for d in (10**6, 10**8):
        got = capacity.snr_by_quadrature(65, d, similarity.linear, "sphere")
        assert got == pytest.approx(d / 64, rel=1e-6)


# --- mean and typical value ---


@pytest.mark.parametrize("keys", ["gaussian", "sphere"])
@pytest.mark.parametrize("tau", [1.0, 2.5, 4.0, 10.0])
def test_typical_snr_against_the_median(tau, keys):
    drawn = capacity.monte_carlo(400, 20, Exponential(tau), keys=keys, draws=1000, d_v=16)
    low, high = drawn.median_range
    typical = 1 / capacity.snr_typical(400, 20, Exponential(tau), keys)
    assert low / 1.5 < typical < high * 1.5


def test_typical_and_mean_part_at_the_freezing_temperature():
    N, d = 10_000, 64
    tau_c = capacity.freezing_temperature(N, d)
    ratios = [
        capacity.snr_typical(N, d, Exponential(x * tau_c))
        / capacity.snr_exponential(N, d, x * tau_c)
        for x in (2.0, 1.0, 0.5)
    ]
    assert ratios[0] == pytest.approx(1, abs=0.02)
    assert 1.5 < ratios[1] < 20
    assert ratios[2] > 1e4


def test_typical_snr_is_the_median_of_one_key():
    # With one other key the noise is w(z) itself, and half of all z lie above 0.
    assert capacity.snr_typical(2, 9, Exponential(3.0)) < math.exp(6)
    linear = capacity.snr_typical(2, 9, Polynomial(1))
    median = 0.6744897501960817**2 / 9  # of z²/d², z ~ N(0, d)
    quiet = scipy.integrate.quad(
        lambda x: x * x / 9 * math.exp(-x * x / 2) / math.sqrt(2 * math.pi), -0.67449, 0.67449
    )[0]
    assert 1 / linear == pytest.approx(median + quiet, rel=4e-3)


def test_typical_snr_without_typical_noise():
    # 63 of 64 cosines and more lie below ½ and round to 0.
    assert capacity.snr_typical(65, 64, Round(64.0), "sphere") == math.inf
    assert 0 < capacity.snr_by_quadrature(65, 64, Round(64.0), "sphere") < math.inf


def test_freezing_on_the_sphere_is_where_the_saddle_meets_the_largest_cosine():
    N, d = 5000, 24
    tau = capacity.freezing_temperature(N, d, "sphere")
    largest = math.sqrt(1 - N ** (-2 / d))
    # The exponent 2(d/τ) t + (d/2) ln(1 − t²) is stationary at the largest cosine.
    assert 2 * d / tau == pytest.approx(d * largest / (1 - largest**2))
    wide = capacity.freezing_temperature(N, 10**6, "sphere")
    assert wide == pytest.approx(capacity.freezing_temperature(N, 10**6), rel=1e-4)
    wide = capacity.freezing_temperature(2, 10**18, "sphere")
    assert wide == pytest.approx(capacity.freezing_temperature(2, 10**18), rel=1e-12)


def test_median_range_holds_the_median_at_its_level():
    # Squared cosines with one other key: the median of a known law, once in 2,000 outside.
    median = scipy.stats.beta(0.5, 7.5).ppf(0.5)
    draws = [
        capacity.monte_carlo(2, 16, keys="sphere", d_v=1, draws=401, generator=generator(seed))
        for seed in range(50)
    ]
    assert all(x.median_range[0] <= median <= x.median_range[1] for x in draws)
    assert all(x.median_range[0] < x.median < x.median_range[1] for x in draws)
    narrow = sum(abs(x.median / median - 1) > 0.05 for x in draws)
    assert narrow > 10  # the range is not idle: medians do stray


# --- dilution by the normaliser ---


def softmax_readings(N, d, tau, memories, seed=0):
    """Mean weight of the right key, and mean relative error, of one reading a memory."""
    g = generator(seed)
    weights, errors = [], []
    for _ in range(memories):
        k, v = d**0.5 * capacity.sphere(N, d, g), capacity.sphere(N, 32, g)
        p = torch.softmax(k[:1] @ k.T / tau, -1)[0]
        weights.append(p[0])
        errors.append((p @ v - v[0]).square().sum())
    return torch.stack(weights), torch.stack(errors)


@pytest.mark.parametrize("beta", [2.0, 6.0, 10.0])
def test_softmax_weight_and_error_against_measurement(beta):
    N, d = 600, 32
    weights, errors = softmax_readings(N, d, d / beta, 200)
    expected = capacity.softmax_weight(N, d, d / beta)
    assert weights.mean().item() == pytest.approx(expected, rel=0.02)
    snr = capacity.snr_exponential(N, d, d / beta, "sphere")
    error = capacity.softmax_error(weights.mean().item(), snr)
    assert abs(errors.mean().item() - error) < 4.5 * errors.std().item() / 200**0.5 + 0.02 * error


def test_softmax_weight_by_quadrature():
    N, d, tau = 50, 7, 2.0
    mean = on_the_sphere(lambda c: math.exp(d / tau * (c - 1)), d)
    assert capacity.softmax_weight(N, d, tau) == pytest.approx(1 / (1 + 49 * mean), rel=1e-8)


def test_softmax_error_by_hand():
    # p = 3/4 and a crosstalk of power 1/9 of the signal: (1/4)² + (3/4)²/9.
    assert capacity.softmax_error(0.75, 9.0) == pytest.approx(1 / 16 + 1 / 16)
    assert capacity.softmax_error(1.0, math.inf) == 0


@pytest.mark.parametrize("weight", [0.3, 0.5, 0.99])
def test_softmax_temperature_inverts_the_weight(weight):
    for N, d in ((10, 4), (4096, 64), (10**6, 16)):
        tau = capacity.softmax_temperature(N, d, weight)
        assert capacity.softmax_weight(N, d, tau) == pytest.approx(weight, rel=1e-9)


@pytest.mark.parametrize("N", [10, 10**6, 10**40])
def test_softmax_temperature_in_a_plane(N):
    beta = 2 / capacity.softmax_temperature(N, 2)
    log_mean = -math.log(2 * math.pi * beta) / 2  # of e^{β (cos θ − 1)}, for large β
    if beta < 1e6:
        log_mean = math.log(scipy.special.ive(0, beta))
    assert log_mean == pytest.approx(-math.log(N - 1), rel=1e-6)


def test_softmax_at_its_extremes():
    for tau in (1e-12, 1e-14, 1e-200):
        assert capacity.softmax_weight(10, 64, tau) == 1.0
    tau = capacity.softmax_temperature(10**308, 64)
    assert capacity.softmax_weight(10**308, 64, tau) == pytest.approx(0.5, rel=1e-9)
    with pytest.raises(ValueError, match=r"N must be smaller for d = 2, so that d/tau is a float"):
        capacity.softmax_temperature(10**308, 2)
    with pytest.raises(ValueError, match=r"tau must be such that d/tau is a float, got 1e-308"):
        capacity.softmax_weight(10, 64, 1e-308)


def test_log_length_law():
    # For d without bound a random key has weight e^{−β}, and half the weight needs β = ln(N − 1).
    beta = 10**7 / capacity.softmax_temperature(1001, 10**7)
    assert beta == pytest.approx(math.log(1000), rel=1e-4)


@pytest.mark.parametrize("d", [1, 2, 3, 16, 257, 4096])
@pytest.mark.parametrize("beta", [1e-6, 0.3, 1.0, 7.0, 60.0, 300.0])
def test_hypergeometric_series_against_the_bessel_function(d, beta):
    b = d / 2
    bessel = scipy.special.ive(b - 1, 2 * beta)  # e^{−2β} I_{b−1}(2β)
    if bessel > 1e-290:
        expected = scipy.special.gammaln(b) + (1 - b) * math.log(beta) + math.log(bessel) + 2 * beta
        assert log_0f1(b, beta) == pytest.approx(expected, rel=1e-11, abs=1e-11)
    elif beta**2 < 700:
        expected = math.log(scipy.special.hyp0f1(b, beta**2))
        assert log_0f1(b, beta) == pytest.approx(expected, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("beta", [1e3, 1e5, 1e7])
def test_hypergeometric_series_for_large_arguments(beta):
    # d = 3: E e^{2β cos θ} = sinh(2β)/(2β), and sinh(x) = e^x/2 to the last bit.
    expected = 2 * beta - math.log(4 * beta)
    assert log_0f1(1.5, beta) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("b", [0.5, 1.0, 1.5, 29.9, 30.1, 200.0, 399.0, 403.0, 3000.0])
@pytest.mark.parametrize("beta", [1.0, 150.0, 199.0, 201.0, 1e3])
def test_hypergeometric_series_on_both_sides_of_its_asymptotics(b, beta):
    with mpmath.workdps(50):
        expected = mpmath.log(mpmath.hyp0f1(b, mpmath.mpf(beta) ** 2)) - 2 * beta
    assert damped_log_0f1(b, beta) == pytest.approx(float(expected), rel=2e-14, abs=4e-14)


def test_hypergeometric_series_far_out():
    # d = 3: e^{−2β} sinh(2β)/(2β), without the 2β.
    assert damped_log_0f1(1.5, 1e300) == pytest.approx(-math.log(4e300), rel=1e-14)
    # Large b: Σ_n (β²/b)^n/n!, up to β⁴/2b³.
    assert log_0f1(5e11, 1e6) == pytest.approx(2.0, abs=1e-8)


def test_exponential_at_its_extremes():
    assert capacity.snr_exponential(10, 100_000, 2.0) == math.inf
    assert capacity.snr_exponential(10, 100_000, 0.5) == 0.0
    assert capacity.snr_exponential(10, 32, 0.8, "gaussian-random") == 0.0
    assert capacity.snr_exponential(10, 32, 0.9, "gaussian-random") > 0.0
    assert math.isfinite(capacity.snr_exponential(10, 64, 1e-4, "sphere"))
    assert capacity.snr_exponential(1001, 32, 1e9, "sphere") == pytest.approx(1e-3, rel=1e-6)
    # The default temperature of attention: N e^{2(1 − √d)}.
    assert capacity.snr_exponential(513, 64) == pytest.approx(math.exp(14) / 512, rel=1e-12)


def test_mean_noise_of_random_keys_is_infinite_for_few_dimensions():
    assert capacity.snr_linear(10, 2, "gaussian-random") == 0.0
    assert capacity.snr_solu(10, 2, 8.0, "gaussian-random") == 0.0
    assert capacity.snr_polynomial(10, 6, 3, "gaussian-random") == 0.0
    assert capacity.snr_polynomial(10, 7, 3, "gaussian-random") == pytest.approx(15 / 15 / 9)


@pytest.mark.parametrize("keys", ["gaussian", "gaussian-random", "sphere"])
def test_one_pair_has_no_noise(keys):
    assert capacity.snr_linear(1, 8, keys) == math.inf
    for form in (capacity.snr_exponential, capacity.snr_solu, capacity.snr_rbf):
        assert form(1, 8, keys=keys) == math.inf
    assert capacity.snr_round(1, 8) == capacity.snr_taylor(1, 8) == math.inf
    assert capacity.snr_round(8, 10**15) == math.inf  # where all of the quadrature underflows
    assert capacity.snr_typical(1, 8, Exponential()) == math.inf
    assert capacity.snr_by_quadrature(1, 8, Exponential()) == math.inf


# --- keys and values with a mean, forgetting ---


def test_cone_vectors():
    x = capacity.cone(400, 24, 0.3, generator())
    torch.testing.assert_close(x.norm(dim=1), torch.ones(400, dtype=torch.float64))
    G = x @ x.T
    off = G[~torch.eye(400, dtype=torch.bool)]
    assert off.mean().item() == pytest.approx(0.3, abs=0.01)
    assert off.var().item() == pytest.approx(0.7**2 / 23, rel=0.02)
    assert capacity.cone(3, 4, 0.3, generator(), torch.float32).dtype == torch.float32


@pytest.mark.parametrize(("rho", "nu"), [(0.0, 0.0), (0.0, 0.8), (0.4, 0.0), (0.4, 0.5)])
def test_cone_form_against_measurement(rho, nu):
    N, d, d_v, g = 12, 10, 16, generator(3)
    drawn = torch.stack(
        [
            capacity.noise_to_signal(
                capacity.cone(N, d, rho, g), capacity.cone(N, d_v, nu, g)
            ).mean()
            for _ in range(1500)
        ]
    )
    error = drawn.std().item() / 1500**0.5
    expected = 1 / capacity.snr_cone(N, d, rho, nu)
    assert abs(drawn.mean().item() - expected) < 4.5 * error
    assert error < 0.02 * expected


@pytest.mark.parametrize(("N", "age", "decay"), [(30, 0, 0.9), (30, 7, 0.9), (5, 4, 1.0)])
def test_decay_form_is_a_sum_over_ages(N, age, decay):
    noise = sum(decay ** (2 * a) for a in range(N) if a != age)
    expected = 8 * decay ** (2 * age) / noise
    assert capacity.snr_decay(age, 8, decay, N) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("decay", [1e-9, 1e-8, 1e-3, 1 - 1e-12])
def test_decay_form_of_the_newest_item_does_not_cancel(decay):
    # The noise is that of the items before: γ² + γ⁴ + … = γ²/(1 − γ²).
    squared = Fraction(decay) ** 2
    expected = float(8 * (1 - squared) / squared)
    assert capacity.snr_decay(0, 8, decay) == pytest.approx(expected, rel=1e-12)


def test_decay_form_for_ever():
    assert capacity.snr_decay(3, 8, 0.9) == pytest.approx(capacity.snr_decay(3, 8, 0.9, 10_000))
    with pytest.raises(ValueError, match="N must be given when decay is 1"):
        capacity.snr_decay(3, 8, 1.0)


# --- Welch bound ---


@pytest.mark.parametrize(("N", "m"), [(1, 1), (5, 5), (7, 3), (64, 16), (200, 33)])
def test_tight_frame_is_tight_and_of_unit_norm(N, m):
    F = capacity.tight_frame(N, m, generator(2))
    torch.testing.assert_close(
        F.norm(dim=1), torch.ones(N, dtype=torch.float64), atol=1e-13, rtol=0
    )
    expected = N / m * torch.eye(m, dtype=torch.float64)
    torch.testing.assert_close(F.T @ F, expected, atol=1e-12 * N, rtol=0)
    off = (F @ F.T).fill_diagonal_(0).square().sum(1).mean().item()
    assert off == pytest.approx(capacity.welch_bound(N, m), abs=1e-11)


def test_nothing_beats_the_welch_bound():
    g = generator(4)
    for N, m in ((12, 5), (40, 8)):
        for _ in range(50):
            write = torch.randn(N, m, generator=g, dtype=torch.float64)
            write *= torch.rand(N, 1, generator=g, dtype=torch.float64)
            read = write + torch.rand(1, generator=g, dtype=torch.float64) * torch.randn(
                N, m, generator=g, dtype=torch.float64
            )
            A = read @ write.T / (read * write).sum(1, keepdim=True)
            assert A.fill_diagonal_(0).square().sum(1).mean() >= capacity.welch_bound(N, m)


def test_descent_on_the_snr_ends_at_the_welch_bound():
    keys = torch.randn(20, 6, generator=generator(5), dtype=torch.float64, requires_grad=True)
    values = torch.eye(20, dtype=torch.float64)  # orthogonal: nothing but Σ κ² is left of ‖r‖²
    optimizer = torch.optim.Adam([keys], lr=0.02)
    loss = capacity.noise_to_signal(keys, values).mean()
    for _ in range(800):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss = capacity.noise_to_signal(keys, values).mean()
    assert loss.item() == pytest.approx(capacity.welch_bound(20, 6), rel=1e-9)


# --- decoding ---


def test_decoding_by_hand():
    keys = torch.tensor([[1.0, 0.0], [0.9, 0.1]], dtype=torch.float64)
    values = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    # Item 1 answers (1, 2.7), nearer in angle to value 2; item 2 answers (0.9, 2.46): right.
    assert capacity.nearest_value_accuracy(keys, values) == 0.5
    # Item 1 answers (1, 0.6), nearer in angle to value 1, though value 2 has more of it.
    keys[1] = torch.tensor([0.2, 1.0])
    assert capacity.nearest_value_accuracy(keys, values) == 1.0
    # Item 1 is asked for with the key of item 2, and the other way round.
    assert capacity.nearest_value_accuracy(keys, values, queries=keys.flip(0)) == 0.0


@pytest.mark.parametrize(("N", "d", "d_v"), [(32, 32, 64), (128, 32, 64), (200, 24, 48)])
def test_decoding_against_its_prediction(N, d, d_v):
    g, draws = generator(6), 3000 // N + 20
    measured = torch.stack(
        [
            capacity.nearest_value_accuracy(capacity.sphere(N, d, g), capacity.sphere(N, d_v, g))
            for _ in range(draws)
        ]
    )
    # Low by up to 0.05 at these sizes, for the reasons that the docstring gives.
    assert measured.mean().item() == pytest.approx(capacity.accuracy_linear(N, d, d_v), abs=0.055)


def test_decoding_counts_beyond_what_half_precision_can(monkeypatch):
    monkeypatch.setattr("assocmem.capacity.decoding.BLOCK", 512)  # one item at a time
    I = torch.eye(512, dtype=torch.bfloat16)
    accuracy = capacity.nearest_value_accuracy(I, I)
    assert accuracy == 1.0
    assert accuracy.dtype == torch.bfloat16


def test_decoding_refuses_a_value_without_an_angle():
    keys, values = pairs(5, 4, 3)
    values[3] = 0
    with pytest.raises(ValueError, match="values must not be 0, which has no angle"):
        capacity.nearest_value_accuracy(keys, values)


def test_decoding_has_nothing_to_confuse_with_one_pair():
    assert 1.0 - 1e-12 <= capacity.accuracy_linear(1, 8, 8) <= 1.0


# --- arguments and seeds ---


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: capacity.snr_linear(0, 8), ValueError, "N must be at least 1, got 0"),
        (lambda: capacity.snr_linear(8.0, 8), TypeError, "N must be an integer, got float"),  # pyright: ignore
        (lambda: capacity.snr_linear(8, True), TypeError, "d must be an integer, got bool"),
        (lambda: capacity.snr_linear(8, 8, "cube"), ValueError, "keys must be one of"),
        (lambda: capacity.snr_polynomial(8, 8, 0), ValueError, "degree must be at least 1"),
        (lambda: capacity.snr_relu(8, 8, 0), ValueError, "power must be at least 1"),
        (lambda: capacity.snr_exponential(8, 8, -1.0), ValueError, "tau must be finite and > 0"),
        (
            lambda: capacity.snr_exponential(8, 8, math.nan),
            ValueError,
            "tau must be finite and > 0",
        ),
        (lambda: capacity.snr_taylor(8, 8, 0), ValueError, "degree must be at least 1"),
        (lambda: capacity.snr_taylor(8, 8, 2, 0.0), ValueError, "tau must be finite and > 0"),
        (
            lambda: capacity.snr_taylor(8, 8, keys="gaussian-random"),
            ValueError,
            r"keys must be one of \['gaussian', 'sphere'\]",
        ),
        (lambda: capacity.snr_solu(8, 8, 0.0), ValueError, "tau must be finite and > 0"),
        (lambda: capacity.snr_rbf(8, 8, -1.0), ValueError, "sigma must be finite and > 0"),
        (lambda: capacity.snr_round(8, 1), ValueError, "d must be at least 2, got 1"),
        (
            lambda: capacity.snr_by_quadrature(8, 8, RBF()),  # pyright: ignore
            TypeError,
            "similarity must be a function of the dot product, got RBF",
        ),
        (
            lambda: capacity.snr_typical(8, 8, ReLU(), "gaussian-random"),
            ValueError,
            "keys must be one of",
        ),
        (lambda: capacity.freezing_temperature(1, 8), ValueError, "N must be at least 2, got 1"),
        (lambda: capacity.softmax_weight(8, 8, 0.0), ValueError, "tau must be finite and > 0"),
        (lambda: capacity.softmax_error(1.5, 1.0), ValueError, "weight must be at most 1, got 1.5"),
        (lambda: capacity.softmax_error(0.5, 0.0), ValueError, "snr must be > 0, got 0.0"),
        (
            lambda: capacity.softmax_temperature(8, 8, 0.1),
            ValueError,
            "weight must lie between 1/N = 0.125 and 1, got 0.1",
        ),
        (lambda: capacity.snr_cone(8, 8, 1.5), ValueError, r"key_cosine must lie in \[0, 1\]"),
        (lambda: capacity.snr_decay(9, 8, 0.9, 9), ValueError, "N must be at least 10, got 9"),
        (lambda: capacity.snr_decay(9, 8, 0.0), ValueError, "decay must be finite and > 0"),
        (
            lambda: capacity.cone(-1, 4, 0.5, generator()),
            ValueError,
            "N must be at least 0, got -1",
        ),
        (lambda: capacity.cone(3, 4, 1.5, generator()), ValueError, "cosine must lie in"),
        (lambda: capacity.snr_by_quadrature(0, 8, ReLU()), ValueError, "N must be at least 1"),
        (lambda: capacity.snr_by_quadrature(8, 1, ReLU()), ValueError, "d must be at least 2"),
        (lambda: capacity.snr_cone(8, 1, 0.5), ValueError, "d must be at least 2, got 1"),
        (lambda: capacity.snr_cone(8, 8, 0.5, 1.5), ValueError, "value_cosine must lie in"),
        (lambda: capacity.snr_decay(3, 8, 1.5, 9), ValueError, "decay must lie in"),
        (lambda: capacity.snr_exponential(8, 8, 1.0, "x"), ValueError, "keys must be one of"),
        (lambda: capacity.softmax_temperature(1, 8), ValueError, "N must be at least 2, got 1"),
        (lambda: capacity.sphere(3, 0, generator()), ValueError, "d must be at least 1, got 0"),
        (lambda: capacity.sphere(-1, 3, generator()), ValueError, "N must be at least 0, got -1"),
        (lambda: capacity.welch_bound(8, 0), ValueError, "m must be at least 1, got 0"),
        (lambda: capacity.welch_bound(0, 8), ValueError, "N must be at least 1, got 0"),
        (lambda: capacity.tight_frame(3, 0, generator()), ValueError, "m must be at least 1, got"),
        (
            lambda: capacity.cone(3, 4, 0.5, generator(), torch.int64),
            TypeError,
            r"dtype must be a floating dtype, got torch\.int64",
        ),
        (
            lambda: capacity.tight_frame(3, 4, generator()),
            ValueError,
            "N must be at least 4, got 3",
        ),
        (lambda: capacity.cone(8, 1, 0.5, generator()), ValueError, "d must be at least 2, got 1"),
        (lambda: capacity.monte_carlo(1, 8), ValueError, "N must be at least 2, got 1"),
        (lambda: capacity.monte_carlo(8, 8, keys="x"), ValueError, "keys must be one of"),
        (lambda: capacity.monte_carlo(8, 8, "x"), ValueError, "similarity must be one of"),
        (
            lambda: capacity.snr_exponential(8, 8, torch.ones(2)),  # pyright: ignore
            TypeError,
            "tau must be a number, got Tensor",
        ),
        (lambda: capacity.snr_exponential(8, 8, True), TypeError, "tau must be a number, got bool"),
        (
            lambda: capacity.snr_cone(8, 8, "a"),  # pyright: ignore
            TypeError,
            "key_cosine must be a number, got str",
        ),
        (
            lambda: capacity.softmax_error("a", 1.0),  # pyright: ignore
            TypeError,
            "weight must be a number, got str",
        ),
        (
            lambda: capacity.softmax_error(0.5, "a"),  # pyright: ignore
            TypeError,
            "snr must be a number, got str",
        ),
        (
            lambda: capacity.softmax_temperature(8, 8, "a"),  # pyright: ignore
            TypeError,
            "weight must be a number, got str",
        ),
        (lambda: capacity.snr_rbf(8, 8, 1e-200), ValueError, "sigma must lie between 1e-150 and"),
        (lambda: capacity.snr_rbf(8, 8, 1e200), ValueError, "sigma must lie between 1e-150 and"),
        (
            lambda: capacity.snr_by_quadrature(65, 64, Polynomial(200)),
            ValueError,
            "similarity must be finite in float64 up to z = 304",
        ),
        (
            lambda: capacity.snr_by_quadrature(65, 64, Round(1000.0)),
            ValueError,
            "similarity must be finite .* and not 0 at z = d = 64",
        ),
        (
            lambda: capacity.snr_typical(65, 64, Round(1000.0), "sphere"),
            ValueError,
            "similarity must be finite .* and not 0 at z = d = 64",
        ),
        (
            lambda: capacity.snr_typical(65, 10**8 + 1, ReLU(), "sphere"),
            ValueError,
            "d must be at most 100000000 on the sphere",
        ),
        (
            lambda: capacity.retrieval_snr(torch.ones(3, 0), torch.ones(3, 2)),
            ValueError,
            r"keys must have shape \[N, d\] with d >= 1, got \[3, 0\]",
        ),
        (
            lambda: capacity.monte_carlo(8, 8, generator=0),  # pyright: ignore
            TypeError,
            "generator must be a torch.Generator, got int",
        ),
        (
            lambda: capacity.snr_by_quadrature(2.5, 8, ReLU()),  # pyright: ignore
            TypeError,
            "N must be an integer, got float",
        ),
        (lambda: capacity.snr_rbf(8, 8, True), TypeError, "sigma must be a number, got bool"),
        (
            lambda: capacity.freezing_temperature(8, 8, "gaussian-random"),
            ValueError,
            "keys must be one of",
        ),
        *(
            (call, TypeError, "generator must be a torch.Generator, got NoneType")
            for call in (
                lambda: capacity.sphere(3, 4, None),  # pyright: ignore
                lambda: capacity.cone(3, 4, 0.5, None),  # pyright: ignore
                lambda: capacity.tight_frame(4, 3, None),  # pyright: ignore
            )
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_integers_of_numpy_do_not_wrap():
    for form in (
        capacity.snr_linear,
        capacity.snr_taylor,
        capacity.snr_exponential,
        capacity.snr_round,
        lambda N, d: capacity.snr_cone(N, d, 0.3, 0.2),
        lambda N, d: capacity.snr_decay(N, d, 0.99999),
        lambda N, d: capacity.accuracy_linear(N, d, d),
        lambda N, d: capacity.softmax_weight(N, d, 9.0),
        lambda N, d: capacity.freezing_temperature(N, d, "sphere"),
        lambda N, d: capacity.snr_typical(N, d, ReLU()),
    ):
        assert form(np.int32(70_000), np.int32(70_000)) == form(70_000, 70_000)


def test_equal_seeds_give_equal_draws():
    first = capacity.monte_carlo(5, 4, draws=10)
    assert first == capacity.monte_carlo(5, 4, draws=10)
    assert first == capacity.monte_carlo(5, 4, draws=10, generator=generator(0))
    assert first != capacity.monte_carlo(5, 4, draws=10, generator=generator(1))
    assert first.snr == 1 / first.mean


def test_spread_of_monte_carlo_is_that_of_its_draws(monkeypatch):
    # 9 draws in batches of 2: the last batch is short.
    batches, one_reading_each = [], retrieval.one_reading_each
    monkeypatch.setattr(retrieval, "BLOCK", 2 * 6 * (4 + 3))
    monkeypatch.setattr(
        retrieval,
        "one_reading_each",
        lambda *x: batches.append(one_reading_each(*x)) or batches[-1],
    )
    drawn = capacity.monte_carlo(6, 4, draws=9, d_v=3)
    assert [len(x) for x in batches] == [2, 2, 2, 2, 1]
    ratios = torch.cat(batches)
    assert drawn.mean == pytest.approx(ratios.mean().item(), rel=1e-12)
    assert drawn.standard_error == pytest.approx(ratios.std().item() / 3, rel=1e-12)
    assert drawn.median == ratios.median().item()


def test_blocks_of_less_than_a_row(monkeypatch):
    keys, values = pairs(5, 4, 3)
    expected = capacity.noise_to_signal(keys, values)
    monkeypatch.setattr(retrieval, "BLOCK", 2)
    torch.testing.assert_close(capacity.noise_to_signal(keys, values), expected, rtol=1e-12, atol=0)


class Constant(similarity.DotProduct):
    """The same for all keys."""

    size = 1.0

    def profile(self, z, d):
        return torch.full_like(z, self.size)


class Loud(Constant):
    """A sum of four is no float."""

    size = 1e308


def test_scores_whose_sum_is_no_float():
    loud, quiet = (
        capacity.monte_carlo(9, 4, kappa, draws=50, d_v=1).mean for kappa in (Loud(), Constant())
    )
    assert loud == pytest.approx(quiet, rel=1e-9, abs=0)


def test_one_pair_of_a_cone_has_no_noise():
    assert capacity.snr_cone(1, 64, 0.5, 0.5) == math.inf


def test_the_typical_snr_of_more_keys_than_the_rarest_node_has():
    sharp = Exponential(0.005)
    mean = capacity.snr_by_quadrature(10**8, 2, sharp, "sphere")
    assert capacity.snr_typical(10**8, 2, sharp, "sphere") == pytest.approx(mean, rel=1e-5)
