"""What a configuration estimates: target, bias, its causes, and the nearest unbiased one."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor

from gradlab.comparison.measuring import measure
from gradlab.comparison.rows import AVERAGED, OF_POLICIES, as_table
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.tuples import NotExactError
from gradlab.moments import Moments, check_averaged
from gradlab.reproducible import check_seed, single_thread
from gradlab.sequences.claims import Claim
from gradlab.sequences.drawing import monte_carlo
from gradlab.sequences.finite_states import enumerated_policy
from gradlab.sequences.kl_terms import NoKL
from gradlab.sequences.known import Known
from gradlab.sequences.moments import all_moments, estimator_of
from gradlab.sequences.policy_contract import Policy, name_of_policy
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.repairs import changes_of, nearest_unbiased, replacements
from gradlab.sequences.spellings import nearest_name
from gradlab.sequences.targets import Penalized, Return, Target, target_of
from gradlab.sequences.task import Task
from gradlab.sequences.truth import exact_gradient
from gradlab.sequences.verifying import claimed_target
from gradlab.text import aligned, filled
from gradlab.version import __version__

__all__ = ["AS_IT_IS", "Case", "Explanation", "explain"]

AS_IT_IS, _REPAIRED = "as it is", "nearest unbiased"
_WHOLLY = (AS_IT_IS, _REPAIRED)
_MEANING = {
    "J": "the expected reward J",
    "h(p)": "an increasing function h(p) of the probability of success, where rewards are 0 and 1",
    "pass@k": "pass@k, the probability that one of k sequences is right",
    "max@G": "max@G, the expected best reward of a group",
    "sum of pass@k / k": "the sum of pass@k / k, the truncated likelihood of success",
}
# Groups above which whole sequences are not enumerated here: draws are faster.
_WHOLE = 4


@dataclass(frozen=True)
class Case:
    """Where an estimator is measured.

    Args:
        policy: The policy.
        tasks: The tasks, one for each prompt.
        rollout: Another policy that samples, for the numbers off policy.
        reference: The reference policy of KL terms.
        label: What rows call the task; by default the names of the tasks.

    Example:
        >>> from gradlab.sequences import Tabular, tasks
        >>> Case(Tabular(3, 3), [tasks.parity()]).name
        'parity'
    """

    policy: Policy
    tasks: Sequence[Task]
    rollout: Policy | None = None
    reference: Policy | None = None
    label: str = ""

    @property
    def name(self) -> str:
        """The name of the task."""
        return self.label or "+".join(task.name for task in self.tasks)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a configuration estimates; `str` shows it.

    Attributes:
        estimator: The configuration, under the nearest published name.
        claim: Whose gradient it estimates by its choices, and why not more.
        target: The objective that biases are relative to.
        rows: One row per task, sampling policy and replaced choice; the columns are those of
            `compare`, `replaced`, what was replaced, and `scale`, <mean, g> / |g|^2.
        on_policy: The nearest estimator that is unbiased on policy up to a factor, or None.
        off_policy: The same under any rollout policy.
        horizon: T of the first task, where factors depend on it.
    """

    estimator: PolicyGradient
    claim: Claim
    target: str
    rows: pd.DataFrame
    on_policy: PolicyGradient | None
    off_policy: PolicyGradient | None
    horizon: int

    def __str__(self) -> str:
        parts = ["\n".join(self._words())]
        for off in (False, True):
            rows = self.rows[self.rows["rollout"].notna() == off]
            if len(rows):
                parts += [_measured_text(rows, off), _causes_text(rows, off)]
        return "\n\n".join(part for part in [*parts, "\n".join(self._nearest())] if part)

    def _words(self) -> Iterator[str]:
        e = self.estimator
        yield filled(f"{e}" + (f"  [{e.source}]" if e.source else ""))
        shown = f"advantage {e.advantage}, aggregation {e.aggregation}, loss {e.loss}, KL {e.kl}"
        yield filled(f"Choices: {shown}, groups of {e.g}.")
        name = self.claim.target.removesuffix(" - beta KL")
        objective = _MEANING[name]
        if name != self.claim.target:
            objective += ", minus beta KL"
        yield filled(f"Aims at: the gradient of {objective}.")
        at = f" at horizon {self.horizon}" if e.aggregation.factor() is None else ""
        yield f"On policy: {_factor_said(self.claim.on_policy, at)}."
        yield f"Off policy: {_factor_said(self.claim.off_policy, at)}."
        for reason in self.claim.reasons:
            yield filled(f"Why: {reason}.")
        yield f"Measured against: the gradient of {self.target}."

    def _nearest(self) -> Iterator[str]:
        for where, found in (("on policy", self.on_policy), ("off policy", self.off_policy)):
            if found is None:
                yield f"Nearest unbiased configuration {where}: none is known."
            elif found == self.estimator:
                yield f"Nearest unbiased configuration {where}: this one."
            else:
                changes = ", ".join(
                    f"{part} {new}" for part, new in changes_of(self.estimator, found)
                )
                yield filled(f"Nearest unbiased configuration {where}: {found}. Change: {changes}.")


def _factor_said(factor: float | None, at: str) -> str:
    if factor is None:
        return "biased"
    return "unbiased" if factor == 1 else f"unbiased up to the factor {factor:.6g}{at}"


@single_thread()
def explain(
    estimator: PolicyGradient | str,
    cases: Sequence[Case],
    target: Target | str | None = None,
    *,
    draws: int = 10_000,
    seed: int = 0,
    averaged: float = AVERAGED,
) -> Explanation:
    """Say what a configuration estimates, and measure it, its causes of bias and its repair.

    Args:
        estimator: A `PolicyGradient` or its text.
        cases: Policies and tasks where it is measured.
        target: The objective that biases are relative to; by default what the estimator claims,
            and J, minus beta KL, where that has no exact form.
        draws: Estimates that are drawn where no exact moments are known, or take long.
        seed: Of the draws.
        averaged: Estimates whose mean the column `progress` is of.

    Returns:
        The explanation; print it, or read its `rows`.

    Raises:
        PolicyError: If a policy breaks its contract; the subclass says how.
        RewardError: If the reward does.
        ValueError: If an argument is not allowed.

    Example:
        >>> from gradlab.sequences import Tabular, tasks
        >>> found = explain("RLOO(aggregation=TOK)", [Case(Tabular(3, 3), [tasks.lengthy()])])
        >>> found.rows[["replaced", "scale", "cosine"]].round(3).values.tolist()
        [['as it is', 0.483, 0.999], ['aggregation SUM', 1.0, 1.0]]
    """
    check_seed(seed)
    check_averaged(averaged)
    if not cases:
        raise ValueError("give at least one case, where it is measured")
    found = nearest_name(estimator_of(estimator))
    wanted = _target(found) if target is None else target_of(target)
    rows: list[dict[str, Any]] = []
    for case in cases:
        for rollout in (None, case.rollout) if case.rollout is not None else (None,):
            variants = _variants(found, rollout is not None)
            rows += _measured(variants, case, rollout, wanted, draws, seed, averaged)
    faults = [row.get("fault") for row in rows]
    if faults[0] is not None and all(faults):  # nothing is measured anywhere
        raise faults[0]
    table = as_table(rows, OF_POLICIES)
    extra = pd.DataFrame(rows)
    table.insert(0, "replaced", extra["replaced"])
    table["scale"] = extra["scale"].astype("float64")
    horizon = cases[0].tasks[0].horizon
    claim = found.claim(horizon=horizon)
    on, off = (nearest_unbiased(found, where) for where in (False, True))
    return Explanation(found, claim, str(wanted), table, on, off, horizon)


def _target(estimator: PolicyGradient) -> Target:
    if not isinstance(estimator.kl, NoKL):
        return Penalized(getattr(estimator.kl, "beta", 0.0))
    return claimed_target(estimator) or Return()


def _variants(estimator: PolicyGradient, off_policy: bool) -> dict[str, PolicyGradient]:
    """Return the estimator, with each choice replaced alone, and with all of them, by labels."""
    found = {AS_IT_IS: estimator}
    changed = replacements(estimator, off_policy)
    for change in changed:
        one = estimator.with_(**change)
        ((part, value),) = changes_of(estimator, one)
        found[f"{part} {value}"] = nearest_name(one)
    repaired = nearest_unbiased(estimator, off_policy)
    if repaired is not None and repaired not in found.values():
        found[_REPAIRED] = repaired
    return found


def _measured(
    variants: Mapping[str, PolicyGradient],
    case: Case,
    rollout: Policy | None,
    target: Target,
    draws: int,
    seed: int,
    averaged: float,
) -> Iterator[dict[str, Any]]:
    """Yield one row per variant on one case."""
    tasks = list(case.tasks)
    policies: dict[str, Any] = {"rollout": rollout, "reference": case.reference}
    shared = {
        "problem": case.name,
        "policy": name_of_policy(case.policy),
        "rollout": None if rollout is None else name_of_policy(rollout),
        "target": str(target),
        "seed": seed,
        "truth": "enumeration",
        "averaged": averaged,
        "version": __version__,
    }
    try:
        truth = exact_gradient(case.policy, tasks, target, **policies)
    except ValueError as error:
        for label, one in variants.items():
            about = {"replaced": label, "scale": math.nan, "estimator": str(one)}
            yield shared | about | {"series": str(one), "reason": str(error), "fault": error}
        return
    exact = _exact(list(variants.values()), case, policies)
    for (label, one), moments in zip(variants.items(), exact, strict=True):
        row = shared | {"replaced": label, "estimator": str(one), "series": str(one)}
        row |= {"group": one.g, "cost": float(one.g * len(tasks)), "method": "exact"}
        if isinstance(moments, NotExactError | TooLargeError):
            row |= {"method": "monte carlo", "draws": draws, "note": f"by draws: {moments}"}
            try:
                moments = monte_carlo(one, case.policy, tasks, draws, seed, **policies)
            except ValueError as error:
                moments = error
        if isinstance(moments, Moments):
            row |= measure(moments, truth, averaged) | {"scale": _scale(moments.mean, truth)}
        else:
            row |= {"reason": str(moments), "scale": math.nan}
        yield row


def _scale(mean: Tensor, truth: Tensor) -> float:
    length2 = float(truth.square().sum())
    return float(mean @ truth) / length2 if length2 > 0 else math.nan


def _exact(
    estimators: list[PolicyGradient], case: Case, policies: dict[str, Any]
) -> list[Moments | ValueError]:
    """Return exact moments, or why there are none, or why draws are better."""
    ons = [enumerated_policy(case.policy, one, **policies) for one in case.tasks]
    dense = any(Known(on, next(iter(on.blocks()))).token_rewards is not None for on in ons)
    soon = [one.g <= _WHOLE or (one.factorizes and not dense) for one in estimators]
    quick = [one for one, is_soon in zip(estimators, soon, strict=True) if is_soon]
    found = iter(all_moments(quick, ons))
    late = NotExactError("groups of whole sequences take long; `exact_moments` sums them")
    return [next(found) if is_soon else late for is_soon in soon]


# ---- what is printed ---------------------------------------------------------------------------


def _where(rows: pd.DataFrame, off: bool) -> str:
    rollouts = rows["rollout"].dropna().unique()
    return f"Off policy, sampled by {', '.join(rollouts)}" if off else "On policy"


def _measured_text(rows: pd.DataFrame, off: bool) -> str:
    """Return the numbers of the configuration itself, one line per task."""
    own = rows[rows["replaced"] == AS_IT_IS]
    lines = [("task", "bias", "scale", "cosine", "sd", "progress", "method")]
    reasons = []
    for row in own.to_dict("records"):
        if isinstance(row["reason"], str):
            reasons.append(filled(f"{row['problem']}: {row['reason']}"))
            continue
        length2 = row["truth2"]
        numbers = [_root(row["bias2"] / length2), row["scale"], row["cosine"]]
        numbers += [_root(row["variance"] / length2), row["progress"]]
        method = "exact" if row["method"] == "exact" else f"{row['draws']:,.0f} draws"
        lines.append((row["problem"], *(f"{x:.3f}" for x in numbers), method))
    averaged = rows["averaged"].iloc[0]
    about = (
        f"{_where(own, off)}. bias, sd: in lengths of the gradient. scale: along the gradient the "
        f"mean is this times it. progress: of the mean of {averaged:g} estimates."
    )
    table = [aligned(lines)] if len(lines) > 1 else []
    return "\n".join([filled(about, indent=""), *table, *reasons])


def _causes_text(rows: pd.DataFrame, off: bool) -> str:
    """Return what is left of the bias with one choice replaced, one column per task."""
    labels = list(dict.fromkeys(rows["replaced"]))
    measured = rows[rows["reason"].isna()]
    if len(labels) == 1 or measured.empty:
        return ""
    lines = [
        (
            "task",
            *(
                label.partition(" ")[2] if " " in label and label not in _WHOLLY else label
                for label in labels
            ),
        )
    ]
    for problem, of_task in measured.groupby("problem", sort=False):
        cells = {row["replaced"]: _cell(row) for row in of_task.to_dict("records")}
        lines.append((str(problem), *(cells.get(label, "-") for label in labels)))
    about = (
        f"{'Off' if off else 'On'} policy, with one choice replaced by its unbiased form: the bias "
        "in lengths of the gradient, and the angle between mean and gradient, which no step size "
        "repairs. ~: by draws."
    )
    return f"{filled(about, indent='')}\n{aligned(lines)}"


def _cell(row: Mapping[str, Any]) -> str:
    angle = math.degrees(math.acos(min(1.0, max(-1.0, row["cosine"]))))
    mark = "" if row["method"] == "exact" else "~"
    return f"{mark}{_root(row['bias2'] / row['truth2']):.2f} {angle:.0f}°"


def _root(x: float) -> float:
    return math.sqrt(max(x, 0.0))
