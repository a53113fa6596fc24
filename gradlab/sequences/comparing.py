"""Policy gradients on one policy and task, as rows of a tidy table."""

import time
from collections.abc import Iterable
from typing import Any

import pandas as pd

from gradlab.checks import check_choice
from gradlab.comparison.measuring import measure
from gradlab.comparison.rows import AVERAGED, METHODS, OF_POLICIES, as_table
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.tuples import NotExactError
from gradlab.moments import Moments, check_averaged
from gradlab.reproducible import check_seed, single_thread
from gradlab.sequences.catalogue import parse
from gradlab.sequences.drawing import monte_carlo
from gradlab.sequences.finite_states import enumerated_policy
from gradlab.sequences.moments import all_moments, estimator_of
from gradlab.sequences.policy_contract import Policy, name_of_policy
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.targets import Target, target_of
from gradlab.sequences.task import Task, tasks_of
from gradlab.sequences.truth import exact_gradient
from gradlab.version import __version__

__all__ = ["compare"]

_DRAWS = 10_000


@single_thread()
def compare(
    estimators: Iterable[PolicyGradient | str],
    policy: Policy,
    task: Task | Iterable[Task],
    target: Target | str = "J",
    *,
    rollout: Policy | None = None,
    reference: Policy | None = None,
    group: int | None = None,
    method: str = "auto",
    draws: int = _DRAWS,
    seed: int = 0,
    averaged: float = AVERAGED,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure policy gradients against the exact gradient of one objective.

    Scores of sequences are computed once for all estimators.

    Args:
        estimators: `PolicyGradient` objects or their texts, such as "GRPO(g=8)".
        policy: From tokens [B, T] to logits [B, T, V]; logits[:, t] depend on tokens[:, :t] alone.
        task: The task, or the tasks of several prompts.
        target: The objective that biases are relative to: "J", "J-KL(beta=0.1)", "pass@4",
            "max@4" or "surrogate".
        rollout: The policy that samples; by default the policy itself.
        reference: The reference policy of KL terms and of the target "J-KL".
        group: G, if it is not the estimators' own.
        method: "exact", "monte-carlo", or "auto": exact where known, else draws.
        draws: Estimates that are drawn of each estimator.
        seed: Of the draws.
        averaged: Estimates whose mean the column `progress` is of.
        progress: Whether progress is printed on stderr.

    Returns:
        One row per estimator, with the columns of `gradlab.comparison.row_schema("policy")`. What
        cannot be measured is a row with its `reason`. `cost` counts sampled sequences.

    Raises:
        PolicyError: If a policy breaks its contract; the subclass says how.
        RewardError: If the reward does.
        TooLargeError: If the gradient of the target is not known exactly.
        ValueError: If an argument is not allowed.

    Example:
        >>> from gradlab.sequences import Tabular, tasks
        >>> rows = compare(["RLOO", "GRPO"], Tabular(3, 3), tasks.lengthy())
        >>> rows["cosine"].round(3).tolist()
        [1.0, 0.994]
    """
    check_choice("method", method, METHODS)
    check_averaged(averaged)
    check_seed(seed)
    if isinstance(estimators, str | PolicyGradient):
        raise TypeError(f"estimators must be a list, such as [{estimators}], not one alone")
    tasks, wanted = tasks_of(task), target_of(target)
    policies: dict[str, Any] = {"rollout": rollout, "reference": reference}
    asked = [(given, _estimator(given, group)) for given in estimators]
    usable = [found for _, found in asked if isinstance(found, PolicyGradient)]
    truth = exact_gradient(policy, tasks, wanted, **policies)
    exact: dict[str, Moments | ValueError] = {}
    started = time.perf_counter()
    if method != "monte-carlo":
        exact = _exact(usable, policy, tasks, policies)
    seconds = (time.perf_counter() - started) / max(1, len(usable))
    shared = {
        "problem": "+".join(one.name for one in tasks),
        "policy": name_of_policy(policy),
        "rollout": None if rollout is None else name_of_policy(rollout),
        "target": str(wanted),
        "seed": seed,
        "truth": "enumeration",
        "averaged": averaged,
        "version": __version__,
    }
    rows: list[dict[str, Any]] = []
    for given, found in asked:
        if isinstance(found, ValueError):
            rows.append(shared | {"estimator": str(given), "reason": str(found)})
            continue
        about = {"estimator": str(found), "series": str(found), "group": found.g}
        about["cost"] = float(found.g * len(tasks))
        row: dict[str, Any] = {"method": "exact", "seconds": seconds}
        moments = exact.get(str(found))
        can_draw = isinstance(moments, NotExactError | TooLargeError)
        if method == "monte-carlo" or (method == "auto" and can_draw):
            row = {"method": "monte carlo", "draws": draws}
            row["note"] = None if moments is None else f"by draws: {moments}"
            started = time.perf_counter()
            try:
                moments = monte_carlo(
                    found, policy, tasks, draws, seed, **policies, progress=progress
                )
            except ValueError as error:
                moments = error
            row["seconds"] = time.perf_counter() - started
        if isinstance(moments, Moments):
            row |= measure(moments, truth, averaged)
        else:
            row["reason"] = str(moments)
        rows.append(shared | about | row)
    return as_table(rows, OF_POLICIES)


def _exact(
    usable: list[PolicyGradient], policy: Policy, tasks: list[Task], policies: dict[str, Any]
) -> dict[str, Moments | ValueError]:
    """Return exact moments by the text of the estimator, or why there are none."""
    try:
        ons = [enumerated_policy(policy, one, **policies) for one in tasks]
    except (NotExactError, TooLargeError) as error:
        return {str(one): error for one in usable}
    found = all_moments(usable, ons)
    return {str(one): moments for one, moments in zip(usable, found, strict=True)}


def _estimator(given: PolicyGradient | str, group: int | None) -> PolicyGradient | ValueError:
    """Return the estimator, or why it cannot be used; an unknown name is raised."""
    one = parse(given) if isinstance(given, str) else given
    try:
        return estimator_of(one, group)
    except ValueError as error:
        return error
