"""REBAR and RELAX: zero-mean corrections by relaxed samples, whatever they are made from."""

import math

import pytest
import torch

from cases import generator, logits_of, loss_of
from gradlab.categorical import draw_exponentials, log_probabilities
from gradlab.estimators import REBAR, RELAX, Reinforce, _relaxed_pair
from gradlab.estimators._control_network import ControlNetwork
from gradlab.exact.moments import NotExactError
from gradlab.exact.truth import exact_gradient, exact_moments
from gradlab.loss import value_and_gradient
from gradlab.montecarlo import monte_carlo
from gradlab.verification.verdict import BIASED, UNBIASED
from gradlab.verification.verifying import verify
from significance import limit, scores
from test_golden import logits_of as golden_logits
from test_golden import recipe

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

QUADRATIC, CUBIC = (recipe(name, 2, 3) for name in ("quadratic", "cubic"))
LOGITS = golden_logits((2, 3))


@pytest.fixture(scope="module")
def fitted() -> dict:
    return {
        name: RELAX().fit(recipe(name, 2, 3), LOGITS, 4096, generator(), steps=200)
        for name in ("quadratic", "cubic")
    }


def part_of_control(tau: float, n: int = 60_000, f=QUADRATIC, logits=LOGITS) -> torch.Tensor:
    """Draws of what REBAR adds for rho = 1: its estimate less that of rho = 0, same noise."""
    with_it, without = (REBAR(tau, rho).draw(f, logits, n, generator(4)) for rho in (1.0, 0.0))
    return with_it - without


@pytest.mark.parametrize("logits", ["moderate", "masked"])
@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("name", ["quadratic", "cubic", "mlp"])
@pytest.mark.few(5)
def test_the_control_variate_of_rebar_has_mean_zero(name, tau, logits):
    g = part_of_control(tau, 30_000, loss_of(name), logits_of(logits))
    error = g.std(0) / math.sqrt(len(g))
    assert scores(g.mean(0), 0.0, error).abs().max() < limit()


@pytest.mark.parametrize(("tau", "relative"), [(0.2, 0.87), (0.5, 0.69), (1.0, 0.49)])
@pytest.mark.few(1)
def test_constant_noise_given_x_is_found_with_the_stated_bias(tau, relative, monkeypatch):
    """The negative control: the derivative that Gumbel-Rao takes."""
    made = _relaxed_pair.RelaxedPair.draw

    def with_constant_noise(*args):
        on = made(*args)
        # The noise of y' stands still: grad y' = V(y') v / tau, no omega and no mean taken off.
        return _relaxed_pair.RelaxedPair(on.p * 0, on.x, on.y, on.given, on.omega * 0 + 1, on.tau)

    right = part_of_control(tau)
    monkeypatch.setattr(_relaxed_pair.RelaxedPair, "draw", staticmethod(with_constant_noise))
    on = _relaxed_pair.RelaxedPair.draw(LOGITS, tau, 60_000, generator(4))
    p = torch.softmax(LOGITS, -1)
    values, slopes = value_and_gradient(QUADRATIC, torch.stack([on.y, on.given]))
    score = -values[1].detach()[:, None, None] * (on.x - p)
    zero = torch.zeros(len(on.x), dtype=torch.float64)
    wrong = score + on.estimate(zero, zero, slopes[0], slopes[1])
    size = wrong.mean(0).norm() / exact_gradient(QUADRATIC, LOGITS).norm()
    assert float(size) == pytest.approx(relative, abs=0.03)
    error = wrong.std(0) / math.sqrt(len(wrong))
    assert scores(wrong.mean(0), 0.0, error).abs().max() > limit()
    error = right.std(0) / math.sqrt(len(right))
    assert scores(right.mean(0), 0.0, error).abs().max() < limit()


@pytest.mark.parametrize("logits", ["moderate", "masked"])
@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_the_derivative_of_the_sample_given_x(tau, logits, monkeypatch):
    """Against automatic differentiation of z given x with the exponentials held."""
    f, logits = loss_of("mlp"), logits_of(logits)
    noise = draw_exponentials(torch.empty(2, 40, 2, 3, dtype=torch.float64), generator())
    monkeypatch.setattr(_relaxed_pair, "draw_exponentials", lambda *_: noise)
    found = REBAR(tau, 1.0).draw(f, logits, 40)
    leaf = logits.expand(40, 2, 3).clone().requires_grad_()
    log_p = log_probabilities(leaf)
    z = log_p - noise[0].log()
    k = z.argmax(-1, keepdim=True)
    x = torch.zeros_like(z).scatter(-1, k, 1.0).detach()
    e_k = noise[1].log().gather(-1, k)
    given = -torch.logaddexp(noise[1].log() - log_p, e_k)
    given = torch.where(x > 0, -e_k.expand_as(given), given)
    allowed = (logits > -math.inf).expand_as(z)
    y, y_given = (torch.softmax(t.masked_fill(~allowed, -1e30) / tau, -1) for t in (z, given))
    log_x = log_p.masked_fill(~allowed, 0.0)
    # (f(x) - f(y')) d log p(x) + d f(y) - d f(y'), each with its own stop.
    weight = (f(x) - f(y_given)).detach()
    total = (weight * (log_x * x).sum((-2, -1)) + f(y) - f(y_given)).sum()
    (expected,) = torch.autograd.grad(total, leaf)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("estimator", "variance"),
    [
        (REBAR(0.5, 0.0), 1.624),
        (REBAR(0.5, 1.0), 1.100),
        (REBAR(0.5, 0.72), 1.009),
        (REBAR(0.2, 1.0), 2.50),
    ],
    ids=str,
)
@pytest.mark.few(2)
def test_variances_of_rebar_on_the_quadratic_of_the_fixtures(estimator, variance):
    found = monte_carlo(estimator, QUADRATIC, LOGITS, 40_000, seed=1).variance
    assert abs(found.value - variance) < 5 * found.se + 5e-3


def test_fit_finds_the_best_rho():
    best = REBAR().fit(QUADRATIC, LOGITS, 40_000, generator())
    assert best.rho == pytest.approx(0.72, abs=0.03)
    assert best.tau == 0.5


@pytest.mark.thorough  # the golden values of RELAX
def test_without_network_relax_is_reinforce(fitted):
    found = RELAX().draw(CUBIC, LOGITS, 50, generator())
    assert torch.equal(found, Reinforce().draw(CUBIC, LOGITS, 50, generator()))
    assert exact_moments(RELAX(), CUBIC, LOGITS).variance.value == pytest.approx(
        exact_moments(Reinforce(), CUBIC, LOGITS).variance.value, rel=1e-12
    )
    with pytest.raises(NotExactError, match="draws more than samples of x"):
        exact_moments(fitted["cubic"], CUBIC, LOGITS)


@pytest.mark.parametrize(("name", "below"), [("quadratic", 0.92), ("cubic", 0.126)])
def test_a_fitted_network_lowers_the_variance_and_not_the_mean(name, below, fitted):
    """Below what quadratic features reach: 0.917 and 0.125, from 1.624 and 0.179 of REINFORCE."""
    f, estimator = recipe(name, 2, 3), fitted[name]
    drawn = monte_carlo(estimator, f, LOGITS, 60_000, seed=2)
    truth = exact_gradient(f, LOGITS)
    assert scores(drawn.mean, truth, drawn.mean_se).abs().max() < limit()
    assert scores(drawn.mean, 1.2 * truth, drawn.mean_se).abs().max() > limit()
    assert drawn.variance.value + 4 * drawn.variance.se < below
    # Fitted to one loss it is unbiased for another one, at other logits.
    other, logits = loss_of("table"), logits_of("moderate")
    drawn = monte_carlo(estimator, other, logits, 40_000, seed=3)
    truth = exact_gradient(other, logits)
    assert scores(drawn.mean, truth, drawn.mean_se).abs().max() < limit()


@pytest.mark.thorough  # test_order_measured_from_draws_is_the_declared_order
def test_verdicts(fitted):
    assert verify(REBAR(), CUBIC, LOGITS, max_draws=2**19).outcome == UNBIASED
    assert verify(fitted["quadratic"], QUADRATIC, LOGITS).outcome == UNBIASED

    def halved(f, logits, n, generator):
        return 0.8 * fitted["quadratic"].draw(f, logits, n, generator)

    assert verify(halved, QUADRATIC, LOGITS).outcome == BIASED


def test_fitting_is_reproducible_and_evaluates_f_at_its_samples_only():
    seen = []
    plain = RELAX(0.7)
    first, second = (
        plain.fit(lambda x: seen.append(len(x)) or CUBIC(x), LOGITS, 100, generator(3), steps=5)
        for _ in range(2)
    )
    assert seen == [100, 100]
    assert plain.network is None
    assert str(first) == "RELAX(temperature=0.7)"
    draws = [e.draw(CUBIC, LOGITS, 10, generator()) for e in (first, second)]
    assert torch.equal(*draws)
    assert not any(p.requires_grad for p in first.network.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_fitted_network_takes_other_dtypes_and_batches(dtype, fitted):
    logits = LOGITS.to(dtype).expand(5, 4, 2, 3).clone().requires_grad_()
    values = fitted["cubic"].surrogate(loss_of("mlp"), logits, generator())
    assert values.shape == (5, 4)
    values.sum().backward()
    assert logits.grad.dtype == dtype
    assert logits.grad.isfinite().all()


def test_a_network_for_other_sizes_is_refused(fitted):
    f, logits = loss_of("cubic", 3, 3), logits_of("moderate", 3, 3)
    message = "this RELAX is fitted to logits [2, 3], not [3, 3]; fit it again"
    assert fitted["cubic"].supports(f, logits) == message
    with pytest.raises(ValueError, match="fit it again"):
        fitted["cubic"].draw(f, logits, 2)


def test_the_slope_of_the_network_is_its_derivative():
    network = ControlNetwork.random(LOGITS, 7, torch.arange(5.0).double(), generator())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=generator(1))
    y = torch.rand(10, 2, 3, dtype=torch.float64, generator=generator()).requires_grad_()
    (expected,) = torch.autograd.grad(network.value(y).sum(), y)
    torch.testing.assert_close(network.slope(y), expected)


@pytest.mark.parametrize("tau", [1e-3, 1e-2, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_all_temperatures_give_finite_draws(tau, dtype):
    g = REBAR(tau).draw(loss_of("cubic"), logits_of("masked").to(dtype), 2000, generator())
    assert g.isfinite().all()
    assert g.abs().max() <= 20 / tau + 20


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: REBAR(0.0), "tau must be a positive finite number"),
        (lambda: RELAX(-1.0), "tau must be a positive finite number"),
        (lambda: REBAR(0.5, math.nan), "rho must be a finite number"),
        (lambda: RELAX().fit(CUBIC, LOGITS, 0), "draws must be an int of at least 1"),
        (lambda: RELAX().fit(CUBIC, LOGITS, hidden=0), "hidden must be an int of at least 1"),
        (lambda: RELAX().fit(CUBIC, LOGITS, steps=1.5), "steps must be an int of at least 1"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
