"""The estimators, one family a file, and their text forms.

`ESTIMATORS` lists every class by its name; `parse` reads `GR(tau=0.1, k=10)` back into an object.
"""

import ast
import difflib
from dataclasses import fields

from gradlab.estimators._gumbel_jacobian import QuadratureError
from gradlab.estimators.arm import ARM, DisARM
from gradlab.estimators.arms import ARMS, CARMS
from gradlab.estimators.arsm import ARS, ARSM
from gradlab.estimators.base import Estimator
from gradlab.estimators.baselines import LearnedBaseline, MovingAverage
from gradlab.estimators.binary_zgr import BinaryZGR
from gradlab.estimators.control_variate import RODEO, DoubleCV, MuProp
from gradlab.estimators.decoupled import DecoupledGumbelSoftmaxST
from gradlab.estimators.functional import (
    darn,
    gumbel_rao,
    gumbel_softmax,
    gumbel_softmax_st,
    st_zgr,
    straight_through,
    zgr,
)
from gradlab.estimators.gapped import AdaptiveGappedStraightThrough, GappedStraightThrough
from gradlab.estimators.gumbel import GumbelRao, GumbelSoftmax, GumbelSoftmaxST
from gradlab.estimators.integer_levels import IntegerMVE
from gradlab.estimators.local_expectation import LocalExpectation
from gradlab.estimators.minimum_variance import MVE
from gradlab.estimators.pathwise import PathwiseEstimator, SampleOnlyEstimator
from gradlab.estimators.rebar import REBAR, RELAX
from gradlab.estimators.reinmax import RK2, ReinMax
from gradlab.estimators.reinmax_rao import PublishedReinMaxCV, ReinMaxCV, ReinMaxRao
from gradlab.estimators.score_function import LeaveOneOut, Reinforce
from gradlab.estimators.straight_through import (
    DARN,
    STZGR,
    ZGR,
    StraightThrough,
)
from gradlab.estimators.sum_and_sample import SumAndSample
from gradlab.estimators.tempered import TemperedStraightThrough
from gradlab.estimators.unordered_set import UnorderedSet
from gradlab.estimators.values import SampledValueEstimator, ValueEstimator

__all__ = [
    "TemperedStraightThrough",
    "GappedStraightThrough",
    "AdaptiveGappedStraightThrough",
    "DecoupledGumbelSoftmaxST",
    "ReinMaxRao",
    "ReinMaxCV",
    "PublishedReinMaxCV",
    "ReinMax",
    "RK2",
    "MVE",
    "IntegerMVE",
    "BinaryZGR",
    "LearnedBaseline",
    "MovingAverage",
    "RELAX",
    "REBAR",
    "CARMS",
    "ARMS",
    "UnorderedSet",
    "SumAndSample",
    "RODEO",
    "DoubleCV",
    "MuProp",
    "DisARM",
    "ARM",
    "ARS",
    "LocalExpectation",
    "ARSM",
    "DARN",
    "ESTIMATORS",
    "STZGR",
    "ZGR",
    "Estimator",
    "GumbelRao",
    "GumbelSoftmax",
    "GumbelSoftmaxST",
    "LeaveOneOut",
    "PathwiseEstimator",
    "QuadratureError",
    "Reinforce",
    "SampleOnlyEstimator",
    "SampledValueEstimator",
    "StraightThrough",
    "ValueEstimator",
    "darn",
    "gumbel_rao",
    "gumbel_softmax",
    "gumbel_softmax_st",
    "parse",
    "st_zgr",
    "straight_through",
    "zgr",
]

ESTIMATORS: dict[str, type[Estimator]] = {
    cls.name: cls
    for cls in (
        StraightThrough,
        DARN,
        ZGR,
        STZGR,
        TemperedStraightThrough,
        GappedStraightThrough,
        AdaptiveGappedStraightThrough,
        BinaryZGR,
        MVE,
        IntegerMVE,
        ReinMax,
        RK2,
        GumbelSoftmax,
        GumbelSoftmaxST,
        GumbelRao,
        DecoupledGumbelSoftmaxST,
        ReinMaxRao,
        ReinMaxCV,
        PublishedReinMaxCV,
        Reinforce,
        MovingAverage,
        LearnedBaseline,
        LeaveOneOut,
        LocalExpectation,
        SumAndSample,
        UnorderedSet,
        MuProp,
        DoubleCV,
        RODEO,
        REBAR,
        RELAX,
        ARSM,
        ARS,
        CARMS,
        ARM,
        DisARM,
        ARMS,
    )
}


def parse(text: str) -> Estimator:
    """Return the estimator that `text` names, such as `ZGR` or `GR(tau=0.1, k=inf)`.

    Arguments are keyword numbers; those left out take their defaults; `k=inf` is the exact mean.
    Raises ValueError for an unknown name (with the nearest one), argument or value.
    """
    name, bracket, rest = text.strip().partition("(")
    cls = _find(name.strip())
    if not bracket:
        return cls()
    known = [f.name for f in fields(cls) if f.repr]  # type: ignore[arg-type]
    example = f"{cls.name}({', '.join(f'{k}=...' for k in known)})" if known else cls.name
    try:
        call = ast.parse(f"f({rest.replace('inf', 'None')}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        arguments = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
        if len(arguments) < len(call.keywords):  # given twice, or as **
            raise ValueError
    except (SyntaxError, ValueError):
        raise ValueError(f"cannot read estimator {text!r}; write it as {example}") from None
    for argument in arguments:
        if argument not in known:
            raise ValueError(f"{cls.name} has no argument {argument!r}; write it as {example}")
    return cls(**arguments)


def _find(name: str) -> type[Estimator]:
    if name in ESTIMATORS:
        return ESTIMATORS[name]
    by_lower = {known.lower(): known for known in ESTIMATORS}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.3)
    hint = f"; did you mean {by_lower[near[0]]!r}?" if near else ""
    raise ValueError(f"unknown estimator {name!r}{hint} Known: {', '.join(ESTIMATORS)}")
