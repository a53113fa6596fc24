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

    It is proved where the mean is known exactly. Otherwise draws decide: the bias must be shown to
    be below `delta` times the length of the gradient, with confidence 1 - `alpha`. An unbiased
    estimator is called biased with probability at most `alpha` over seeds. INCONCLUSIVE fails too,
    and says how many draws are needed.

    Args:
        code: an Estimator, its class or text, or code of a form that `gradlab.verify` takes.
        f: the loss, x [..., N, C] -> values [...].
        logits: [N, C].
        delta: the largest bias that passes, as a share of the length of the gradient.
        alpha: the rate of false alarms over seeds.
        max_draws: the largest number of draws.
        seed: fixes the draws, and so the result.
        **options: further arguments of `gradlab.verify`.

    Returns:
        The verdict, which is UNBIASED.

    Raises:
        AssertionError: the verdict is not UNBIASED; the message is its explanation.

    Example:
        >>> import torch
        >>> from gradlab.testing import assert_unbiased
        >>> assert_unbiased("RF(m=2)", lambda x: x[..., 0].sum(-1), torch.zeros(2, 3)).unbiased
        True
    """
    options |= {"delta": delta, "alpha": alpha, "max_draws": max_draws, "seed": seed}
    verdict = verify(code, f, logits, **options)
    if not verdict.unbiased:
        raise AssertionError(verdict.explain())
    return verdict


def assert_exact_to_degree(
    code: Code, degree: float, *, alpha: float = 1e-6, seed: int = 0, **options: Any
) -> Ladder:
    """Assert that `code` is exact for f of `degree` in each variable (inf: unbiased).

    Nine losses decide at one size and moderate logits. Code that is known by its draws alone is
    also tried at N = 1 to 4 and C = 2 to 5, at peaked, masked, shifted and equal logits, in float32
    and for large f. A counterexample fails there too, and the message says at which size, logits
    and dtype. A trial there that does not decide is not a failure.

    Args:
        code: an Estimator, its class or text, or code of a form that `gradlab.verify_order` takes.
        degree: the degree up to which the code must be exact.
        alpha: the rate of false alarms over seeds, of all trials together.
        seed: fixes the draws, and so the result.
        **options: further arguments of `gradlab.verify_order`.

    Returns:
        The ladder with the evidence; its `undecided` names trials that did not decide.

    Raises:
        AssertionError: the code is not exact to that degree; the message is the explanation.

    Example:
        >>> from gradlab.testing import assert_exact_to_degree
        >>> assert_exact_to_degree("ZGR", 2).degree
        2
    """
    ladder = verify_order(code, alpha=alpha, seed=seed, **options)
    if ladder.degree < degree:
        raise AssertionError(ladder.explain())
    return ladder
