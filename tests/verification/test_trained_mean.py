"""The mean of what trains: within its bound of the mean of a draw, in every dtype."""

import dataclasses
import itertools

import pytest
import torch

from cases import CLAIMS
from gradlab.estimators import LeaveOneOut, SampledValueEstimator, SampleOnlyEstimator
from gradlab.exact.moments import Enumeration
from gradlab.problems import problem, regime
from gradlab.verification.exact_bias import exact_bias
from gradlab.verification.trained_mean import trained_mean

pytestmark = pytest.mark.usefixtures("unchecked")

FED = [
    claim
    for claim in CLAIMS
    if claim.exact and isinstance(claim.estimator, SampledValueEstimator | SampleOnlyEstimator)
]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def enumerated(dtype, logits, offset, *size):
    f = problem("quadratic", *size, 0)
    return Enumeration(
        lambda x: f(x.double()).to(x.dtype) + offset, regime(logits, *size, 0).to(dtype)
    )


# Each dtype, kind of logits and offset once for every estimator; `make test-all` tries all pairs.
SHORT = [
    (torch.float64, "moderate", 0.0),
    (torch.float32, "masked", 5000.0),
    (torch.bfloat16, "peaked", 0.0),
]
WHERE = [
    pytest.param(*where, marks=() if where in SHORT else pytest.mark.slow)
    for where in itertools.product(DTYPES, ["moderate", "peaked", "masked"], [0.0, 5000.0])
]


@pytest.mark.parametrize(("dtype", "logits", "offset"), WHERE)
@pytest.mark.parametrize("claim", FED, ids=lambda claim: str(claim.estimator))
@pytest.mark.few(20)
def test_rounding_of_what_trains_is_within_its_bound(claim, dtype, logits, offset):
    on = enumerated(dtype, logits, offset, *((3, 2) if claim.binary else (2, 3)))
    found = trained_mean(claim.estimator, on, dtype)
    drawn = exact_bias(claim.estimator, on)
    assert float((found.mean - drawn.mean).norm()) <= 0.7 * found.bound
    assert abs(found.share - 1) <= 0.3 * found.share_bound


@pytest.mark.parametrize(("dtype", "offset"), [(torch.float32, 0.0), (torch.float64, 5000.0)])
@pytest.mark.parametrize("claim", FED, ids=lambda claim: str(claim.estimator))
@pytest.mark.few(20)
def test_the_bound_means_something(claim, dtype, offset):
    on = enumerated(dtype, "moderate", offset, *((3, 2) if claim.binary else (2, 3)))
    found = trained_mean(claim.estimator, on, dtype)
    assert found.bound < 1e-3 * on.gradient.norm()
    assert found.share_bound < 1e-5


@dataclasses.dataclass(frozen=True, repr=False)
class Half(LeaveOneOut):
    """RF(2) that gives parameters of f half of their gradient."""

    def estimate_at(self, f, logits, classes):
        value, estimate = super().estimate_at(f, logits, classes)
        return 0.5 * value + 0.5 * value.detach(), estimate


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_half_a_share_is_seen_in_every_dtype(dtype):
    found = trained_mean(Half(2), enumerated(dtype, "moderate", 0.0, 2, 3), dtype)
    assert found.share == pytest.approx(0.5, abs=0.01)
    assert abs(found.share - 1) > 3 * found.share_bound
