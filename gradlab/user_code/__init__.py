"""Code that users bring: objects in their files, estimators in any form, what these must keep."""

from gradlab.user_code.objects import line_of, load_logits, load_object
from gradlab.user_code.replicates import (
    BatchStatisticsError,
    DependentDrawsError,
    EstimatorError,
    NotSeededError,
    StatefulError,
)
from gradlab.user_code.under_test import (
    Code,
    CodeEstimator,
    Draws,
    EstimatorDtypeError,
    draws_of,
    estimator_of,
)

__all__ = [
    "BatchStatisticsError",
    "Code",
    "CodeEstimator",
    "DependentDrawsError",
    "Draws",
    "EstimatorDtypeError",
    "EstimatorError",
    "NotSeededError",
    "StatefulError",
    "draws_of",
    "estimator_of",
    "line_of",
    "load_logits",
    "load_object",
]
