"""gradlab: the truth about gradient estimators for categorical variables.

Exact gradients by enumeration, exact or Monte Carlo moments of every estimator, and the same
estimator objects for training. Names load on first use, so that importing gradlab is cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlab.adapted import as_loss
    from gradlab.comparison import compare
    from gradlab.estimators import (
        ARM,
        ARMS,
        ARS,
        ARSM,
        CARMS,
        DARN,
        ESTIMATORS,
        MVE,
        REBAR,
        RELAX,
        RK2,
        RODEO,
        STZGR,
        ZGR,
        AdaptiveGappedStraightThrough,
        BinaryZGR,
        DecoupledGumbelSoftmaxST,
        DisARM,
        DoubleCV,
        Estimator,
        GappedStraightThrough,
        GumbelRao,
        GumbelSoftmax,
        GumbelSoftmaxST,
        IntegerMVE,
        LearnedBaseline,
        LeaveOneOut,
        LocalExpectation,
        MovingAverage,
        MuProp,
        PublishedReinMaxCV,
        Reinforce,
        ReinMax,
        ReinMaxCV,
        ReinMaxRao,
        SampleOnlyEstimator,
        StraightThrough,
        SumAndSample,
        TemperedStraightThrough,
        UnorderedSet,
        ValueEstimator,
        darn,
        gumbel_rao,
        gumbel_softmax,
        gumbel_softmax_st,
        parse,
        st_zgr,
        straight_through,
        zgr,
    )
    from gradlab.exact.enumeration import exact_gradient, exact_value
    from gradlab.exact.moments import exact_moments
    from gradlab.ladder import Ladder, verify_order
    from gradlab.moments import Moments
    from gradlab.montecarlo import monte_carlo
    from gradlab.ranking import best_temperature
    from gradlab.recommendation import Recommendation
    from gradlab.selection import recommend
    from gradlab.sweep.grid import Grid
    from gradlab.sweep.running import run_sweep
    from gradlab.sweep.store import sweep_rows
    from gradlab.verdict import Verdict
    from gradlab.verification import verify

__version__ = "0.4.0"

_ESTIMATORS = (
    "ARM ARMS ARS ARSM CARMS DARN ESTIMATORS MVE REBAR RELAX RK2 RODEO STZGR ZGR "
    "AdaptiveGappedStraightThrough BinaryZGR DecoupledGumbelSoftmaxST DisARM DoubleCV Estimator "
    "GappedStraightThrough GumbelRao GumbelSoftmax GumbelSoftmaxST IntegerMVE LearnedBaseline "
    "LeaveOneOut LocalExpectation MovingAverage MuProp PublishedReinMaxCV Reinforce ReinMax "
    "ReinMaxCV ReinMaxRao SampleOnlyEstimator StraightThrough SumAndSample "
    "TemperedStraightThrough UnorderedSet ValueEstimator darn gumbel_rao gumbel_softmax "
    "gumbel_softmax_st parse st_zgr straight_through zgr"
)
_HOME = {
    "as_loss": "adapted",
    "compare": "comparison",
    "exact_gradient": "exact.enumeration",
    "exact_value": "exact.enumeration",
    "exact_moments": "exact.moments",
    "Ladder": "ladder",
    "verify_order": "ladder",
    "Moments": "moments",
    "monte_carlo": "montecarlo",
    "best_temperature": "ranking",
    "Recommendation": "recommendation",
    "recommend": "selection",
    "Grid": "sweep.grid",
    "run_sweep": "sweep.running",
    "sweep_rows": "sweep.store",
    "Verdict": "verdict",
    "verify": "verification",
    **dict.fromkeys(_ESTIMATORS.split(), "estimators"),
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gradlab' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"gradlab.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
