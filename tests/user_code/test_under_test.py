"""Draws of estimators and of functions as users write them, and what these do wrong."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gradlab
from gradlab.categorical import draw_one_hot, probabilities
from gradlab.loss import LossError, NotDifferentiableError
from gradlab.problems import problem, regime
from gradlab.user_code.under_test import EstimatorError, draws_of
from gradlab.verification.verdict import BIASED, UNBIASED
from gradlab.verification.verifying import verify

LOSS, LOGITS = problem("quadratic", 2, 3, 11), regime("moderate", 2, 3, 11)
TABLE = problem("table", 2, 3, 11)
ALPHA = 1e-9  # of one verdict; all of them stay below the familywise rate

# ---- forms ------------------------------------------------------------------------------------


def draw(f, logits, n, generator):
    """Gumbel-softmax straight-through with its derivative written out."""
    e = torch.empty(n, *logits.shape, dtype=logits.dtype).exponential_(generator=generator)
    y = torch.softmax((logits - e.log()) / 0.5, -1)
    x = F.one_hot(y.argmax(-1), y.shape[-1]).to(y.dtype).requires_grad_()
    (v,) = torch.autograd.grad(f(x).sum(), x)
    return y * (v - (y * v).sum(-1, keepdim=True)) / 0.5


def draw_without_generator(f, logits, n):
    seed = int(torch.randint(2**62, [1]))
    return draw(f, logits, n, torch.Generator().manual_seed(seed))


def surrogate(f, logits, generator):
    return f(gradlab.gumbel_softmax_st(logits, tau=0.5, generator=generator))


def surrogate_without_generator(logits, f):
    return f(F.gumbel_softmax(logits, tau=0.5, hard=True))


def sample(logits, generator):
    return gradlab.gumbel_softmax_st(logits, tau=0.5, generator=generator)


def sample_without_generator(logits):
    return F.gumbel_softmax(logits, tau=0.5, hard=True)


class Sampler:
    """A module as users have them: called with logits."""

    def __call__(self, logits):
        return sample_without_generator(logits)


FORMS = [
    draw,
    draw_without_generator,
    surrogate,
    surrogate_without_generator,
    sample,
    sample_without_generator,
    Sampler(),
    "GS-ST(tau=0.5)",
    gradlab.GumbelRao(0.5, 1),
]


@pytest.mark.parametrize("code", FORMS, ids=lambda code: draws_of(code).name)
@pytest.mark.few(1)
def test_all_forms_have_one_mean(code):
    options = {"delta": 0.2, "alpha": ALPHA, "method": "monte-carlo"}
    assert verify(code, LOSS, LOGITS, against="GR(tau=0.5, k=inf)", **options).outcome == UNBIASED
    assert verify(code, LOSS, LOGITS, against="GR(tau=0.8, k=inf)", **options).outcome == BIASED


@pytest.mark.parametrize("code", FORMS, ids=lambda code: draws_of(code).name)
@pytest.mark.few(1)
def test_draws_follow_their_generator_alone(code):
    before = torch.get_rng_state()
    draws = draws_of(code)
    first, again, other = (
        draws(LOSS, LOGITS, 8, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == (8, 2, 3)
    assert first.dtype == torch.float64
    assert not first.requires_grad
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    draws.check_randomness(LOSS, LOGITS)
    assert torch.equal(torch.get_rng_state(), before)


def test_names_and_claims():
    assert draws_of("ZGR").name == "ZGR"
    assert draws_of("ZGR").order == 2
    assert draws_of(gradlab.ARSM).calls(4) == 7
    assert draws_of(sample).name == "sample"
    assert draws_of(Sampler()).name == "Sampler"
    assert draws_of(sample).order is None
    assert draws_of(sample).calls(4) == 1


def test_what_a_function_claims():
    def claims(f, logits, n, generator):
        return gradlab.ZGR().draw(f, logits, n, generator)

    claims.order = 2
    assert draws_of(claims).order == 2
    assert verify(claims, LOSS, LOGITS, delta=0.1).claimed


def test_code_may_change_its_logits():
    def careless(f, logits, n, generator):
        g = draw(f, logits, n, generator)
        logits.zero_()
        return g

    before = LOGITS.clone()
    draws_of(careless)(LOSS, LOGITS, 4, torch.Generator().manual_seed(0))
    assert torch.equal(LOGITS, before)


def test_where_autograd_is_off_functions_still_have_gradients():
    with torch.no_grad():
        g = draws_of(sample)(LOSS, LOGITS, 4, torch.Generator().manual_seed(0))
    assert bool((g != 0).any())


# ---- randomness -------------------------------------------------------------------------------


def repeated(f, logits, n, generator):
    return gradlab.ZGR().draw(f, logits, 1, generator).expand(n, -1, -1)


def own_generator(f, logits, n, generator):
    return gradlab.ZGR().draw(f, logits, n, torch.Generator().manual_seed(0))


def global_noise(f, logits, n, generator):
    return gradlab.ZGR().draw(f, logits, n)


def numpy_noise(logits):
    gumbel = torch.from_numpy(np.random.gumbel(size=tuple(logits.shape)))  # noqa: NPY002
    y = torch.softmax((logits + gumbel) / 0.5, -1)
    return F.one_hot(y.argmax(-1), 3) + y - y.detach()


def half_shared(f, logits, n, generator):
    """Half of the variance is that of noise that all draws of a call share."""
    x = draw_one_hot(probabilities(logits), generator, 1).expand(n, -1, -1).clone()
    x[:, 1] = draw_one_hot(probabilities(logits[1:]), generator, n)[:, 0]
    return f(x)[:, None, None] * (x - probabilities(logits))


def in_pairs(f, logits, n, generator):
    return gradlab.ZGR().draw(f, logits, n, generator).repeat_interleave(8, 0)[:n]


NOT_RANDOM = {
    repeated: "repeated returns one draw n times: draws must be independent",
    own_generator: "own_generator ignores its generator: other generators give the same draws",
    global_noise: "global_noise does not follow its generator: two calls with the same one differ",
    numpy_noise: "numpy_noise does not follow its generator",
    half_shared: "draws of half_shared are not independent: .* is noise shared by draws",
    in_pairs: "draws of in_pairs are not independent",
}


@pytest.mark.parametrize("code", NOT_RANDOM, ids=lambda code: code.__name__)
@pytest.mark.few(3)
def test_noise_that_is_not_as_it_should_be_is_named(code):
    with pytest.raises(EstimatorError, match=NOT_RANDOM[code]):
        draws_of(code).check_randomness(LOSS, LOGITS)
    with pytest.raises(EstimatorError, match=NOT_RANDOM[code]):
        verify(code, LOSS, LOGITS)


@pytest.mark.parametrize("name", ["uniform", "moderate", "peaked", "masked"])
@pytest.mark.parametrize("code", ["ST", "ZGR", "GR(tau=0.1, k=1)", "RF(m=2)", "ARSM"])
@pytest.mark.few(5)
def test_good_draws_are_random_enough(code, name):
    draws_of(code).check_randomness(LOSS, regime(name, 2, 3, 0))


def test_a_rule_without_noise_is_no_fault():
    def constant(f, logits, n, generator):
        return gradlab.exact_gradient(f, logits).expand(n, -1, -1)

    draws_of(constant).check_randomness(LOSS, LOGITS)
    assert verify(constant, LOSS, LOGITS).unbiased


# ---- faults of shape, type and value ----------------------------------------------------------


def raises(f, logits, n, generator):
    return gradlab.ZGR().draw(f, logits, n, generator)[:, 7]


def one_draw(f, logits, n, generator):
    return gradlab.ZGR().draw(f, logits, 1, generator)[0]


def averaged(f, logits, n, generator):
    return gradlab.ZGR().draw(f, logits, n, generator).mean(0)


def nan_at_times(f, logits, n, generator):
    g = gradlab.ZGR().draw(f, logits, n, generator)
    g[g.shape[0] // 2 :, 1, 2] = math.nan
    return g


def infinite(f, logits, n, generator):
    return gradlab.ZGR().draw(f, logits, n, generator) / 0


def a_list(f, logits, n, generator):
    return gradlab.ZGR().draw(f, logits, n, generator).tolist()


def whole_numbers(f, logits, n, generator):
    return gradlab.ZGR().draw(f, logits, n, generator).long()


def nothing(f, logits, n, generator):
    gradlab.ZGR().draw(f, logits, n, generator)


def averaged_surrogate(f, logits, generator):
    return f(gradlab.zgr(logits, generator=generator)).mean()


def number_surrogate(f, logits, generator):
    return f(gradlab.zgr(logits, generator=generator)).mean().item()


def detached_surrogate(f, logits, generator):
    return f(gradlab.zgr(logits, generator=generator).detach())


def other_leaf(f, logits, generator):
    return f(gradlab.zgr(logits.detach().requires_grad_(), generator=generator))


def classes(logits, generator):
    return gradlab.zgr(logits, generator=generator).argmax(-1)


def detached_sample(logits, generator):
    return gradlab.zgr(logits, generator=generator).detach()


FAULTY = {
    raises: r"raises raised IndexError: index 7 is out of bounds .* \(test_under.*py, line \d+\)$",
    one_draw: r"one_draw must return \[n, N, C\] = \[6, 2, 3\] for n draws, not \[2, 3\]",
    averaged: r"averaged must return \[n, N, C\] = \[6, 2, 3\] for n draws, not \[2, 3\]",
    nan_at_times: r"returned nan in 50.00% of 6 draws, first for variable 1, class 2",
    infinite: r"infinite returned -?(inf|nan) in 100.00% of 6 draws",
    a_list: "a_list must return a floating-point tensor, not list",
    whole_numbers: "must return a floating-point tensor, not a torch.int64 tensor",
    nothing: "nothing must return a floating-point tensor, not NoneType",
    averaged_surrogate: r"one value for each of 6 logits \[n, N, C\], not \[\]; do not average",
    number_surrogate: "must give one value for each of 6 logits .*, not float",
    detached_surrogate: "value of detached_surrogate does not depend on the logits through torch",
    other_leaf: "no gradient of other_leaf reaches the logits",
    classes: r"classes must return x of the shape of logits \[6, 2, 3\], not \[6, 2\]",
    detached_sample: "detached_sample does not depend on the logits through torch",
}


@pytest.mark.parametrize("code", FAULTY, ids=lambda code: code.__name__)
@pytest.mark.usefixtures("unchecked")
def test_a_fault_is_named(code):
    with pytest.raises(EstimatorError, match=FAULTY[code]) as told:
        draws_of(code)(LOSS, LOGITS, 6, torch.Generator().manual_seed(0))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("code", [sample, surrogate, "ZGR"], ids=lambda code: draws_of(code).name)
@pytest.mark.usefixtures("unchecked")
def test_a_faulty_loss_is_not_blamed_on_the_estimator(code):
    with pytest.raises(NotDifferentiableError, match="f is not differentiable"):
        draws_of(code)(TABLE, LOGITS, 6, torch.Generator().manual_seed(0))


def test_a_loss_of_the_wrong_shape_is_named():
    with pytest.raises(LossError, match="one value for each x"):
        draws_of("ZGR")(lambda x: x.sum(), LOGITS, 6, torch.Generator().manual_seed(0))


class Unfinished(gradlab.SampleOnlyEstimator):
    name = "UNFINISHED"

    def __init__(self, alpha):
        self.alpha = alpha

    def pullback(self, p, x, v):
        return p


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (3, "cannot draw from int; give an Estimator, its class or its text"),
        (torch.zeros(2, 3), "cannot draw from Tensor"),
        (lambda x: x, "no argument is called logits, its arguments are x"),
        (len, "cannot draw from len: no argument is called logits"),
        (Unfinished, "Unfinished cannot be made without arguments: .*; give an object"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_code_is_refused(code, message):
    with pytest.raises(TypeError, match=message):
        draws_of(code)


def test_an_unknown_name_is_told():
    with pytest.raises(ValueError, match="ZGR"):
        draws_of("ZRG")
