"""Policy gradients over sequences of tokens: estimators on groups, and what each of them estimates.

A group is G sequences sampled for one prompt. An estimator gives every token of the group a
coefficient; the estimate is the sum of coefficient times score.
"""

from gradlab.sequences.automaton import Automaton
from gradlab.sequences.catalogue import ESTIMATORS, parse
from gradlab.sequences.claims import Claim
from gradlab.sequences.comparing import compare
from gradlab.sequences.difficulty import success_factor
from gradlab.sequences.drawing import monte_carlo
from gradlab.sequences.explaining import Case, Explanation, explain
from gradlab.sequences.group import Group
from gradlab.sequences.loss_report import LossReport, examine
from gradlab.sequences.moments import exact_moments
from gradlab.sequences.own_loss import LossFunctionError, OwnLoss
from gradlab.sequences.policies import NextToken, NGram, Tabular, TinyGRU, TinyTransformer
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.task import Task
from gradlab.sequences.truth import exact_gradient, exact_value
from gradlab.sequences.verdict import PolicyVerdict
from gradlab.sequences.verifying import verify

__all__ = [
    "ESTIMATORS",
    "Automaton",
    "Case",
    "Claim",
    "Explanation",
    "Group",
    "LossFunctionError",
    "LossReport",
    "NGram",
    "NextToken",
    "OwnLoss",
    "PolicyGradient",
    "PolicyVerdict",
    "Tabular",
    "Task",
    "TinyGRU",
    "TinyTransformer",
    "compare",
    "examine",
    "exact_gradient",
    "exact_moments",
    "exact_value",
    "explain",
    "monte_carlo",
    "parse",
    "success_factor",
    "verify",
]
