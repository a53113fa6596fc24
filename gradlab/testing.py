"""Assertions for a user's own tests: an estimator is unbiased, or exact up to a degree.

They fail with the verdict's explanation. Given the seed they always end the same; over seeds, an
unbiased estimator is called biased at a rate of at most `alpha`, in all trials of one assertion
together, as far as each trial by draws keeps its level.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from gradlab.loss import Loss
from gradlab.user_code.under_test import Code
from gradlab.verification.order import Ladder, verify_order
from gradlab.verification.verdict import Verdict
from gradlab.verification.verifying import verify

__all__ = ["assert_exact_to_degree", "assert_unbiased"]


def assert_unbiased(
    code: Code,
    f: Loss,
    logits: Float[Tensor, "N C"],
    *,
    delta: float = 0.05,
    alpha: float = 1e-6,
    max_draws: int = 2**20,
    seed: int = 0,
    **options: Any,
) -> Verdict:
    """Assert that the mean of `code` is the gradient of E f at `logits`; return the verdict.

    Proved where the mean is known exactly; else by draws, seeded by `seed`: the bias must be shown
    to be below `delta` times the length of the gradient, with confidence 1 - `alpha`, within
    `max_draws`. An unbiased estimator is called biased with probability at most `alpha` over seeds;
    INCONCLUSIVE fails too, and says how many draws are needed. `options` and errors as for
    `gradlab.verify`. Raises AssertionError with the verdict's explanation.
    """
    options |= {"delta": delta, "alpha": alpha, "max_draws": max_draws, "seed": seed}
    verdict = verify(code, f, logits, **options)
    if not verdict.unbiased:
        raise AssertionError(verdict.explain())
    return verdict


def assert_exact_to_degree(
    code: Code, degree: float, *, alpha: float = 1e-6, seed: int = 0, **options: Any
) -> Ladder:
    """Assert that `code` is exact for f of `degree` in each variable (inf: unbiased); return why.

    Nine losses decide at one size and moderate logits. Code that is known by its draws alone is
    also tried at N = 1 to 4 and C = 2 to 5, at peaked, masked, shifted and equal logits, in float32
    and for large f. A counterexample fails there too, and the message says at which size, logits
    and dtype. A trial there that does not decide is no failure: `undecided` of the returned ladder
    names it. All trials share `alpha`. `options` and errors as for `gradlab.verify_order`. Raises
    AssertionError with the explanation.
    """
    ladder = verify_order(code, alpha=alpha, seed=seed, **options)
    if ladder.degree < degree:
        raise AssertionError(ladder.explain())
    return ladder
