"""The tables that the tests run over: estimators with their claims, problems, logits.

A new estimator is one row of `CLAIMS`, a new problem one entry of `STATISTICAL` or `LADDER`.
"""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import gradlab.estimators as es
from gradlab.categorical import log_probabilities
from gradlab.problems import problem, regime

__all__ = [
    "CLAIMS",
    "DROP_IN",
    "DTYPES",
    "LADDER",
    "REGIME_SEEDS",
    "STATISTICAL",
    "Claim",
    "all_states",
    "differentiable",
    "enumerated_estimates",
    "estimators",
    "generator",
    "is_binary",
    "is_of_levels",
    "logits_of",
    "loss_of",
    "state_probabilities",
]


@dataclass(frozen=True)
class Claim:
    """What is claimed of an estimator: its order, its cost, and what can be done with it.

    `calls`: evaluations of f a draw for 2 variables of 4 classes (2, if `binary`); `exact`: exact
    moments are known; `one_hot`: f sees one-hot points only; `tabled`: needs a table for each row
    of logits, so no large batches and no torch.func; `gradient`: needs grad f without being
    pathwise; `binary`: for two classes only (see test_binary.py); `certain`: a variable whose
    class is certain gets 0 in every draw, not only on average; `levels`: for f that act through the
    classes as numbers, which is the f of its order.
    """

    estimator: es.Estimator
    order: float
    calls: int = 1
    exact: bool = True
    one_hot: bool = True
    tabled: bool = False
    gradient: bool = False
    binary: bool = False
    certain: bool = True
    levels: bool = False

    @property
    def needs_gradient(self) -> bool:
        return self.pathwise or self.gradient

    @property
    def pathwise(self) -> bool:
        return isinstance(self.estimator, es.PathwiseEstimator)

    @property
    def sample_only(self) -> bool:
        return isinstance(self.estimator, es.SampleOnlyEstimator)


CLAIMS = [
    Claim(es.StraightThrough(), order=1),
    Claim(es.DARN(), order=1),
    Claim(es.ZGR(), order=2),
    Claim(es.STZGR(0.5), order=1),
    Claim(es.STZGR(1.0), order=2),
    Claim(es.STZGR(1.7), order=1),
    Claim(es.BinaryZGR(), order=2, binary=True),
    Claim(es.MVE(), order=1),
    Claim(es.MVE(None), order=2),
    Claim(es.IntegerMVE(), order=1, levels=True),
    Claim(es.IntegerMVE(None), order=2, levels=True),
    Claim(es.GumbelSoftmax(0.7), order=0, exact=False, one_hot=False),
    Claim(es.GumbelSoftmaxST(0.5), order=0),
    Claim(es.GumbelRao(0.5, 4), order=0),
    Claim(es.GumbelRao(1.0, 10), order=0),
    Claim(es.GumbelRao(0.5, None), order=0, tabled=True),
    Claim(es.ReinMax(), order=2),
    Claim(es.ReinMax(1.5), order=0),
    Claim(es.ReinMax(0.3), order=0),
    Claim(es.RK2(), order=1),
    Claim(es.RK2(1.0), order=2),
    Claim(es.ReinMaxRao(0.5, 4), order=0),
    Claim(es.ReinMaxRao(1.0, None), order=0, tabled=True),
    Claim(es.ReinMaxCV(0.5, 0.7, 4), order=2),
    Claim(es.PublishedReinMaxCV(0.5, 0.7, 4), order=0, exact=False),
    Claim(es.DecoupledGumbelSoftmaxST(), order=0, exact=False),
    Claim(es.GappedStraightThrough(), order=0),
    Claim(es.GappedStraightThrough(0.2, 0.5), order=0),
    Claim(es.AdaptiveGappedStraightThrough(), order=0),
    Claim(es.TemperedStraightThrough(), order=0),
    Claim(es.IMLE(), order=0),
    Claim(es.IMLE(3.0), order=0),
    Claim(es.TemperedStraightThrough(1.0), order=1),
    Claim(es.Reinforce(), order=math.inf),
    Claim(es.Reinforce(0.8), order=math.inf),
    Claim(es.LeaveOneOut(2), order=math.inf, calls=2),
    Claim(es.LeaveOneOut(4), order=math.inf, calls=4),
    Claim(es.ARSM(), order=math.inf, calls=7, exact=False, certain=False),
    Claim(es.LocalExpectation(), order=math.inf, calls=7),
    Claim(es.ARS(), order=math.inf, calls=4, exact=False, certain=False),
    Claim(es.ARM(), order=math.inf, calls=2, exact=False, binary=True, certain=False),
    Claim(es.DisARM(), order=math.inf, calls=2, binary=True, certain=False),
    Claim(es.MuProp(), order=math.inf, calls=2, one_hot=False, gradient=True),
    Claim(es.DoubleCV(), order=math.inf, calls=2, gradient=True),
    Claim(es.DoubleCV(3, -0.5), order=math.inf, calls=3, gradient=True),
    Claim(es.RODEO(), order=math.inf, calls=2, gradient=True),
    Claim(es.SumAndSample(), order=math.inf, calls=2),
    Claim(es.SumAndSample(3), order=math.inf, calls=4),
    Claim(es.UnorderedSet(), order=math.inf, calls=2),
    Claim(es.UnorderedSet(3), order=math.inf, calls=3),
    Claim(es.ARMS(), order=math.inf, calls=2, binary=True, certain=False),
    Claim(es.ARMS(4), order=math.inf, calls=4, binary=True, certain=False),
    Claim(es.CARMS(), order=math.inf, calls=2),
    Claim(es.CARMS(3), order=math.inf, calls=3),
    Claim(es.REBAR(), order=math.inf, calls=3, exact=False, one_hot=False, gradient=True),
    Claim(es.RELAX(), order=math.inf),
    Claim(es.MovingAverage(0.8, 0.5), order=math.inf),
    Claim(es.LearnedBaseline(), order=math.inf),
]

DROP_IN = [
    pytest.param(es.straight_through, {}, es.StraightThrough(), id="straight_through"),
    pytest.param(es.darn, {}, es.DARN(), id="darn"),
    pytest.param(es.zgr, {}, es.ZGR(), id="zgr"),
    pytest.param(es.st_zgr, {"alpha": 1.7}, es.STZGR(1.7), id="st_zgr"),
    pytest.param(es.gumbel_softmax, {"tau": 0.7}, es.GumbelSoftmax(0.7), id="gumbel_softmax"),
    pytest.param(
        es.gumbel_softmax_st, {"tau": 0.5}, es.GumbelSoftmaxST(0.5), id="gumbel_softmax_st"
    ),
    pytest.param(es.gumbel_rao, {"tau": 0.5, "k": 4}, es.GumbelRao(0.5, 4), id="gumbel_rao"),
]

DTYPES = [torch.float32, torch.float64, torch.bfloat16]

# Polynomials by their degree in each variable.
LADDER = {
    "constant": 0,
    "linear": 1,
    "multilinear": 1,
    "quadratic": 2,
    "multiquadratic": 2,
    "cubic": 3,
}

# Losses on which exact moments and draws are compared, the last without a gradient.
STATISTICAL = [
    "linear",
    "quadratic",
    "multiquadratic",
    "cubic",
    "mlp",
    "norm:1.5",
    "table",
]

# Seeds of the logits. `peaked` is one of the least extreme (classes from 0.009 to 0.98): where a
# state turns up a few times only, a mean over draws is not normal. `masked` leaves each of two
# variables two classes of three, and one of more variables a single class.
REGIME_SEEDS = {"uniform": 0, "moderate": 0, "peaked": 124, "masked": 2}


def estimators(*, one_each: bool = False, **wanted: Any) -> Any:
    """Return the parametrization over those estimators whose claims have the given values.

    Without `binary` these are the estimators for any number of classes; `one_each` leaves one row
    of each class of estimators.
    """
    wanted = {"binary": False} | wanted
    rows = [c for c in CLAIMS if all(getattr(c, key) == value for key, value in wanted.items())]
    if one_each:
        rows = list({type(row.estimator): row for row in reversed(rows)}.values())[::-1]
    return pytest.mark.parametrize("claim", rows, ids=[str(row.estimator) for row in rows])


def is_binary(cls: type[es.Estimator]) -> bool:
    """Return whether the estimators of a class are for two classes only."""
    return any(claim.binary for claim in CLAIMS if type(claim.estimator) is cls)


def is_of_levels(cls: type[es.Estimator]) -> bool:
    """Return whether the estimators of a class are for f of the levels only."""
    return any(claim.levels for claim in CLAIMS if type(claim.estimator) is cls)


def differentiable(name: str) -> bool:
    return name != "table"


def loss_of(name: str, variables: int = 2, classes: int = 3, seed: int = 3) -> Any:
    return problem(name, variables, classes, seed)


def logits_of(name: str, variables: int = 2, classes: int = 3) -> torch.Tensor:
    return regime(name, variables, classes, REGIME_SEEDS[name])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_states(variables: int, classes: int) -> torch.Tensor:
    """Return every one-hot x, [C^N, N, C]."""
    digits = torch.cartesian_prod(*[torch.arange(classes)] * variables).reshape(-1, variables)
    return torch.nn.functional.one_hot(digits, classes).to(torch.float64)


def state_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Return p(x) of `all_states`, [C^N]."""
    x = all_states(*logits.shape)
    return torch.where(x > 0, log_probabilities(logits), 0.0).sum((-2, -1)).exp()


def enumerated_estimates(estimator: Any, f: Any, logits: torch.Tensor) -> torch.Tensor:
    """Return the estimate of a pathwise estimator at each of `all_states`, through its backward."""
    x = all_states(*logits.shape)
    leaf = logits.expand(x.shape).clone().requires_grad_()
    f(estimator.sample(leaf, generator(), x=x)).sum().backward()
    return leaf.grad
