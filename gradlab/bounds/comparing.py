"""Estimators of bounds at several K, as rows of a tidy table."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from gradlab.bounds.base import BoundEstimator
from gradlab.bounds.moments import moments_of, monte_carlo
from gradlab.bounds.registry import bound_estimator
from gradlab.bounds.states import WeightedStates, passed
from gradlab.bounds.truth import gradient_of, value_of
from gradlab.checks import check_choice, check_int
from gradlab.comparison.eligibility import GRADIENT_COST, check_gradient_cost
from gradlab.comparison.measuring import measure
from gradlab.comparison.rows import AVERAGED, BOUNDED, METHODS, as_table
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.tuples import NotExactError
from gradlab.loss import Loss, NotDifferentiableError
from gradlab.loss.gate import Objective, name_of
from gradlab.moments import Truth, check_averaged
from gradlab.reproducible import check_seed, single_thread
from gradlab.version import __version__

__all__ = ["compare"]


@single_thread()
def compare(
    log_joint: Loss,
    logits: Float[Tensor, "N C"],
    estimators: Iterable[BoundEstimator | str],
    k: int | Sequence[int] = (2, 4, 8),
    draws: int = 10_000,
    seed: int = 0,
    *,
    method: str = "auto",
    problem: str | None = None,
    logits_seed: int | None = None,
    reference: BoundEstimator | str | None = None,
    reference_draws: int = 100_000,
    gradient_cost: float = GRADIENT_COST,
    averaged: float = AVERAGED,
) -> pd.DataFrame:
    """Measure estimators of the bound of K samples against its exact gradient, at each K.

    Args:
        log_joint: log p(x, z) of one-hot z, [..., N, C] -> [...], in nats.
        logits: Of q, [N, C].
        estimators: Estimators of `gradlab.bounds`, or their texts.
        k: K, the number of samples in the bound, or several.
        draws: Of each estimator that is measured by draws.
        seed: Of the draws.
        method: "exact", "monte-carlo", "both" as separate rows, or "auto": exact where there are
            few enough tuples of samples.
        problem: What the column of this name holds; by default the name of log_joint.
        logits_seed: What the column of this name holds.
        reference: An unbiased estimator that measures the true gradient where it cannot be
            enumerated. Standard errors then contain its noise, and the column `bound` is empty.
        reference_draws: Draws of the reference.
        gradient_cost: Evaluations of log p that log p with its gradient counts as.
        averaged: Draws whose mean the column `progress` is of.

    Returns:
        One row per estimator and K: the columns of `gradlab.compare`, with K and the bound. What
        cannot be measured is a row with its `reason`.

    Raises:
        TooLargeError: There are too many states to enumerate, and no reference was given.
        LossError: log_joint breaks the contract of a loss, or the bound is -inf.
        ValueError: An argument is not allowed.

    Example:
        >>> import torch
        >>> from gradlab import bounds
        >>> log_joint = lambda z: (z[..., 0, :] @ torch.tensor([0.1, 0.3])).log()
        >>> rows = bounds.compare(log_joint, torch.zeros(1, 2), ["VIMCO", "OVIS(gamma=1)"], k=2)
        >>> rows[["estimator", "K", "method"]].values.tolist()
        [['VIMCO', 2, 'exact'], ['OVIS(gamma=1)', 2, 'exact']]
        >>> (rows["bias2"] < 1e-20).tolist()
        [True, False]
    """
    check_choice("method", method, (*METHODS, "both"))
    check_gradient_cost(gradient_cost)
    check_averaged(averaged)
    check_seed(seed)
    cells = _distinct(estimators)
    numbers = list(k) if isinstance(k, Iterable) else [k]
    if not numbers:
        raise ValueError("k must name at least one number of samples")
    for number in numbers:
        check_int("k", number, 1)
    objective = passed(log_joint, logits)
    name = problem or name_of(log_joint)
    shared = {"problem": name, "N": logits.shape[0], "C": logits.shape[1], "seed": seed}
    shared |= {"logits_seed": logits_seed, "version": __version__}
    shared |= {"dtype": str(objective.dtype).removeprefix("torch.")}
    measuring = _Measuring(objective, logits, draws, seed, name, averaged)
    if reference is None:
        measuring.states = WeightedStates(objective, logits)
    rows: list[dict[str, Any]] = []
    for number in numbers:
        truth, about = measuring.truth(number, reference, reference_draws)
        for cell in cells:
            base = shared | about | _about(cell, number, logits, gradient_cost)
            rows += [base | row for row in measuring.rows(cell, number, truth, method)]
    return as_table(rows, BOUNDED)


def _distinct(estimators: Iterable[BoundEstimator | str]) -> list[BoundEstimator]:
    if isinstance(estimators, str | BoundEstimator):
        raise TypeError(f"estimators must be a list, such as [{estimators}], not one alone")
    cells = [bound_estimator(given) for given in estimators]
    if not cells:
        raise ValueError("estimators must not be empty")
    return list(dict.fromkeys(cells))


def _about(
    estimator: BoundEstimator, k: int, logits: Tensor, gradient_cost: float
) -> dict[str, Any]:
    """Return the columns of a row that name the estimator and say what one draw of it costs."""
    calls = estimator.calls(k, *logits.shape)
    cost = calls * (gradient_cost if estimator.needs_gradient else 1)
    return {
        "estimator": str(estimator),
        "series": estimator.series,
        "K": k,
        "calls": calls,
        "cost": cost,
    }


@dataclass
class _Measuring:
    """What all rows of a comparison share."""

    objective: Objective
    logits: Tensor
    draws: int
    seed: int
    name: str
    averaged: float
    states: WeightedStates | None = None

    def truth(
        self, k: int, reference: BoundEstimator | str | None, draws: int
    ) -> tuple[Truth, dict[str, Any]]:
        """Return the true gradient and the columns that say how it is known."""
        if self.states is not None:
            found = {"bound": float(value_of(self.states, k).detach()), "truth": "enumeration"}
            return gradient_of(self.states, k), found
        assert reference is not None
        chosen = bound_estimator(reference)
        if not chosen.unbiased:
            raise ValueError(f"the reference must be unbiased, which {chosen} is not")
        row = f"{self.name}|reference"  # other random numbers than its row has
        measured = monte_carlo(chosen, self.objective, self.logits, k, draws, self.seed, row=row)
        return measured, {"truth": f"{chosen}, {draws:,} draws"}

    def rows(
        self, estimator: BoundEstimator, k: int, truth: Truth, method: str
    ) -> list[dict[str, Any]]:
        """Return the numbers of one estimator: two rows for the method "both"."""
        refused = estimator.refusal(k, *self.logits.shape)
        ways = {"both": ["exact", "monte carlo"], "monte-carlo": ["monte carlo"]}
        found = []
        for way in ways.get(method, ["exact"]):
            start = time.perf_counter()
            row: dict[str, Any] = {"method": way, "reason": refused, "note": None, "draws": None}
            if refused is None:
                row |= self._measured(estimator, k, truth, way, fall_back=method == "auto")
            found.append(row | {"seconds": time.perf_counter() - start})
        return found

    def _measured(
        self, estimator: BoundEstimator, k: int, truth: Truth, way: str, *, fall_back: bool
    ) -> dict[str, Any]:
        """Return what is measured one way, by draws where exact moments are out of reach."""
        try:
            if way == "exact":
                if self.states is None:
                    self.states = WeightedStates(self.objective, self.logits)
                return measure(moments_of(estimator, self.states, k), truth, self.averaged)
            given = (self.objective, self.logits, k, self.draws, self.seed)
            moments = monte_carlo(estimator, *given, row=self.name)
            return measure(moments, truth, self.averaged) | {"draws": self.draws}
        except NotDifferentiableError as error:
            return {"reason": str(error)}
        except (NotExactError, TooLargeError) as error:
            if not fall_back:
                return {"reason": str(error)}
            drawn = self._measured(estimator, k, truth, "monte carlo", fall_back=False)
            return drawn | {"method": "monte carlo", "note": f"by draws: {error}"}
