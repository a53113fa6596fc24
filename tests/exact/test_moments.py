"""Sums over draws, their merging, and the numbers against a truth that they give."""

import math
import pickle

import pytest
import scipy
import torch

from cases import generator
from gradlab.moments import GROUPS, Groups, Moments
from significance import limit

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

TRUTH = torch.tensor([[0.3, -0.2, -0.1], [0.5, 0.1, -0.6]], dtype=torch.float64)


def draws(n: int, offset: float = 0.0) -> torch.Tensor:
    """Skewed draws with unequal variances."""
    e = torch.empty(n, 2, 3, dtype=torch.float64).exponential_(generator=generator(n))
    return e * torch.tensor([[1.0, 2.0, 0.5], [0.1, 1.0, 3.0]], dtype=torch.float64) + offset


def from_blocks(g: torch.Tensor, sizes: list[int]) -> Moments:
    total = Groups.from_draws(g[: sizes[0]])
    start = sizes[0]
    for size in sizes[1:]:
        total = total.merge(Groups.from_draws(g[start : start + size]))
        start += size
    return Moments.from_groups(total)


def exact(mean: torch.Tensor, variance: list[float]) -> Moments:
    return Moments(mean, torch.tensor(variance, dtype=torch.float64))


@pytest.mark.parametrize(
    "sizes",
    [[400], [160, 240], [16] * 25, [399, 1], [5, 395], [17, 33, 350], [1] * 400],
    ids=["one", "two", "of 16", "last of 1", "first of 5", "odd", "of 1"],
)
def test_mean_and_variance_are_those_of_all_draws(sizes):
    g = draws(400)
    moments = from_blocks(g, sizes)
    torch.testing.assert_close(moments.mean, g.mean(0), rtol=1e-13, atol=0)
    torch.testing.assert_close(moments.variance_per_variable, g.var(0).sum(-1), rtol=1e-12, atol=0)
    assert moments.variance.value == pytest.approx(float(g.var(0).sum()), rel=1e-12)
    torch.testing.assert_close(moments.mean_se, g.std(0) / 20, rtol=1e-12, atol=0)
    assert moments.n == 400


def test_a_large_offset_costs_no_digits_of_the_variance():
    plain, shifted = from_blocks(draws(400), [96, 304]), from_blocks(draws(400, 2.0**20), [96, 304])
    assert shifted.variance.value == pytest.approx(plain.variance.value, rel=1e-8)


def test_float32_draws_are_summed_as_well():
    moments = from_blocks(draws(4000).float() + 100, [2000, 2000])
    assert moments.mean.dtype == moments.variance_per_variable.dtype == torch.float64
    expected = float(draws(4000).var(0).sum())
    assert moments.variance.value == pytest.approx(expected, rel=1e-4)


def test_numbers_against_the_truth():
    moments = from_blocks(draws(400), [400])
    mean, variance = moments.mean, moments.variance.value
    bias2 = float((mean - TRUTH).square().sum()) - variance / 400
    assert moments.bias2(TRUTH).value == pytest.approx(bias2, rel=1e-12)
    assert moments.mse(TRUTH).value == pytest.approx(bias2 + variance, rel=1e-12)
    assert moments.mse(TRUTH, 10).value == pytest.approx(bias2 + variance / 10, rel=1e-12)


def ratios(mean: torch.Tensor, variance: float, n: int, truth: torch.Tensor, noise: float = 0):
    """Return the three ratios without correction; `noise`: the error of |truth|^2."""
    length2, truth2 = float(mean.square().sum()) - variance / n, float(truth.square().sum()) - noise
    cosine = float((mean * truth).sum()) / math.sqrt(length2 * truth2)
    return cosine, 2 * truth2 * (1 - cosine), variance * truth2 / length2


def of_groups(g: torch.Tensor, weights: torch.Tensor, truth: torch.Tensor = TRUTH):
    """Return the ratios of draws, each counted as often as its group weighs."""
    each = weights[torch.arange(len(g)) % GROUPS][:, None, None]
    n = float(each.sum())
    mean = (each * g).sum(0) / n
    return ratios(mean, float((each * (g - mean).square()).sum()) / (n - 1), round(n), truth)


def test_ratios_are_corrected_for_their_bias_and_their_errors_for_skewness():
    g, every = draws(400), torch.ones(GROUPS, dtype=torch.float64)
    moments = from_blocks(g, [160, 240])
    without = 1 - torch.eye(GROUPS, dtype=torch.float64)
    plain = of_groups(g, every)
    left = torch.tensor([of_groups(g, row) for row in without], dtype=torch.float64).T
    found = (
        moments.cosine(TRUTH),
        moments.scale_free_bias2(TRUTH),
        moments.scale_free_variance(TRUTH),
    )
    lean = (GROUPS - 1) * (left.mean(1) - torch.tensor(plain, dtype=torch.float64))
    assert found[0].value == pytest.approx(plain[0] - float(lean[0]), rel=1e-9)
    assert found[1].value == pytest.approx(plain[1] - float(lean[1]), rel=1e-9)
    logs = (left[2] / plain[2]).log()
    factor = (GROUPS - 1) * (logs.mean() + logs.var(correction=0) / 2)
    assert found[2].value == pytest.approx(plain[2] * math.exp(-float(factor)), rel=1e-9)
    student = float(scipy.stats.t.ppf(0.975, GROUPS - 1)) / 2
    for k, number in enumerate(found):
        away = left[k] - left[k].mean()
        se = float(((GROUPS - 1) * away.square().mean()).sqrt())
        ends = [of_groups(g, every + side * away / se)[k] for side in (-1, 1)]
        bend = sum(ends) / 2 - plain[k]
        assert number.se == pytest.approx(student * math.hypot(se, bend), rel=1e-9)
        assert 0 < abs(bend) < se


def test_a_ratio_whose_length_is_lost_in_noise_has_no_error():
    """With all draws the squared length is positive, without a group it is not."""
    g = torch.randn(64, 2, 3, dtype=torch.float64, generator=generator(3))
    moments = from_blocks(g + 0.08 * TRUTH, [64])
    assert moments.length2.value > 0
    for number in (moments.cosine(TRUTH), moments.scale_free_variance(TRUTH)):
        assert math.isfinite(number.value)
        assert math.isnan(number.se)


@pytest.mark.parametrize(
    "number",
    [
        lambda m: m.variance,
        lambda m: m.bias2(TRUTH),
        lambda m: m.mse(TRUTH),
        lambda m: m.mse(TRUTH, 50),
    ],
    ids=["variance", "bias2", "mse", "mse of 50"],
)
def test_exact_numbers_have_no_error_and_measured_ones_the_jackknife(number):
    assert number(exact(TRUTH * 2, [0.5, 1.0])).se == 0
    g = draws(400)
    found = number(from_blocks(g, [400]))
    # Draw i belongs to group i mod GROUPS.
    group = torch.arange(400) % GROUPS
    left = [number(from_blocks(g[group != k], [375])).value for k in range(GROUPS)]
    variance = (GROUPS - 1) * torch.tensor(left, dtype=torch.float64).var(correction=0)
    assert found.se == pytest.approx(float(variance.sqrt()), rel=1e-9)
    assert found.se > 0


def test_exact_numbers():
    moments = exact(2 * TRUTH, [0.5, 1.0])
    truth2 = float(TRUTH.square().sum())
    assert moments.n == math.inf
    assert (moments.variance, moments.variance.se) == (1.5, 0)
    assert moments.bias2(TRUTH).value == pytest.approx(truth2, rel=1e-14)
    assert moments.mse(TRUTH, 3).value == pytest.approx(truth2 + 0.5, rel=1e-14)
    assert moments.cosine(TRUTH).value == pytest.approx(1, abs=1e-14)
    # Twice too long is right after rescaling, and so has a quarter of the variance.
    assert moments.scale_free_bias2(TRUTH).value == pytest.approx(0, abs=1e-14)
    assert moments.scale_free_variance(TRUTH).value == pytest.approx(1.5 / 4, rel=1e-14)
    assert (moments.mean_se == 0).all()
    assert moments.effective_sample_size == math.inf


def test_squared_bias_of_an_unbiased_estimator_is_not_clipped():
    found = []
    for seed in range(20):
        noise = torch.randn(64, 2, 3, dtype=torch.float64, generator=generator(seed))
        found.append(from_blocks(TRUTH + noise, [64]).bias2(TRUTH).value)
    assert min(found) < 0 < max(found)


def test_no_direction_where_the_mean_or_the_truth_is_zero():
    zero = torch.zeros(2, 3, dtype=torch.float64)
    assert math.isnan(exact(TRUTH, [1.0, 1.0]).cosine(zero).value)
    assert math.isnan(exact(zero, [1.0, 1.0]).cosine(TRUTH).value)
    assert math.isnan(exact(zero, [1.0, 1.0]).scale_free_bias2(TRUTH).value)
    assert math.isnan(exact(zero, [1.0, 1.0]).scale_free_variance(TRUTH).value)


def test_constant_draws_have_no_variance_and_all_draws_count():
    moments = from_blocks(TRUTH.expand(100, 2, 3), [48, 52])
    assert moments.variance.value < 1e-30
    assert moments.bias2(TRUTH).value == pytest.approx(0, abs=1e-30)


def test_few_draws_that_carry_the_variance_are_told():
    g = torch.zeros(10_000, 1, 2, dtype=torch.float64)
    g[:20] = torch.tensor([100.0, -100.0])
    assert from_blocks(
        g[torch.randperm(10_000, generator=generator())], [10_000]
    ).effective_sample_size == (pytest.approx(20, rel=0.1))
    # |g - mean|^2 of two normal coordinates is exponential: (E r)^2 / E r^2 = 1/2.
    normal = torch.randn(10_000, 1, 2, dtype=torch.float64, generator=generator())
    assert from_blocks(normal, [5000, 5000]).effective_sample_size == pytest.approx(5000, rel=0.05)


@pytest.mark.parametrize("averaged", [0, 0.5, -1, math.nan])
def test_an_average_over_less_than_one_draw_is_refused(averaged):
    for verb in (exact(TRUTH, [1.0, 1.0]).mse, exact(TRUTH, [1.0, 1.0]).progress):
        with pytest.raises(ValueError, match="averaged must be at least 1 draw"):
            verb(TRUTH, averaged)


def test_too_few_draws_for_a_standard_error_say_nan():
    assert math.isnan(from_blocks(draws(20), [20]).variance.se)


def test_a_measured_number_is_a_number_with_its_error():
    measured = from_blocks(draws(320), [320]).variance
    again = pickle.loads(pickle.dumps(measured))
    assert (float(again), again.se) == (measured.value, measured.se)
    assert 2 * measured == 2 * measured.value
    assert repr(measured) == f"Measured({measured.value!r}, se={measured.se!r})"


# ---- a truth that is measured ------------------------------------------------------------------

BIAS = torch.tensor([[0.02, -0.02, 0.0], [0.0, 0.03, -0.03]], dtype=torch.float64)


def measured_pair(seed: int, bias: torch.Tensor) -> tuple[Moments, Moments]:
    noise = generator(seed)
    spread = torch.tensor([[1.0, 2.0, 0.5], [0.1, 1.0, 3.0]], dtype=torch.float64)

    def around(mean: torch.Tensor, n: int) -> Moments:
        e = torch.empty(n, 2, 3, dtype=torch.float64).exponential_(generator=noise)
        return from_blocks((e - 1) * spread + mean, [n])

    return around(TRUTH + bias, 640), around(TRUTH, 160)


NUMBERS = {
    "bias2": lambda m, t: m.bias2(t),
    "mse": lambda m, t: m.mse(t, 3),
    "cosine": lambda m, t: m.cosine(t),
    "progress": lambda m, t: m.progress(t, 3),
    "scale-free bias2": lambda m, t: m.scale_free_bias2(t),
    "scale-free variance": lambda m, t: m.scale_free_variance(t),
}


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("moments", [from_blocks(draws(400), [400]), exact(2 * TRUTH, [0.5, 1.0])])
def test_exact_moments_as_truth_are_the_tensor(moments, number):
    given, as_moments = number(moments, TRUTH), number(moments, exact(TRUTH, [3.0, 4.0]))
    assert (given.value, given.se) == (as_moments.value, as_moments.se)


def test_the_noise_of_a_measured_truth_is_taken_off():
    moments, truth = measured_pair(0, BIAS)
    distance2 = float((moments.mean - truth.mean).square().sum())
    noise = moments.variance.value / 640 + truth.variance.value / 160
    assert moments.bias2(truth).value == pytest.approx(distance2 - noise, rel=1e-12)
    length2 = float(truth.mean.square().sum()) - truth.variance.value / truth.n
    assert truth.length2.value == pytest.approx(length2, rel=1e-12)
    assert truth.length2.se > 0


def test_ratios_take_the_noise_of_a_measured_truth_off():
    """The corrections for the noise of the two add up; for a variance their factors multiply."""
    moments, truth = measured_pair(0, BIAS)
    still, still_truth = (Moments(m.mean, m.variance_per_variable, m.n) for m in (moments, truth))
    noise = truth.variance.value / 160
    plain = ratios(moments.mean, moments.variance.value, 640, truth.mean, noise)
    for k, name in enumerate(["cosine", "scale-free bias2", "scale-free variance"]):
        number = NUMBERS[name]
        assert number(still, still_truth).value == pytest.approx(plain[k], rel=1e-12)
        both, one, other = (
            number(m, t).value
            for m, t in ((moments, truth), (moments, still_truth), (still, truth))
        )
        together = one * other / plain[k] if k == 2 else one + other - plain[k]
        assert both == pytest.approx(together, rel=1e-9)


ADDING = {name: number for name, number in NUMBERS.items() if name != "progress"}


@pytest.mark.parametrize("number", ADDING.values(), ids=ADDING)
def test_the_standard_error_is_that_of_both(number):
    moments, truth = measured_pair(0, BIAS)
    frozen_moments, frozen_truth = (
        Moments(m.mean, m.variance_per_variable, m.n) for m in (moments, truth)
    )
    of_moments, of_truth = number(moments, frozen_truth).se, number(frozen_moments, truth).se
    assert number(moments, truth).se == pytest.approx(math.hypot(of_moments, of_truth), rel=1e-12)


@pytest.mark.thorough  # test_moments_progress.py has its like
def test_bias2_against_a_measured_truth_is_unbiased_and_its_error_honest():
    runs = 300
    found = [m.bias2(t) for m, t in (measured_pair(seed, 20 * BIAS) for seed in range(runs))]
    values = torch.tensor([float(number) for number in found], dtype=torch.float64)
    expected = 400 * float(BIAS.square().sum())
    spread = float(values.std())
    assert abs(float(values.mean()) - expected) < limit(runs - 1) * spread / math.sqrt(runs)
    assert sum(number.se for number in found) / runs == pytest.approx(spread, rel=0.15)


@pytest.mark.thorough  # the test above, with a bias
def test_where_there_is_no_bias_a_measured_truth_shows_none():
    runs = 200
    pairs = [measured_pair(seed, 0 * BIAS) for seed in range(runs)]

    def z(found: list[float]) -> float:
        values = torch.tensor(found)
        return float(values.mean() / (values.std() / math.sqrt(runs)))

    assert abs(z([m.bias2(t).value for m, t in pairs])) < limit(runs - 1)
    # The negative control: a truth taken as exact.
    assert z([m.bias2(t.mean).value for m, t in pairs]) > limit(runs - 1)


def test_a_truth_lost_in_noise_has_no_direction():
    moments, _ = measured_pair(0, BIAS)
    lost = exact(1e-3 * TRUTH, [1.0, 1.0])
    lost = Moments(lost.mean, lost.variance_per_variable, 10)
    assert lost.length2.value < 0
    assert math.isnan(moments.cosine(lost).value)
    assert math.isnan(moments.scale_free_bias2(lost).value)
    assert math.isnan(moments.scale_free_variance(lost).value)


def test_the_direction_of_rounding_is_not_a_number():
    truth, variance = torch.tensor([[3.0, -4.0]], dtype=torch.float64), torch.tensor([2.0])
    assert math.isnan(Moments(-1e-17 * truth, variance).cosine(truth))
    assert Moments(-1e-10 * truth, variance).cosine(truth) == pytest.approx(-1)
    assert Moments(-1e-17 * truth, torch.zeros(1)).cosine(truth) == pytest.approx(-1)
