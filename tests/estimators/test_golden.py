"""Exact moments against the golden numbers of fixtures.json, which come from other formulas."""

import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch

from cases import generator
from gradlab.estimators import (
    DARN,
    MVE,
    RK2,
    STZGR,
    ZGR,
    AdaptiveGappedStraightThrough,
    GappedStraightThrough,
    GumbelRao,
    GumbelSoftmax,
    GumbelSoftmaxST,
    LeaveOneOut,
    Reinforce,
    ReinMax,
    StraightThrough,
    TemperedStraightThrough,
)
from gradlab.exact.moments import Enumeration
from gradlab.montecarlo import monte_carlo
from gradlab.problems import (
    Constant,
    Cubic,
    Linear,
    Multilinear,
    MultiQuadratic,
    Quadratic,
    Softplus,
)
from significance import limit, scores

CASES = {
    (case["N"], case["C"]): case
    for case in json.loads((Path(__file__).parents[1] / "fixtures.json").read_text())["cases"]
}
SIZES = list(CASES)
FUNCTIONS = [
    "constant",
    "linear",
    "multilinear",
    "quadratic",
    "multiquadratic",
    "cubic",
    "softplus",
]

ESTIMATORS = {
    "ST": StraightThrough(),
    "DARN(p)": DARN(),
    "ZGR": ZGR(),
    "ST(tau=0.5)": TemperedStraightThrough(0.5),
    "GST(gap=1,tau=1)": GappedStraightThrough(),
    "GST(gap=p,tau=1)": AdaptiveGappedStraightThrough(),
    "ReinMax(1.0)": ReinMax(),
    "ReinMax(1.5)": ReinMax(1.5),
    "RK2(alpha=2/3)": RK2(2 / 3),
    "ST-ZGR(alpha=0.5)": STZGR(0.5),
    "MVE(1)": MVE(),
    "MVE(inf)": MVE(None),
    "REINFORCE": Reinforce(),
    "RLOO(2)": LeaveOneOut(2),
    "RLOO(4)": LeaveOneOut(4),
    "GR(tau=0.5)": GumbelRao(0.5, None),
    "GS-ST(tau=0.5)": GumbelSoftmaxST(0.5),
    "GR-MC(tau=0.5,K=4)": GumbelRao(0.5, 4),
    "GR(tau=1)": GumbelRao(1.0, None),
    "GS-ST(tau=1)": GumbelSoftmaxST(1.0),
    "GR-MC(tau=1,K=4)": GumbelRao(1.0, 4),
}
AT_STATE = ["ST", "DARN(p)", "ZGR", "ReinMax(1.0)", "ST-ZGR(alpha=0.5)", "MVE(1)", "MVE(inf)"]
COVARIANCE = ["ST", "DARN(p)", "ZGR", "REINFORCE", "RLOO(2)", "RLOO(4)"]


def recipe(name: str, N: int, C: int):
    """The losses of the recipe that the fixtures state."""
    d = torch.arange(N * C, dtype=torch.float64)
    b = torch.sin(2 * d + 1).reshape(N, C)
    if name in ("linear", "multilinear", "softplus"):
        return {"linear": Linear, "multilinear": Multilinear, "softplus": Softplus}[name](b)
    if name == "constant":
        return Constant(a=1.7, N=N, C=C)
    Q = torch.cos(d[:, None] * d + d[:, None] + d).reshape(N, C, N, C)
    if name == "quadratic":
        return Quadratic(Q, b)
    if name == "multiquadratic":
        return MultiQuadratic(torch.einsum("icid->icd", Q).contiguous(), b)
    sums = d[:, None, None] + d[:, None] + d
    T = torch.sin(1 + sums + d[:, None, None] * d[:, None] * d)
    return Cubic(T.reshape((N, C) * 3))


def golden(size: tuple[int, int], name: str, estimator: str | None = None):
    entry = CASES[size]["functions"][name]
    return entry if estimator is None else entry["estimators"][estimator]


def logits_of(size: tuple[int, int]) -> torch.Tensor:
    N, C = size
    angles = 1 + 3 * torch.arange(N, dtype=torch.float64)[:, None] + torch.arange(C)
    return CASES[size]["amplitude"] * torch.sin(angles)


@cache
def enumeration(size: tuple[int, int], name: str) -> Enumeration:
    return Enumeration(recipe(name, *size), logits_of(size))


def distance(measured: object, expected: object) -> float:
    measured = torch.as_tensor(measured, dtype=torch.float64)
    return float((measured - torch.as_tensor(expected, dtype=torch.float64)).abs().max())


over_cases = pytest.mark.parametrize("size", SIZES, ids=str)
over_functions = pytest.mark.parametrize("name", FUNCTIONS)


@over_cases
def test_the_recipe_gives_the_logits_of_the_fixtures(size):
    assert distance(logits_of(size), CASES[size]["eta"]) < 1e-12


@over_functions
@over_cases
def test_value_variance_and_gradient_of_f(size, name):
    expected, values = golden(size, name), enumeration(size, name).values
    assert distance(values.mean, expected["mean_f"]) < 1e-12
    variance = (values.p * values.conditional_square).sum(-1)
    assert distance(variance, [expected["var_f"]] * size[0]) < 1e-12
    assert distance(values.gradient, expected["gradient"]) < 1e-12
    assert distance(values.gradient.norm(), expected["gradient_norm"]) < 1e-12


@over_functions
@over_cases
def test_f_and_its_gradient_at_the_reference_state(size, name):
    state = torch.nn.functional.one_hot(torch.tensor(CASES[size]["reference_state"]), size[1])
    x = state.to(torch.float64).requires_grad_()
    value = recipe(name, *size)(x)
    (v,) = torch.autograd.grad(value, x)
    expected = golden(size, name)
    assert distance(value.detach(), expected["f_at_reference_state"]) < 1e-12
    assert distance(v, expected["grad_f_at_reference_state"]) < 1e-12


@pytest.mark.parametrize("estimator", ESTIMATORS)
@over_cases
def test_mean_variance_and_bias(size, estimator):
    off = {}
    for name in FUNCTIONS:
        expected = golden(size, name, estimator)
        moments = enumeration(size, name).moments(ESTIMATORS[estimator])
        truth = torch.tensor(golden(size, name)["gradient"], dtype=torch.float64)
        assert moments.variance.se == 0
        off[name, "mean"] = distance(moments.mean, expected["mean"])
        off[name, "variance"] = distance(moments.variance.value, expected["total_variance"])
        off[name, "bias"] = distance((moments.mean - truth).norm(), expected["bias_norm"])
        off[name, "bias2"] = distance(moments.bias2(truth).value, expected["bias_norm"] ** 2)
    assert {key: value for key, value in off.items() if value > 1e-10} == {}


@over_functions
@over_cases
def test_best_constant_of_reinforce_is_the_mean_of_f_here(size, name):
    expected = golden(size, name, "REINFORCE(b=mean_f)")
    estimator = Reinforce(golden(size, name)["mean_f"])
    moments = enumeration(size, name).moments(estimator)
    assert distance(moments.mean, expected["mean"]) < 1e-10
    assert moments.variance.value == pytest.approx(expected["total_variance"], abs=1e-10)


@pytest.mark.parametrize("estimator", COVARIANCE)
def test_variance_of_each_variable(estimator):
    covariance = golden((2, 3), "quadratic", estimator)["covariance"]
    expected = torch.tensor(covariance, dtype=torch.float64).diagonal().reshape(2, 3).sum(-1)
    moments = enumeration((2, 3), "quadratic").moments(ESTIMATORS[estimator])
    assert distance(moments.variance_per_variable, expected) < 1e-10


@pytest.mark.parametrize("estimator", AT_STATE)
@over_cases
def test_the_estimate_at_the_reference_state(size, estimator):
    x = torch.nn.functional.one_hot(torch.tensor(CASES[size]["reference_state"]), size[1])
    off = {}
    for name in FUNCTIONS:
        logits = logits_of(size).requires_grad_()
        recipe(name, *size)(ESTIMATORS[estimator].sample(logits, x=x.to(logits.dtype))).backward()
        expected = golden(size, name, estimator)["estimate_at_reference_state"]
        off[name] = distance(logits.grad, expected)
    assert {key: value for key, value in off.items() if value > 1e-10} == {}


@over_functions
@over_cases
def test_the_estimate_of_reinforce_at_the_reference_state(size, name):
    classes = torch.tensor(CASES[size]["reference_state"]).expand(1, 1, -1)
    estimate = Reinforce().estimate_at(recipe(name, *size), logits_of(size), classes)[1][0]
    assert (
        distance(estimate, golden(size, name, "REINFORCE")["estimate_at_reference_state"]) < 1e-10
    )


def gs_scores(size: tuple[int, int], name: str, drawn_tau: float, tau: str) -> float:
    """Largest deviation of the mean of GS at drawn_tau from the golden mean at tau, in errors."""
    f = recipe(name, *size)
    moments = monte_carlo(GumbelSoftmax(drawn_tau), f, logits_of(size), 30_000, seed=5)
    expected = golden(size, name, f"GS(tau={tau})")["mean"]
    return float(scores(moments.mean, expected, moments.mean_se).abs().max())


# Its mean is a gradient of another loss, on which no table helps: from draws only.
@pytest.mark.parametrize("tau", ["0.5", "1"])
@pytest.mark.parametrize("name", ["constant", "linear", "multiquadratic", "cubic"])
@over_cases
@pytest.mark.few(9)
def test_the_mean_of_relaxed_gumbel_softmax(size, name, tau):
    assert gs_scores(size, name, float(tau), tau) < limit()


@pytest.mark.parametrize("name", ["linear", "multiquadratic", "cubic"])
@over_cases
@pytest.mark.few(3)
def test_the_mean_of_relaxed_gumbel_softmax_notices_another_temperature(size, name):
    assert gs_scores(size, name, 0.6, "1") > limit()


def test_draws_of_gumbel_rao_follow_the_golden_mean_and_variance():
    expected = golden((2, 3), "quadratic", "GR-MC(tau=0.5,K=4)")
    f = recipe("quadratic", 2, 3)
    draws = GumbelRao(0.5, 4).draw(f, logits_of((2, 3)), 40_000, generator(1))
    error = draws.std(0) / math.sqrt(len(draws))
    assert float(scores(draws.mean(0), expected["mean"], error).abs().max()) < limit()
    radius = (draws - draws.mean(0)).square().sum((-2, -1))
    error = radius.std() / math.sqrt(len(draws))
    assert abs(float(scores(radius.mean(), expected["total_variance"], error))) < limit()
