"""Codes by which an attack on the verdicts made them err; what hides is named by the verdict."""

import math
from unittest import mock

import pytest
import torch
from torch import Generator, Tensor

from gradlab.categorical import draw_one_hot, probabilities
from gradlab.loss import NotFiniteError
from gradlab.problems import problem
from gradlab.user_code.under_test import Draws
from gradlab.verification.dependence import CallSums
from gradlab.verification.verdict import BIASED, UNBIASED, Verdict
from gradlab.verification.verifying import verify
from hard import most
from hard_codes import Code, Jumps, Loss, Pairs, Score, Shipped, Through
from hard_settings import Linear, Setting, Spots, logits_of, table, wide

D = torch.float64
PLAIN = table(2, 3)


def judged(code: Code, setting: Setting, seed: int, **options: object) -> Verdict:
    """Return the verdict by draws without the calls that ask for independent replicates."""
    with mock.patch.object(Draws, "check_randomness", return_value=None):
        return verify(code, setting.f, setting.logits, method="monte-carlo", seed=seed, **options)


def alarms(
    code: Code, setting: Setting, alpha: float, runs: int, rate: float, **options: object
) -> int:
    """Return in how many runs the code is called BIASED, though events of this rate are excluded.

    What makes up for a bias at a rate that the verdict names as not excluded is beyond any test.
    """
    found = (judged(code, setting, seed, alpha=alpha, **options) for seed in range(runs))
    return sum(v.outcome == BIASED and (v.unseen_rate or 0.0) <= rate for v in found)


class Roulette(Code):
    """Straight-through, and at rate q what REINFORCE differs from it, over q: unbiased."""

    def __init__(self, q: float) -> None:
        """Take the rate."""
        self.q = q

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the draws."""
        x = draw_one_hot(probabilities(logits), generator, n)
        st = Through().estimate(f, logits, x)
        rf = Score().estimate(f, logits, x)
        played = torch.rand(n, 1, 1, generator=generator, dtype=D) < self.q
        return st + played * (rf - st) / self.q


@pytest.mark.parametrize("alpha", [0.05, pytest.param(1e-3, marks=pytest.mark.slow)])
@pytest.mark.thorough  # test_hard.py has such lotteries
def test_roulette_that_corrects_straight_through_is_not_biased(alpha: float) -> None:
    # Before: q = .002: 51 of 100 at .05, 21 of 89 at 1e-3; the catalogue has noisier codes only.
    setting = Setting(problem("quadratic", 2, 3, 3), PLAIN.logits)
    assert alarms(Roulette(0.002), setting, alpha, 20, 0.002, max_draws=2**12) <= most(alpha, 20)


@pytest.mark.thorough  # test_hard.py has such jumps
def test_jumps_that_light_noise_hides_are_not_biased() -> None:
    # Before, at 1e-3: rate .005: 15 of 87; .001: 71 of 100; 1e-4: 98 of 100.
    code = Jumps(Pairs(32), PLAIN.g, 1e-3, 1.0, True)
    assert alarms(code, PLAIN, 1e-3, 40, 1e-3, max_draws=2**12) <= most(1e-3, 40)


class Hidden(Code):
    """Each variable jumps at a rate, compensated, and light noise of one direction hides it."""

    def __init__(self, g: Tensor, rate: float, size: float) -> None:
        """Take the gradient, the rate of jumps and the size of the common noise."""
        self.g, self.rate, self.size = g, rate, size
        v = torch.randn(g.shape, generator=Generator().manual_seed(5), dtype=D)
        self.v = v - v.mean(-1, keepdim=True)

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the draws."""
        jumps = torch.zeros(n, *logits.shape, dtype=D)
        met = torch.rand(n, len(logits), generator=generator, dtype=D) < self.rate
        jumps[..., 0] = met / self.rate - 1
        jumps = jumps - jumps.mean(-1, keepdim=True)
        common = self.size * torch.randn(n, 1, 1, generator=generator, dtype=D) * self.v
        inner = Shipped("RF(m=2)")(f, logits, n, generator)
        return inner + torch.linalg.vector_norm(self.g) * (jumps + common)


@pytest.mark.parametrize("size", [30.0, pytest.param(1e4, marks=pytest.mark.slow)])
@pytest.mark.thorough  # test_hard.py has skewed laws
def test_skew_that_coordinates_do_not_show_is_not_biased(size: float) -> None:
    # Before, at 1e-3: size 30: 40 of 40; 300: 39 of 40; 1e4: 35 of 40 (lognormal jumps 12 of 40).
    setting = wide(60, 2)
    code = Hidden(setting.g, 0.005, size)
    found = alarms(code, setting, 1e-3, 40, 0.005, max_draws=2**12, against=setting.g)
    assert found <= most(1e-3, 40)


class RareRow(Code):
    """Each draw g, but in the rare class of variable 0 it adds what is b |g| on average."""

    def __init__(self, g: Tensor, b: float, rate: float) -> None:
        """Take the gradient, the bias and the rate of the class."""
        self.g, self.b, self.rate = g, b, rate

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the draws."""
        rare = draw_one_hot(probabilities(logits), generator, n)[:, 0, 1]
        added = torch.zeros(n, *logits.shape, dtype=D)
        length = float(torch.linalg.vector_norm(self.g))
        added[:, 0, 1] = rare * self.b * length / self.rate / math.sqrt(2)
        added[:, 0, 0] = -added[:, 0, 1]
        return Through()(f, logits, n, generator) + added


LINE = Linear(torch.tensor([[0.5, 0.0], [1.0, -1.0]], dtype=D))


def rare_row(rate: float) -> Setting:
    """Return a setting whose first variable is nearly sure."""
    return Setting(LINE, logits_of((1 - rate, rate), (0.5, 0.5)))


@pytest.mark.slow
@pytest.mark.parametrize("bias", [0.051, 0.053])
def test_bias_above_delta_in_what_is_set_aside_is_not_cleared(bias: float) -> None:
    # Before, at 1e-3: 17 of 20 and 13 of 20 UNBIASED: `aside` is an estimate without its error.
    setting = rare_row(5e-4)
    code = RareRow(setting.g, bias, 5e-4)
    cleared = sum(judged(code, setting, seed).outcome == UNBIASED for seed in range(8))
    assert cleared <= most(1e-3, 8)


@pytest.mark.thorough  # test_hard.py: no verdict is wrong
@pytest.mark.parametrize("rate", [1e-3, pytest.param(1e-4, marks=pytest.mark.slow)])
def test_limit_of_the_bias_covers_what_is_set_aside(rate: float) -> None:
    # "With confidence 0.999 the bias is below": the true .2 |g| is above in 37 and 39 of 60.
    setting = rare_row(rate)
    most_draws = 2**12 if rate == 1e-3 else 2**15
    code, length = RareRow(setting.g, 0.2, rate), float(torch.linalg.vector_norm(setting.g))
    low = sum(
        judged(code, setting, seed, max_draws=most_draws).limit < 0.2 * length for seed in range(20)
    )
    assert low <= most(1e-3, 20)


def test_nothing_is_said_of_the_bias_where_nothing_is_tested() -> None:
    # "With confidence 0.999 the bias is below 1 |g|", it is 3 |g|: 33 of 40.
    setting = Setting(LINE, logits_of((1 - 1e-3, 1e-3), (1e-3, 1 - 1e-3)))
    code, length = RareRow(setting.g, 3.0, 1e-3), float(torch.linalg.vector_norm(setting.g))
    low = sum(judged(code, setting, s, max_draws=2**12).limit < 3 * length for s in range(20))
    assert low <= most(1e-3, 20)


def peaked(seed: int, scale: float) -> Tensor:
    """Return logits [1, 4] of this scale."""
    return scale * torch.randn(1, 4, generator=Generator().manual_seed(seed), dtype=D)


@pytest.mark.parametrize("code", ["GS-ST(tau=0.5)", "GS(tau=1.0)", "GR(tau=0.5, k=2)"])
@pytest.mark.few(1, "GR(tau=0.5, k=2)")
def test_peaked_logits_do_not_overflow(code: str) -> None:
    # OverflowError: int too big to convert, in `needed`; at scale 8 in 1 of 15.
    def parity(x: Tensor) -> Tensor:
        return x[..., 0].sum(-1) % 2

    for seed in range(15):
        verify(code, parity, peaked(seed, 30.0), max_draws=2**13).explain()


class Dense(Code):
    """Factor times g, with normal noise: light tails, whatever f is."""

    def __init__(self, g: Tensor, factor: float) -> None:
        """Take the gradient and the factor."""
        self.g, self.factor = g, factor

    def __call__(self, f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        """Return the draws."""
        noise = torch.randn(n, *logits.shape, generator=generator, dtype=D)
        noise = noise - noise.mean(-1, keepdim=True)
        return self.factor * self.g + torch.linalg.vector_norm(self.g) * noise


def test_wrong_sign_of_light_draws_is_found_on_a_sparse_f() -> None:
    # Before: INCONCLUSIVE at 2^20 draws with an e-value of 10^911252; 905b35a: BIASED by 625 draws.
    g = torch.full((9, 4), -(0.25**10), dtype=D)
    g[:, 0] += 0.25**9
    setting = Setting(Spots((1.0,)), torch.zeros(9, 4, dtype=D))
    assert judged(Dense(g, -1.0), setting, 0, max_draws=2**14).outcome == BIASED


def test_calls_of_equal_sums_by_chance_are_not_refused() -> None:
    # Draws of two values, one at p = .03, as of REINFORCE at N = 1, C = 2: all 8 calls have one of
    # them each, at .374^8 = 4e-4, and the p-value is 0. Measured: 11 of 24,000 at alpha 1e-3.
    one_each = torch.zeros(8, 32, 1, dtype=D)
    place = torch.randint(32, (8,), generator=Generator().manual_seed(0))
    one_each[torch.arange(8), place] = 1.0
    weights = CallSums.weights(one_each[0], 1e-12)
    sums = CallSums.from_call(one_each[0], weights)
    for call in one_each[1:]:
        sums = sums.merge(CallSums.from_call(call, weights))
    assert min(spread.p_value for spread in sums.spreads()) >= 1e-4


@pytest.mark.parametrize("code", ["RF(m=2)", "LE"])
def test_values_beyond_float32_give_no_nan(code: str) -> None:
    # "BIASED: bias nan |g|, exact", of correct estimators: the surrogate overflows in float32.
    def large(x: Tensor) -> Tensor:
        return 1e60 * x.double()[..., 0].sum(-1)

    found = verify(code, large, torch.zeros(2, 3))
    assert found.outcome != BIASED
    assert "nan" not in found.explain()


@pytest.mark.parametrize("size", [1e160, 1e200])
def test_values_whose_squares_overflow_are_refused(size: float) -> None:
    # Was for 1e160: "UNBIASED, proved: rounding allows nan |g|"; for 1e200: TruthError.
    def large(x: Tensor) -> Tensor:
        return size * x[..., 0].sum(-1)

    with pytest.raises(NotFiniteError, match="scale f"):
        verify("RF(m=2)", large, torch.zeros(3, 3, dtype=D))


def test_two_equal_means_of_no_gradient_ask_for_a_sensible_number_of_draws() -> None:
    # Target drawn, g = 0: the unit "|g|" is the noise of the target; needed 1,469,367,939.
    def symmetric(x: Tensor) -> Tensor:
        return (x[..., 0].sum(-1) - x[..., 1].sum(-1)).square()

    setting = Setting(symmetric, torch.zeros(3, 2, dtype=D))
    found = judged(Pairs(), setting, 0, against=Score(), max_draws=2**15)
    assert found.needed is None or found.needed < 2**24
