"""`verify` on a subclass of our distributions whose `rsample` is the user's own code."""

import pytest
import torch
from torch import Generator, Tensor

from gradlab.distributions import KSubset, Permutation
from gradlab.distributions.base import FiniteDistribution, with_gradient
from gradlab.exact.moments import NotExactError
from gradlab.user_code.under_test import EstimatorError
from gradlab.verification.verdict import BIASED, UNBIASED, Verdict
from gradlab.verification.verifying import verify

LOGITS = torch.tensor([0.3, -0.7, 0.9, 0.1], dtype=torch.float64)


def f(x: Tensor) -> Tensor:
    return x[..., 0] * x[..., 1] + 0.5 * x[..., 2]


class Right(KSubset):
    """The backward of ZGR, written again."""

    def rsample(
        self, sample_shape: tuple[int, ...] = (), generator: Generator | None = None
    ) -> Tensor:
        return with_gradient(self, self.sample(sample_shape, generator), 1.0)


class Tripled(KSubset):
    """A mean that enters three times."""

    def rsample(
        self, sample_shape: tuple[int, ...] = (), generator: Generator | None = None
    ) -> Tensor:
        x = self.sample(sample_shape, generator)
        return x + 3 * (self.mean - self.mean.detach())


class Straight(KSubset):
    """The backward of ST, under the name of ZGR, which is the default."""

    def rsample(
        self, sample_shape: tuple[int, ...] = (), generator: Generator | None = None
    ) -> Tensor:
        return with_gradient(self, self.sample(sample_shape, generator), 0.0)


class Mode(KSubset):
    """No sample at all: the most probable subset, each time."""

    def rsample(
        self, sample_shape: tuple[int, ...] = (), generator: Generator | None = None
    ) -> Tensor:
        x = self.mode.expand(*sample_shape, *self.batch_shape, *self.event_shape)
        return with_gradient(self, x, 1.0)


class Detached(KSubset):
    """Samples that carry no gradient."""

    def rsample(
        self, sample_shape: tuple[int, ...] = (), generator: Generator | None = None
    ) -> Tensor:
        return self.sample(sample_shape, generator)


class Transposed(Permutation):
    """A sample, and the gradient of its transpose."""

    def rsample(
        self, sample_shape: tuple[int, ...] = (), generator: Generator | None = None
    ) -> Tensor:
        x = self.sample(sample_shape, generator)
        return x + (self.mean - self.mean.detach()).mT


def verdict(made: type[FiniteDistribution], logits: Tensor = LOGITS, **given: object) -> Verdict:
    def distribution(p: Tensor) -> FiniteDistribution:
        return made(p, 2) if issubclass(made, KSubset) else made(p)

    return verify("ZGR", f, logits, distribution=distribution, **given)


@pytest.mark.parametrize("made", [Tripled, Straight, Mode])
@pytest.mark.parametrize("judge", ["both", "training"])
def test_a_wrong_rsample_is_found_although_the_formula_is_right(made, judge):
    assert verdict(made, judge=judge).outcome == BIASED
    assert verdict(made, judge="draw").outcome == UNBIASED


def test_a_wrong_rsample_of_a_permutation_is_found():
    scores = torch.randn(3, 3, generator=Generator().manual_seed(0), dtype=torch.float64)

    def corner(x: Tensor) -> Tensor:
        return x[..., 0, 1]

    found = verify("ZGR", corner, scores, distribution=Transposed)
    assert found.outcome == BIASED, found


@pytest.mark.parametrize("method", ["auto", "monte-carlo"])
def test_a_right_rsample_passes_and_is_not_called_proved(method):
    found = verdict(Right, method=method, delta=0.2)
    assert found.outcome == UNBIASED, found
    assert found.method == "monte carlo"
    assert found.judged == "draw and training"


def test_an_rsample_without_a_gradient_is_a_fault_that_is_named():
    with pytest.raises(EstimatorError, match="rsample of Detached returns samples without"):
        verdict(Detached)


def test_a_proof_of_an_own_rsample_is_refused():
    with pytest.raises(NotExactError, match="rsample of your own, judged by draws"):
        verdict(Tripled, method="exact")


def test_another_estimator_than_the_one_of_rsample_is_judged_by_its_formula():
    logits = LOGITS
    linear = verify("ST", lambda x: x[..., 0], logits, distribution=lambda p: Tripled(p, 2))
    assert linear.outcome == UNBIASED
    assert linear.judged == "draw"
