"""A loss function in the place of an estimator, in `verify`: its claim and its exact moments."""

from collections.abc import Callable, Sequence
from typing import Any

from gradlab.moments import Moments
from gradlab.sequences.aggregation import Aggregation, LocalTokenMean, Sum
from gradlab.sequences.claims import Claim
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.loss_match import named
from gradlab.sequences.loss_report import LossReport, examine
from gradlab.sequences.own_loss import OwnLoss
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.whole_groups import whole_group_moments

__all__ = ["LossEstimator", "own_estimator"]


class LossEstimator:
    """A loss function with what the engine asks of an estimator.

    Args:
        own: The loss.

    Example:
        >>> def loss(log_prob, rewards, mask):
        ...     a = (rewards - rewards.mean()).unsqueeze(-1)
        ...     return -(a * log_prob * mask).sum() / len(mask)
        >>> found = LossEstimator(OwnLoss(loss, g=2))
        >>> print(found.claim())
        target: gradient of J; on policy: exact up to the factor 0.5; off policy: biased
        - this is centred
        - off policy: no importance ratio corrects for the rollout policy
    """

    def __init__(self, own: OwnLoss) -> None:
        self.own, self.g = own, own.g
        self.report: LossReport = examine(own)
        self.coefficients = own.coefficients
        self.logit_coefficients = own.logit_coefficients
        self.kept = own.kept

    def __str__(self) -> str:
        return str(self.own)

    @property
    def aggregation(self) -> Aggregation:
        """SUM where the order of samples does not matter, else one in which it does."""
        return Sum() if "order of samples" in self.report.holding else LocalTokenMean(1)

    @property
    def estimator(self) -> PolicyGradient | None:
        """The estimator of the catalogue that it is, at its group size, or None."""
        match = self.report.match
        if not match.exact:
            return None
        found = match.estimator
        if match.given:
            found = named(found.with_(advantage=self.own.advantage))
        return found.with_(g=self.g, resample=False)  # a loss draws nothing again

    def claim(self, horizon: int | None = None) -> Claim:
        """Return the claim of the estimator that it is; without one it claims nothing.

        Args:
            horizon: T, which gives the factor of CONST.
        """
        found, factor = self.estimator, self.report.match.factor
        if found is None:
            return Claim("J", None, None, (str(self.report.match),))
        claim = found.claim(horizon)
        on, off = (None if f is None else f * factor for f in (claim.on_policy, claim.off_policy))
        return Claim(claim.target, on, off, (str(self.report.match), *claim.reasons))

    def moments(self, ons: Sequence[EnumeratedPolicy]) -> Moments:
        """Return the exact moments: every group of whole sequences is put to the loss.

        Args:
            ons: The policy on the task of each prompt.
        """
        return whole_group_moments(self, ons)  # type: ignore[arg-type]


def own_estimator(given: "OwnLoss | Callable[..., Any]", group: int | None = None) -> LossEstimator:
    """Return a loss function as an estimator.

    Args:
        given: A loss, or an `OwnLoss` with its options.
        group: G; by default that of the `OwnLoss`, and 2 for a function.

    Example:
        >>> str(own_estimator(lambda log_prob, rewards: -(rewards[:, None] * log_prob).sum()))
        '<lambda>'
    """
    own = given if isinstance(given, OwnLoss) else OwnLoss(given, g=group or 2)
    if group is not None and own.g != group:
        own = own.with_(g=group)
    return LossEstimator(own)
