"""gradlab: the truth about gradient estimators for categorical variables.

Exact gradients by enumeration, exact or Monte Carlo moments of every estimator, and the same estimator
objects for training. Names load on first use, so that importing gradlab is cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlab.comparison import compare as compare
    from gradlab.estimators import (
        ARSM as ARSM,
        DARN as DARN,
        ESTIMATORS as ESTIMATORS,
        STZGR as STZGR,
        ZGR as ZGR,
        Estimator as Estimator,
        GumbelRao as GumbelRao,
        GumbelSoftmax as GumbelSoftmax,
        GumbelSoftmaxST as GumbelSoftmaxST,
        LeaveOneOut as LeaveOneOut,
        Reinforce as Reinforce,
        SampleOnlyEstimator as SampleOnlyEstimator,
        StraightThrough as StraightThrough,
        ValueEstimator as ValueEstimator,
        darn as darn,
        gumbel_rao as gumbel_rao,
        gumbel_softmax as gumbel_softmax,
        gumbel_softmax_st as gumbel_softmax_st,
        parse as parse,
        st_zgr as st_zgr,
        straight_through as straight_through,
        zgr as zgr,
    )
    from gradlab.exact.enumeration import exact_gradient as exact_gradient
    from gradlab.exact.enumeration import exact_value as exact_value
    from gradlab.exact.moments import exact_moments as exact_moments
    from gradlab.moments import Moments as Moments
    from gradlab.montecarlo import monte_carlo as monte_carlo

__version__ = "0.1.0"

_HOME = {
    "compare": "comparison",
    "exact_gradient": "exact.enumeration",
    "exact_value": "exact.enumeration",
    "exact_moments": "exact.moments",
    "Moments": "moments",
    "monte_carlo": "montecarlo",
} | dict.fromkeys(
    """ARSM DARN ESTIMATORS STZGR ZGR Estimator GumbelRao GumbelSoftmax GumbelSoftmaxST LeaveOneOut
    Reinforce SampleOnlyEstimator StraightThrough ValueEstimator darn gumbel_rao gumbel_softmax
    gumbel_softmax_st parse st_zgr straight_through zgr""".split(),
    "estimators",
)

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gradlab' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"gradlab.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
