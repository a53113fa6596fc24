"""Bounds of several samples, log (1/K) sum_k p(x, z_k) / q(z_k): truth, estimators, comparison."""

from gradlab.bounds.base import BoundEstimator
from gradlab.bounds.comparing import compare
from gradlab.bounds.local_expectation import BoundLocalExpectation
from gradlab.bounds.moments import exact_moments, monte_carlo
from gradlab.bounds.registry import ESTIMATORS, parse
from gradlab.bounds.score_function import OVIS, VIMCO, OVISMonteCarlo, Plain, VIMCOArithmetic
from gradlab.bounds.straight_through import BoundDARN, BoundStraightThrough, BoundZGR
from gradlab.bounds.truth import exact_gradient, exact_value
from gradlab.bounds.verifying import BoundVerdict, verify

__all__ = [
    "ESTIMATORS",
    "OVIS",
    "VIMCO",
    "BoundDARN",
    "BoundEstimator",
    "BoundLocalExpectation",
    "BoundStraightThrough",
    "BoundVerdict",
    "BoundZGR",
    "OVISMonteCarlo",
    "Plain",
    "VIMCOArithmetic",
    "compare",
    "exact_gradient",
    "exact_moments",
    "exact_value",
    "monte_carlo",
    "parse",
    "verify",
]
