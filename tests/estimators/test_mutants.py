"""Claims of unbiasedness are made by the code that runs: each mutant of it breaks them."""

import pytest
import torch

from cases import CLAIMS, logits_of, loss_of
from gradlab.categorical import one_hot, probabilities
from gradlab.estimators import (
    ARM,
    ARS,
    ARSM,
    Estimator,
    LeaveOneOut,
    LocalExpectation,
    Reinforce,
    SampledValueEstimator,
    SumAndSample,
    UnorderedSet,
    arm,
    arsm,
)
from gradlab.exact.truth import exact_gradient, exact_moments
from test_claims import relative_bias

pytestmark = pytest.mark.usefixtures("unchecked")

SAMPLED = [c for c in CLAIMS if isinstance(c.estimator, SampledValueEstimator)]
SAMPLED_IDS = [str(claim.estimator) for claim in SAMPLED]


def setting(claim, name="cubic"):
    size = (2, 2) if claim.binary else (2, 3)
    return loss_of(name, *size), logits_of("moderate", *size)


def changed(monkeypatch, estimator, change):
    """Let the estimates of the class be `change(f, logits, classes, estimate)` from now on."""
    cls = type(estimator)
    before = cls.estimate_at

    def estimate_at(self, f, logits, classes):
        value, estimate = before(self, f, logits, classes)
        return value, change(f, logits, classes, estimate)

    monkeypatch.setattr(cls, "estimate_at", estimate_at)


def first_score(logits, classes):
    p = probabilities(logits)
    return one_hot(classes[0], p) - p


# What may be wrong in any estimate g; x are the classes of its samples.
MUTANTS = {
    "a tenth of a percent too large": lambda f, logits, x, g: 1.001 * g,
    "wrong sign": lambda f, logits, x, g: -g,
    "classes mixed up": lambda f, logits, x, g: g.roll(1, -1),
    "only one variable": lambda f, logits, x, g: g * torch.eye(g.shape[-2])[:1].T.to(g),
    "a baseline that knows its own sample": lambda f, logits, x, g: (
        g - 0.01 * f(one_hot(x[0], logits))[..., None, None] * first_score(logits, x)
    ),
    "a score that forgets p": lambda f, logits, x, g: g + 0.01 * probabilities(logits),
}


@pytest.mark.parametrize("name", ["cubic", "mlp"])
@pytest.mark.parametrize("claim", SAMPLED, ids=SAMPLED_IDS)
@pytest.mark.few(14)
def test_the_code_that_is_shipped_keeps_its_claim(claim, name):
    assert relative_bias(claim.estimator, *setting(claim, name)) <= 1e-12


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("claim", SAMPLED, ids=SAMPLED_IDS)
@pytest.mark.few(43)
def test_a_mutant_breaks_the_claim(claim, mutant, monkeypatch):
    changed(monkeypatch, claim.estimator, MUTANTS[mutant])
    assert relative_bias(claim.estimator, *setting(claim)) > 1e-4


@pytest.mark.parametrize("claim", SAMPLED, ids=SAMPLED_IDS)
def test_a_wrong_law_of_samples_breaks_the_claim(claim, monkeypatch):
    cls = type(claim.estimator)
    before = cls.tuple_probabilities

    def tilted(self, logits, classes):
        law = before(self, logits, classes) * (1 + 0.01 * (classes[0, :, 0] == 0))
        return law / law.sum()

    monkeypatch.setattr(cls, "tuple_probabilities", tilted)
    assert relative_bias(claim.estimator, *setting(claim)) > 1e-5


# Faults that people make, each in one family.


def without_m_over_m_minus_1(f, logits, classes, estimate):
    m = len(classes)
    return estimate * (m - 1) / m


@pytest.mark.parametrize("m", [2, 3, 4])
def test_leave_one_out_needs_its_factor(m, monkeypatch):
    changed(monkeypatch, LeaveOneOut(m), without_m_over_m_minus_1)
    found = relative_bias(LeaveOneOut(m), loss_of("table"), logits_of("moderate"))
    assert found == pytest.approx(1 / m, rel=1e-9)


def test_the_formula_of_moments_does_not_see_a_mutant(monkeypatch):
    """Why claims are not tested by moments: they are those of the formula."""
    changed(monkeypatch, Reinforce(), lambda f, logits, classes, estimate: 2 * estimate)
    monkeypatch.setattr("gradlab.exact.moments.check_mechanism", lambda estimator: None)
    monkeypatch.setattr("gradlab.exact.moments.is_shipped", lambda estimator: True)
    f, logits = loss_of("cubic"), logits_of("moderate")
    truth = exact_gradient(f, logits)
    torch.testing.assert_close(exact_moments(Reinforce(), f, logits).mean, truth)
    assert relative_bias(Reinforce(), f, logits) == pytest.approx(1, rel=1e-9)


def with_own_sample(f, logits, classes, estimate):
    """A moving average of .5 that has taken the sample in already."""
    return estimate - 0.5 * f(one_hot(classes[0], logits))[..., None, None] * first_score(
        logits, classes
    )


def test_a_baseline_that_contains_its_sample_shrinks_the_gradient(monkeypatch):
    changed(monkeypatch, Reinforce(), with_own_sample)
    found = relative_bias(Reinforce(), loss_of("mlp"), logits_of("moderate"))
    assert found == pytest.approx(0.5, rel=1e-9)


def test_local_expectations_need_their_weights(monkeypatch):
    """p phi without - p (p . phi): rows no longer sum to 0."""

    def uncentred(f, logits, classes, estimate):
        return estimate + probabilities(logits) * f(one_hot(classes[0], logits))[..., None, None]

    changed(monkeypatch, LocalExpectation(), uncentred)
    assert relative_bias(LocalExpectation(), loss_of("cubic"), logits_of("moderate")) > 0.1


@pytest.mark.parametrize("estimator", [SumAndSample(), UnorderedSet()], ids=str)
def test_samples_without_replacement_have_a_law_of_their_own(estimator, monkeypatch):
    """Weights of independent samples, where the samples are not."""
    independent = SampledValueEstimator.tuple_probabilities

    def law(self, logits, classes):
        return independent(self, logits, classes)

    monkeypatch.setattr(type(estimator), "tuple_probabilities", law)
    assert relative_bias(estimator, loss_of("cubic"), logits_of("moderate")) > 0.01


# Estimators of continuous noise: the mean over a grid of the noise, instead of draws.

_POINTS = 2**16


def uniforms(count):
    """Midpoints of a grid of [0, 1]."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def at_noise(monkeypatch, estimator, logits, f):
    """The mean of the code at a grid of its noise, for one variable of two or three classes."""
    classes = logits.shape[-1]
    if classes == 2:
        u = uniforms(_POINTS)
        pi = torch.stack([u, 1 - u], -1)
    else:
        root, v = torch.meshgrid(uniforms(512).sqrt(), uniforms(512), indexing="ij")
        pi = torch.stack([1 - root, root * (1 - v), root * v], -1).flatten(0, 1)
    n = len(pi)
    monkeypatch.setattr(arsm, "draw_exponentials", lambda *_: pi.unsqueeze(1))
    logit = (pi[:, :1] / (1 - pi[:, :1])).log()
    monkeypatch.setattr(arm, "draw_logistic", lambda *_: logit)
    return estimator.draw(f, logits, n).mean(0)


NOISE = [
    (ARM(), 2, 1e-4),
    (ARSM(), 2, 1e-4),
    (ARS(), 2, 1e-4),
    (ARSM(), 3, 0.01),
    (ARS(1), 3, 0.01),
]


@pytest.mark.parametrize("mutant", [None, "scaled", "sign", "baseline"])
@pytest.mark.parametrize(("estimator", "classes", "accuracy"), NOISE, ids=str)
@pytest.mark.few(5)
def test_estimators_of_continuous_noise(estimator, classes, accuracy, mutant, monkeypatch):
    f, logits = loss_of("table", 1, classes), logits_of("moderate", 1, classes)
    truth = exact_gradient(f, logits)
    if mutant is not None:
        spoil(monkeypatch, estimator, mutant)
    off = float((at_noise(monkeypatch, estimator, logits, f) - truth).norm() / truth.norm())
    assert (off <= accuracy) == (mutant is None)


def spoil(monkeypatch, estimator: Estimator, mutant):
    before = type(estimator).estimate

    def estimate(self, f, logits, n, generator):
        value, g = before(self, f, logits, n, generator)
        if mutant == "baseline":
            # f at the first of the points, instead of the mean over all that are swapped.
            g = g + 0.1 * value[..., None, None] * (g.sign() + 1)
        return value, -g if mutant == "sign" else g * (1.02 if mutant == "scaled" else 1)

    monkeypatch.setattr(type(estimator), "estimate", estimate)
