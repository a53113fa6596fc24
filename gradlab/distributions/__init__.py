"""What x is drawn from: `torch.distributions` classes with finitely many states.

Each has a differentiable `log_prob` and `mean`, all its states, and `rsample` with the gradient of
ZGR, ST or DARN.
"""

from gradlab.distributions.base import ExponentialFamily, FiniteDistribution
from gradlab.distributions.chain import Chain
from gradlab.distributions.k_subset import KSubset
from gradlab.distributions.one_hot import OneHotCategorical
from gradlab.distributions.permutation import Permutation
from gradlab.distributions.spanning_tree import SpanningTree
from gradlab.distributions.table import Finite
from gradlab.distributions.without_replacement import WithoutReplacement

__all__ = [
    "Chain",
    "ExponentialFamily",
    "Finite",
    "FiniteDistribution",
    "KSubset",
    "OneHotCategorical",
    "Permutation",
    "SpanningTree",
    "WithoutReplacement",
]
