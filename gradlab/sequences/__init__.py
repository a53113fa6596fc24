"""Policy gradients over sequences of tokens: estimators on groups, and what each of them estimates.

A group is G sequences sampled for one prompt. An estimator gives every token of the group a
coefficient; the estimate is the sum of coefficient times score.
"""

from gradlab.sequences.catalogue import ESTIMATORS, parse
from gradlab.sequences.claims import Claim
from gradlab.sequences.difficulty import success_factor
from gradlab.sequences.group import Group
from gradlab.sequences.policy_gradient import PolicyGradient

__all__ = ["ESTIMATORS", "Claim", "Group", "PolicyGradient", "parse", "success_factor"]
