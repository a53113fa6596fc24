"""Policy gradients over sequences of tokens: estimators on groups, and what each of them estimates.

A group is G sequences sampled for one prompt. An estimator gives every token of the group a
coefficient; the estimate is the sum of coefficient times score.
"""

from gradlab.sequences import tasks
from gradlab.sequences.automaton import Automaton
from gradlab.sequences.policies import NextToken, NGram, Tabular, TinyGRU, TinyTransformer
from gradlab.sequences.targets import exact_gradient, exact_value
from gradlab.sequences.task import Task

__all__ = [
    "Automaton",
    "NGram",
    "NextToken",
    "Tabular",
    "Task",
    "TinyGRU",
    "TinyTransformer",
    "exact_gradient",
    "exact_value",
    "tasks",
]
