"""Tests of a mean: exact numbers, directions that do not vary, many dimensions, heavy tails."""

import math

import numpy as np
import pytest
import scipy
import torch
from torch import Tensor

from gradlab.verification.deviation_sums import DeviationSums
from gradlab.verification.mean_test import MeanTest, _log_mixture
from significance import limit

ROUNDING = 1e-12


def normal(n: int, D: int, seed: int = 0) -> Tensor:
    """Return correlated normal numbers [n, D] of unequal variances."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(D, D, generator=generator, dtype=torch.float64)
    return torch.randn(n, D, generator=generator, dtype=torch.float64) @ mixing


def mean_test(d: Tensor, alpha: float = 0.05, rounding: float = ROUNDING) -> MeanTest:
    size = float(torch.linalg.vector_norm(d, dim=1).max())
    return MeanTest(DeviationSums.from_draws(d, size), alpha, rounding)


def light(n: int, D: int) -> Tensor:
    """Return random signs [n, D]: without tails, so that n - 1 degrees of freedom are left."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(2, (n, D), generator=generator).double() * 2 - 1


# ---- sums -------------------------------------------------------------------------------------


@pytest.mark.parametrize("D", [1, 6, 600])
def test_merged_sums_equal_those_of_one_block(D):
    d = 3 + normal(500, D)
    parts = [DeviationSums.from_draws(part) for part in d.split([100, 1, 149, 250])]
    merged = parts[0].merge(parts[1]).merge(parts[2].merge(parts[3]))
    whole = DeviationSums.from_draws(d)
    assert merged.n == whole.n == 500
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
    scale = float(whole.scatter.abs().max())
    torch.testing.assert_close(merged.scatter, whole.scatter, rtol=1e-12, atol=1e-12 * scale)


def test_sums_are_mean_variance_and_fourth_moment():
    d = normal(300, 4)
    sums = DeviationSums.from_draws(d)
    torch.testing.assert_close(sums.variances, d.var(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(sums.scatter / 299, d.T.cov(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sums.fourth, ((d - d.mean(0)) ** 4).sum(0), rtol=1e-12, atol=0)
    bias2 = d.mean(0).square().sum() - d.var(0).sum() / 300
    assert sums.bias2.value == pytest.approx(float(bias2), rel=1e-12)


def test_the_squared_bias_is_estimated_without_bias_and_with_its_error():
    bias = torch.tensor([0.3, 0.0, 0.0, -0.3], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    runs = bias + torch.randn(2000, 200, 4, dtype=torch.float64, generator=generator)
    found = [DeviationSums.from_draws(run).bias2 for run in runs]
    values = np.array([measured.value for measured in found])
    assert abs(values.mean() - 0.18) < limit() * values.std() / math.sqrt(2000)
    errors = np.array([measured.se for measured in found])
    assert errors.mean() == pytest.approx(values.std(), rel=0.1)


@pytest.mark.parametrize("D", [4, 600], ids=["covariances", "variances alone"])
@pytest.mark.few(1)
def test_the_noise_of_a_squared_bias_of_0_is_that_of_its_draws(D):
    noise = torch.randn(400, 60, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = [DeviationSums.from_draws(run) for run in noise]
    spread = np.std([sums.bias2.value for sums in found])
    # Of 400 runs the standard deviation is known to about 5 %, of chi-squared tails.
    assert np.mean([sums.noise_se for sums in found]) == pytest.approx(spread, rel=0.2)


# ---- Hotelling's test -------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [0.0, 0.1, 0.5])
def test_hotelling_by_the_textbook(bias):
    n, m = 200, 3
    d = light(n, m) + bias
    mean, covariance = d.mean(0).numpy(), np.cov(d.numpy(), rowvar=False)
    t2 = n * mean @ np.linalg.solve(covariance, mean)
    expected = scipy.stats.f.sf((n - m) / (m * (n - 1)) * t2, m, n - m)
    test = mean_test(d)
    assert test.degrees == n - 1
    assert test.joint
    assert float(test.statistics) == pytest.approx(t2, rel=1e-10)
    assert test.p_value == pytest.approx(expected, rel=1e-9)


def test_in_one_dimension_it_is_the_t_test():
    d = light(64, 1) + 0.2
    score = float(d.mean() / d.std()) * 8
    assert mean_test(d).p_value == pytest.approx(2 * scipy.stats.t.sf(score, 63), rel=1e-10)


def test_it_does_not_depend_on_units_or_axes():
    d = normal(400, 4) + 0.3
    turned = d @ normal(4, 4, 5)
    first, second, third = mean_test(d), mean_test(turned), mean_test(1e6 * d)
    # The kurtosis, and with it the degrees of freedom, is that of coordinates: it may differ.
    assert float(second.statistics) == pytest.approx(float(first.statistics), rel=1e-8)
    assert third.p_value == pytest.approx(first.p_value, rel=1e-9)
    assert third.bound == pytest.approx(1e6 * first.bound, rel=1e-9)


def test_heavy_tails_leave_fewer_degrees_of_freedom():
    n = 4096
    d = torch.zeros(n, 1, dtype=torch.float64)
    d[::64] = 1.0  # an event of rate 1/64 has a kurtosis of about 64
    heavy = mean_test(d - 1 / 64)
    assert heavy.kurtosis == pytest.approx(62, abs=0.1)
    assert heavy.degrees == pytest.approx(2 * n / 61, rel=0.01)
    signs = light(n, 1)
    same = mean_test((signs - signs.mean()) * float(d.std() / signs.std()))
    assert heavy.deviation.item() == pytest.approx(same.deviation.item(), rel=1e-9)
    assert heavy.widening > 1.015 > 1.001 > same.widening > 1
    assert heavy.radius > 1.007 * same.radius


# ---- directions that do not vary --------------------------------------------------------------


def sums_to_zero(n: int = 2000) -> Tensor:
    """Return deviations of two variables of three classes, each summing to 0."""
    d = normal(n, 6).unflatten(1, (2, 3))
    return (d - d.mean(-1, keepdim=True)).flatten(1)


def test_sums_to_zero_leave_their_directions_out():
    d = sums_to_zero()
    test = mean_test(d)
    assert test.directions == 4
    assert test.unseen_offset == 0
    # The same as that of any two classes a variable.
    kept = d[:, [0, 1, 3, 4]]
    assert float(test.statistics) == pytest.approx(float(mean_test(kept).statistics), rel=1e-8)


@pytest.mark.parametrize(("offset", "decides"), [(1.0, True), (1e-3, False)])
def test_a_sum_that_is_off_is_a_bias_unless_few_long_draws_make_up_for_it(offset, decides):
    d = sums_to_zero()
    d = d - d.mean(0) + offset
    test = mean_test(d)
    # Sums over classes have not varied: two variables, three classes each.
    assert test.directions == 4
    assert test.unseen_offset == pytest.approx(offset * math.sqrt(6), rel=0.5)
    later = test.at(20)
    assert (later.log_unseen > -math.log(0.05)) == decides
    assert math.isfinite(test.log_unseen)


def test_perfectly_correlated_coordinates_count_once():
    d = light(300, 1) + 0.1
    both = torch.cat([d, -2 * d], 1)
    assert mean_test(both).directions == 1
    assert mean_test(both).p_value == pytest.approx(mean_test(d).p_value, rel=1e-9)
    # What sets the one apart from the other has not varied, so that few draws do not decide.
    wrong = both + torch.tensor([0.0, 1e-5], dtype=torch.float64)
    assert mean_test(wrong).unseen_offset > 0
    assert 0 < mean_test(wrong).log_unseen < 1e-3


def test_constants_equal_to_rounding_pass():
    d = torch.cat([light(300, 2), torch.full((300, 1), 1e-14, dtype=torch.float64)], 1)
    test = mean_test(d)
    assert test.directions == 2
    assert test.unseen_offset == 0
    assert test.p_value > 1e-6


@pytest.mark.parametrize("n", [3000, 30_000])
def test_a_constant_that_differs_is_a_bias_as_far_as_so_many_draws_show(n):
    d = torch.cat([light(n, 2), torch.full((n, 1), 0.5, dtype=torch.float64)], 1)
    test = mean_test(d)
    assert test.unseen_offset == pytest.approx(0.5)
    # The longest draw has the length 1.5: a rate of 1 in 3,000 would make up for it.
    assert test.log_unseen == pytest.approx(-n * math.log1p(-1 / 3000), rel=1e-9)
    assert test.p_of_evidence <= 10.1 * math.exp(-test.log_unseen)


def test_draws_shorter_than_the_offset_say_nothing():
    """All draws are 0, or tiny: those that carry the mean have not been met."""
    d = torch.zeros(10_000, 3, dtype=torch.float64)
    tests = [
        MeanTest(DeviationSums.from_draws(d - 1.0, size), 0.05, ROUNDING) for size in (0.0, 0.1)
    ]
    for test in tests:
        assert test.log_unseen == 0
        assert test.p_of_evidence == 1


@pytest.mark.parametrize("size", [0.0, 1e-14, 1e-6])
def test_where_nothing_varies(size):
    test = mean_test(torch.full((50, 4), size, dtype=torch.float64))
    assert test.directions == 0
    assert test.p_value == 1
    assert math.isfinite(test.log_evidence)
    assert test.bound == pytest.approx(2 * size + 2 * ROUNDING, rel=1e-6)


# ---- few draws, many dimensions ---------------------------------------------------------------


def test_few_draws_are_tested_one_coordinate_at_a_time():
    d = light(40, 8) + 0.1
    test = mean_test(d)
    assert not test.joint
    scores = d.mean(0) / d.std(0) * math.sqrt(40)
    each = 2 * scipy.stats.t.sf(scores.abs().numpy(), 39)
    assert test.p_value == pytest.approx(min(1.0, 8 * each.min()), rel=1e-9)


def test_in_many_dimensions_variances_are_enough():
    d = light(500, 600)
    test = mean_test(d)
    assert test.sums.scatter.shape == (600,)
    assert not test.joint
    assert test.p_value > 1e-6
    d[:, 17] += 0.5
    shifted = mean_test(d)
    assert shifted.p_value < 1e-12
    assert shifted.log_e_value > 20
    assert shifted.bound > 0.5


def test_a_single_event_widens_the_bound():
    heavy = torch.zeros(256, 3, dtype=torch.float64)
    heavy[0] = 1.0  # one event: a kurtosis of 254, so 2 degrees of freedom are left
    test = mean_test(heavy - 1 / 256)
    assert not test.joint
    assert test.widening > 4
    assert test.log_e_value <= 0


# ---- e-value and bound ------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 4])
def test_the_e_value_is_one_on_average(m):
    """E e = 1 for normal means of known covariance, by integration over W ~ chi-square."""
    # Its tail is as long as the largest effect size allows.
    parts = [
        scipy.integrate.quad(
            lambda w: math.exp(_log_mixture(w, 1000, m) + scipy.stats.chi2.logpdf(w, m)),
            *ends,
            limit=200,
        )[0]
        for ends in ((0, 1), (1, 100), (100, 5000))
    ]
    assert sum(parts) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 1e-6])
@pytest.mark.parametrize("D", [3, 600])
def test_the_bound_is_where_the_e_value_turns(D, alpha):
    d = light(2000, D)
    d = d - d.mean(0)
    d[:, 0] *= 3
    test = mean_test(d, alpha)
    assert test.bound == pytest.approx(test.radius, rel=1e-9)
    if test.joint:  # as far as the radius, in the direction that varies most
        edge = test.radius * torch.linalg.eigh(d.T.cov()).eigenvectors[:, -1]
    else:  # the radius is the diagonal of a box: to the side of it
        edge = test.radius * test.deviation / test.deviation.norm()
        edge[1:] = 0
    inside, outside = (mean_test(d + s * edge, alpha).log_e_value for s in (0.99, 1.01))
    assert inside < -math.log(alpha) < outside


def test_more_draws_of_the_same_moments_shrink_the_bound():
    test = mean_test(light(1000, 4))
    later = test.at(100)
    assert later.sums.n == 100_000
    torch.testing.assert_close(later.deviation, test.deviation, rtol=1e-3, atol=0)
    assert 8 < test.radius / later.radius < 11


def test_a_smaller_alpha_asks_for_more():
    d = light(1000, 4)
    radii = [mean_test(d, alpha).radius for alpha in (0.05, 1e-3, 1e-6, 1e-12)]
    assert radii == sorted(radii)
    assert math.isfinite(radii[-1])
