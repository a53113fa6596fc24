"""The estimators, one family a file, and their text forms.

`ESTIMATORS` lists every class by its name, `OF_STRUCTURES` those that ask for a distribution;
`parse` reads `GR(tau=0.1, k=10)` back into an object.
The names of all classes come from `gradlab.estimators.registry`.
"""

# ruff: noqa: F403

from typing import TYPE_CHECKING

from gradlab.estimators._gumbel_jacobian import QuadratureError
from gradlab.estimators.base import Estimator
from gradlab.estimators.functional import (
    darn,
    gumbel_rao,
    gumbel_softmax,
    gumbel_softmax_st,
    st_zgr,
    straight_through,
    zgr,
)
from gradlab.estimators.pathwise import PathwiseEstimator, SampleOnlyEstimator
from gradlab.estimators.registry import ESTIMATORS, OF_STRUCTURES, parse
from gradlab.estimators.values import SampledValueEstimator, ValueEstimator

if TYPE_CHECKING:  # a new file of estimators is one more line
    from gradlab.estimators.arm import *
    from gradlab.estimators.arms import *
    from gradlab.estimators.arsm import *
    from gradlab.estimators.baselines import *
    from gradlab.estimators.control_variate import *
    from gradlab.estimators.decoupled import *
    from gradlab.estimators.gapped import *
    from gradlab.estimators.gumbel import *
    from gradlab.estimators.integer_levels import *
    from gradlab.estimators.local_expectation import *
    from gradlab.estimators.minimum_variance import *
    from gradlab.estimators.perturb_and_map import *
    from gradlab.estimators.rebar import *
    from gradlab.estimators.reinmax_rao import *
    from gradlab.estimators.score_function import *
    from gradlab.estimators.second_order import *
    from gradlab.estimators.straight_through import *
    from gradlab.estimators.subsets import *
    from gradlab.estimators.sum_and_sample import *
    from gradlab.estimators.unordered_set import *

__all__ = [
    "ESTIMATORS",
    "OF_STRUCTURES",
    "Estimator",
    "PathwiseEstimator",
    "QuadratureError",
    "SampleOnlyEstimator",
    "SampledValueEstimator",
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

_CLASSES = {cls.__name__: cls for cls in (ESTIMATORS | OF_STRUCTURES).values()}
globals().update(_CLASSES)
__all__ += _CLASSES
