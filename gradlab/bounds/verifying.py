"""Is an estimator of a bound unbiased in K? A verdict by enumeration, on what is drawn and trained.

A proof is of the code that runs: the formula that is enumerated is the one that `draw` and
`surrogate` call, and the backward of `surrogate` is put beside a draw of the same random numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.bounds.base import BoundEstimator
from gradlab.bounds.moments import moments_of
from gradlab.bounds.registry import bound_estimator
from gradlab.bounds.states import WeightedStates, restored
from gradlab.bounds.truth import gradient_of
from gradlab.checks import check_int
from gradlab.loss import Loss
from gradlab.loss.gate import name_of
from gradlab.problems import problem, regime
from gradlab.reproducible import single_thread

__all__ = ["BoundVerdict", "verify"]

# A bias below this share of the gradient, or of the standard deviation, is rounding.
_ROUNDING = 1e-9
# Random problems: N, C and the seed of log p(x, z) and of the logits.
_DEFAULT = (("table", 1, 5, 0), ("mlp", 2, 2, 1), ("quadratic", 1, 3, 2))
_SEEDS = range(3)


@dataclass(frozen=True, eq=False)
class BoundVerdict:
    """Whether an estimator is unbiased at each K that was tried.

    Args:
        estimator: The text of the estimator.
        claimed: Whether it declares to be unbiased at every K.
        table: One row per problem and K: `problem`, `K`, `outcome`, `bias` and `limit` relative to
            the gradient, `method`, `judged`, `claimed`,
            `holds` and `reason`.

    Example:
        >>> from gradlab import bounds
        >>> print(bounds.verify("VIMCO").explain())
        VIMCO: unbiased in K. No bias at K = 2, 3, 4 on 3 problems, by enumeration.
    """

    estimator: str
    claimed: bool
    table: pd.DataFrame

    @property
    def unbiased(self) -> bool:
        """Whether the estimator is unbiased at every K."""
        return bool((self.table["outcome"] == "UNBIASED").all())

    @property
    def holds(self) -> bool:
        """Whether it is as declared: one that declares to be unbiased is."""
        return bool(self.table["holds"].all())

    def rows(self) -> pd.DataFrame:
        """Return the table."""
        return self.table

    def explain(self) -> str:
        """Return the verdict in one or two sentences."""
        numbers = list(dict.fromkeys(self.table["K"]))
        at = "K = " + ", ".join(map(str, numbers))
        count = self.table["problem"].nunique()
        on = f"on {count} problem" + ("s" if count > 1 else "")
        if self.unbiased:
            return f"{self.estimator}: unbiased in K. No bias at {at} {on}, by enumeration."
        if (self.table["outcome"] == "INCONCLUSIVE").any():
            return f"{self.estimator}: INCONCLUSIVE. {self.table['reason'].dropna().iloc[0]}."
        worst = self.table.groupby("K", sort=False)["bias"].max()
        told = ", ".join(f"{share:.2g}" for share in worst)
        declared = "as it declares" if not self.claimed else "against what it declares"
        return (
            f"{self.estimator}: BIASED in K, {declared}. The bias is {told} of the gradient at "
            f"{at} {on}, by enumeration."
        )


@single_thread()
def verify(
    estimator: BoundEstimator | str,
    log_joint: Loss | None = None,
    logits: Float[Tensor, "N C"] | None = None,
    k: int | Sequence[int] | None = None,
) -> BoundVerdict:
    """Return whether an estimator of a bound is unbiased at several K, by enumeration.

    Args:
        estimator: An estimator of `gradlab.bounds`, or its text.
        log_joint: log p(x, z) of one-hot z; by default three small random problems, of which one is
            a bare table (not tried where the estimator needs a gradient).
        logits: Of q, [N, C]; given with log_joint.
        k: The numbers of samples; by default 2, 3 and 4, and 1 where the estimator has it.

    Returns:
        The verdict; `explain()` says it in words.

    Raises:
        NotExactError: The class overrides `draw` or `surrogate`.
        TooLargeError: There are too many states or tuples.
        TypeError: Only one of log_joint and logits is given.

    Example:
        >>> from gradlab import bounds
        >>> bounds.verify("OVIS").unbiased, bounds.verify("OVIS(gamma=1)").unbiased
        (True, False)
    """
    chosen = bound_estimator(estimator)
    least = [1] if chosen.least == 1 else []
    numbers = [k] if isinstance(k, int) else [*least, 2, 3, 4] if k is None else list(k)
    for number in numbers:
        check_int("k", number, 1)
    rows = []
    for name, f, at in _problems(chosen, log_joint, logits):
        on = WeightedStates(f, at)
        for number in numbers:
            g = gradient_of(on, number)
            moments = moments_of(chosen, on, number)
            trained = _trains_what_it_draws(chosen, on, number)
            length = float(g.norm())
            # Where the gradient is 0, the standard deviation is the unit.
            unit = length or float(moments.variance) ** 0.5 or 1.0
            scale = max(length, float(moments.variance) ** 0.5)
            bias = float((moments.mean - g).norm())
            exact = bias <= _ROUNDING * scale
            exact = exact and trained
            outcome = "UNBIASED" if exact else "BIASED" if trained else "INCONCLUSIVE"
            reason = None if trained else "the backward of surrogate is not the draw"
            rows.append(
                {
                    "estimator": str(chosen),
                    "problem": name,
                    "K": number,
                    "outcome": outcome,
                    "bias": 0.0 if exact else bias / unit,
                    "limit": _ROUNDING * scale / unit,
                    "unit": "|g|" if length else "standard deviation",
                    "method": "exact",
                    "judged": "draw and training",
                    "claimed": chosen.unbiased,
                    "holds": trained and (exact or not chosen.unbiased),
                    "reason": reason,
                }
            )
    return BoundVerdict(str(chosen), chosen.unbiased, pd.DataFrame(rows))


def _problems(
    estimator: BoundEstimator, log_joint: Loss | None, logits: Tensor | None
) -> Iterable[tuple[str, Loss, Tensor]]:
    if (log_joint is None) != (logits is None):
        raise TypeError("give log_joint and logits together, or neither")
    if log_joint is not None and logits is not None:
        return [(name_of(log_joint), log_joint, logits)]
    return [
        (f.name, f, regime("moderate", variables, classes, seed))
        for kind, variables, classes, seed in _DEFAULT
        if (f := problem(kind, variables, classes, seed)).differentiable
        or not estimator.needs_gradient
    ]


def _trains_what_it_draws(estimator: BoundEstimator, on: WeightedStates, k: int) -> bool:
    """Return whether the backward of `surrogate` is the draw of the same random numbers."""
    f = restored(on.objective)
    for seed in _SEEDS:
        drawn = estimator.draw(f, on.logits, k, 1, Generator().manual_seed(seed))[0]
        logits = on.logits.clone().requires_grad_()
        with torch.enable_grad():
            value = estimator.surrogate(f, logits, k, Generator().manual_seed(seed))
            (trained,) = torch.autograd.grad(value, logits)
        if not torch.allclose(trained, drawn, rtol=1e-9, atol=1e-12):
            return False
    return True
