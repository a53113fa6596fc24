"""Does a policy gradient estimate what it claims? By enumeration where it can, else by draws."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from gradlab.checks import check_choice, check_int
from gradlab.comparison.rows import METHODS
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.tuples import NotExactError
from gradlab.moments import Measured, Moments
from gradlab.reproducible import block_generator, check_seed, single_thread
from gradlab.sequences.catalogue import parse
from gradlab.sequences.claims import Claim
from gradlab.sequences.drawing import Drawn
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.faults import RewardError
from gradlab.sequences.finite_states import FiniteStates, enumerated_policy
from gradlab.sequences.moments import all_moments, estimator_of
from gradlab.sequences.normalized_advantages import GroupStd
from gradlab.sequences.own_loss import OwnLoss
from gradlab.sequences.own_moments import LossEstimator, own_estimator
from gradlab.sequences.policy_contract import Policy, name_of_policy
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.success_targets import OfSuccess, PassSum, Transformed
from gradlab.sequences.targets import MaxAt, PassAt, Penalized, Return, Target, target_of
from gradlab.sequences.task import Task, tasks_of
from gradlab.sequences.truth import exact_gradient
from gradlab.sequences.verdict import PolicyVerdict, cosine_of
from gradlab.verification.deviation_sums import DeviationSums
from gradlab.verification.mean_test import MeanTest
from gradlab.verification.verdict import BIASED, INCONCLUSIVE, NOT_APPLICABLE, UNBIASED

__all__ = ["claimed_target", "transformed", "verify"]

# Units in the last place of what is summed that rounding may add up to.
_ULPS = 2**12
# The same for a loss in float32 or less, whose rounding dominates.
_FEW = 4
# Draws before the first look, and by how much looks grow.
_FIRST, _MORE = 256, 1.5


def claimed_target(estimator: PolicyGradient | LossEstimator) -> Target | None:
    """Return the objective that an estimator claims, None where it has no exact form here.

    Args:
        estimator: The estimator.

    Returns:
        The target. GRPO's "h(p)" has none: it is a gradient for binary rewards alone, see
        `transformed`.

    Example:
        >>> from gradlab.sequences import parse
        >>> [str(claimed_target(parse(text))) for text in ("PKPO(k=3)", "MaxRL(g=8)", "GRPO")]
        ['pass@3', 'sum-pass@8', 'None']
    """
    if isinstance(estimator, LossEstimator):
        return None if estimator.estimator is None else claimed_target(estimator.estimator)
    name = estimator.claim().target.removesuffix(" - beta KL")
    if estimator.kl.name != "none":
        beta = getattr(estimator.kl, "beta", 0.0)
        return Penalized(beta) if name == "J" else None
    if name == "J":
        return Return()
    if name == "pass@k":
        return PassAt(int(getattr(estimator.advantage, "k", 1)))
    if name == "sum of pass@k / k":
        return PassSum(estimator.g)
    return MaxAt(estimator.g) if name == "max@G" else None


def transformed(
    estimator: PolicyGradient | LossEstimator, horizon: int | None = None
) -> tuple[Transformed, float] | None:
    """Return GRPO's objective on binary rewards and the factor of its gradient, None without one.

    Args:
        estimator: The estimator.
        horizon: T, which gives the factor of CONST.

    Example:
        >>> from gradlab.sequences import parse
        >>> found = transformed(parse("GRPO(aggregation=SUM, g=8)"))
        >>> str(found[0]), found[1], transformed(parse("GRPO"))
        ('h(g=8)', 1.0, None)
    """
    if isinstance(estimator, LossEstimator):
        known = estimator.estimator
        inner = None if known is None else transformed(known, horizon)
        return None if inner is None else (inner[0], inner[1] * estimator.report.match.factor)
    advantage = estimator.advantage
    if not isinstance(advantage, GroupStd) or estimator.kl.name != "none" or estimator.g < 2:
        return None
    factor = estimator.with_(advantage="loo").claim(horizon).on_policy
    return None if factor is None else (Transformed(estimator.g, advantage.eps), factor)


@single_thread()
def verify(
    estimator: "PolicyGradient | str | OwnLoss | Callable[..., Any]",
    policy: Policy,
    task: Task | Iterable[Task],
    target: Target | str | None = None,
    *,
    factor: float | None = None,
    rollout: Policy | None = None,
    reference: Policy | None = None,
    group: int | None = None,
    method: str = "auto",
    max_draws: int = 2**17,
    delta: float = 0.05,
    alpha: float = 1e-3,
    seed: int = 0,
) -> PolicyVerdict:
    """Return the verdict on whether the mean of an estimator is the gradient of an objective.

    Args:
        estimator: A `PolicyGradient` or its text, such as "GRPO(g=8)"; or your own loss function,
            as trainers have it, or an `OwnLoss`. Its coefficients are d loss / d log_prob.
        policy: From tokens [B, T] to logits [B, T, V]; logits[:, t] depend on tokens[:, :t] alone.
        task: The task, or the tasks of several prompts.
        target: The objective: "J", "J-KL(beta=0.1)", "pass@4", "max@4", "sum-pass@4" (of MaxRL),
            "h(p)" or "h(g=8)" (of GRPO on rewards 0 and 1), or "surrogate"; by default what the
            estimator claims, and J where that has no exact form or needs other rewards.
        factor: What the mean is times the gradient; by default what the estimator claims, and 1
            where it claims no factor.
        rollout: The policy that samples; by default the policy itself.
        reference: The reference policy of KL terms and of the target "J-KL".
        group: G, if it is not the estimator's own.
        method: "exact", "monte-carlo", or "auto": exact where known, else draws.
        max_draws: Estimates after which draws stop without a decision.
        delta: The largest bias that counts as none by draws, in lengths of the gradient.
        alpha: The rate at which an unbiased estimator may be called biased.
        seed: Of all draws.

    Returns:
        A verdict; print it for the outcome, `explain()` it for target, scale and direction.

    Raises:
        PolicyError: If a policy breaks its contract; the subclass says how.
        RewardError: If the reward does.
        NotExactError, TooLargeError: If `method` is "exact" and that is not possible.
        ValueError: If an argument is not allowed.

    Example:
        >>> from gradlab.sequences import Tabular, tasks
        >>> policy, task = Tabular(3, 3), tasks.lengthy()
        >>> verify("centred(g=4)", policy, task).outcome
        'UNBIASED'
        >>> print(verify("RLOO(aggregation=SEQ)", policy, task))
        RLOO(aggregation=SEQ) on length-skewed, Tabular: BIASED: bias 0.2762 |g|, exact
    """
    check_choice("method", method, METHODS)
    check_int("max_draws", max_draws, _FIRST)
    check_seed(seed)
    for name, share in (("delta", delta), ("alpha", alpha)):
        if not isinstance(share, float) or not 0 < share < 1:
            raise ValueError(f"{name} must be a number between 0 and 1, not {share!r}")
    tasks = tasks_of(task)
    found: PolicyGradient | LossEstimator
    if isinstance(estimator, OwnLoss) or callable(estimator):
        found = own_estimator(estimator, group)
    else:
        found = estimator_of(estimator, group)
    claim = found.claim(horizon=tasks[0].horizon)
    claimed_factor = claim.on_policy if rollout is None else claim.off_policy
    of_claim = claimed_target(found)
    binary = None if rollout is not None else transformed(found, tasks[0].horizon)
    policies: dict[str, Any] = {"rollout": rollout, "reference": reference}
    if target == "h(p)":
        target = Transformed(found.g, getattr(_advantage(found), "eps", 0.0))
    objective = target_of(target) if target is not None else of_claim or Return()
    notes: list[str] = []
    try:
        gradient = exact_gradient(policy, tasks, objective, **policies)
    except RewardError as error:
        if target is not None or not isinstance(objective, OfSuccess):
            raise
        notes.append(f"Its own target has no meaning here: {error}.")
        objective = Return()
        gradient = exact_gradient(policy, tasks, objective, **policies)
    if binary is not None and objective == binary[0]:
        of_claim, claimed_factor = binary
    is_claimed = claimed_factor is not None and objective == of_claim and factor is None
    wanted = factor if factor is not None else (claimed_factor if is_claimed else 1.0)
    assert wanted is not None
    shared: dict[str, Any] = {
        "estimator": str(found),
        "problem": f"{'+'.join(one.name for one in tasks)}, {name_of_policy(policy)}",
        "claimed": is_claimed,
        "delta": delta,
        "alpha": alpha,
        "seed": seed,
        "objective": str(objective),
        "wanted": float(wanted),
        "off_policy": rollout is not None,
    }
    if not is_claimed:
        notes += _reasons(claim, objective, off_policy=rollout is not None)
    if binary is not None and isinstance(objective, Return):
        notes.append(
            f"With rewards 0 and 1 it is the gradient of {binary[0]}: that is a target too."
        )
    shared["target"] = wanted * gradient
    shared["notes"] = tuple(notes)
    try:
        ons = [enumerated_policy(policy, one, **policies) for one in tasks]
        if isinstance(found, LossEstimator):
            moments: Moments | ValueError = found.moments(ons)
        else:
            (moments,) = all_moments([found], ons)
    except (NotExactError, TooLargeError) as error:
        moments = error
    if isinstance(moments, Moments) and method != "monte-carlo":
        beside = _beside(found, moments, policy, tasks, objective, policies)
        shared["notes"] += () if beside is None else (beside,)
        return _exact(moments, ons, shared, _precision(found))
    if isinstance(moments, ValueError):
        if not isinstance(moments, NotExactError | TooLargeError):
            return _not_applicable(str(moments), shared)
        if method == "exact":
            raise moments
    drawn = Drawn(policy, tasks, rollout, reference)
    return _by_draws(found, drawn, max_draws, shared)


def _advantage(estimator: PolicyGradient | LossEstimator) -> Any:
    own = isinstance(estimator, LossEstimator)
    return (estimator.estimator or estimator.own).advantage if own else estimator.advantage  # type: ignore[union-attr]


def _precision(estimator: PolicyGradient | LossEstimator) -> float:
    """Return the relative error that sums may have, which is larger where a loss is in float32."""
    double = torch.finfo(torch.float64).eps
    own = estimator.own.rounding or double if isinstance(estimator, LossEstimator) else double
    return _ULPS * double if own <= double else _FEW * own


def _beside(
    estimator: PolicyGradient | LossEstimator,
    moments: Moments,
    policy: Policy,
    tasks: list[Task],
    objective: Target,
    policies: dict[str, Any],
) -> str | None:
    """Return what the mean is to the gradient of J - beta KL, where a KL term is judged for J."""
    found = estimator.estimator if isinstance(estimator, LossEstimator) else estimator
    if found is None or found.kl.name == "none" or isinstance(objective, Penalized):
        return None
    other = Penalized(getattr(found.kl, "beta", 0.0))
    gradient = exact_gradient(policy, tasks, other, **policies)
    length = float(gradient.norm())
    missed = float((moments.mean - gradient).norm())
    if missed <= _precision(estimator) * (length + math.sqrt(moments.variance.value)):
        return f"Beside it: the mean is the gradient of {other}."
    share = f"{missed / length:.4g} of its length" if length > 0 else f"{missed:.4g}"
    return (
        f"Beside it: the gradient of {other}, which the KL term is meant for, is missed by "
        f"{share}. It is the gradient of no objective that is known here."
    )


def _reasons(claim: Claim, objective: Target, *, off_policy: bool) -> tuple[str, ...]:
    """Return why the claim names no factor, as sentences."""
    known = GroupStd.says if isinstance(objective, Transformed) else ""  # h(p) has it in it
    kept = [one for one in claim.reasons if off_policy or not one.startswith("off policy")]
    kept = [one for one in kept if one != known]
    return tuple(f"Why: {one}." for one in kept)


def _exact(
    moments: Moments, ons: list[EnumeratedPolicy], shared: dict[str, Any], precision: float
) -> PolicyVerdict:
    """Return the verdict by enumeration: no bias beyond rounding, or a bias."""
    target = shared["target"]
    size = float(target.norm()) + float(moments.mean.norm()) + math.sqrt(moments.variance.value)
    size += _summed_size(ons)
    rounding = precision * size
    deviation = math.sqrt(moments.variance.value)
    if float(target.norm()) <= rounding:
        # Nothing but rounding, in whose lengths a bias would be no number to read.
        shared["target"] = target = torch.zeros_like(target)
        deviation = deviation if deviation > rounding else 0.0
    bias = moments.mean - target
    unbiased = float(bias.norm()) <= rounding
    how = f"all {sum(on.tree.size for on in ons):,} sequences and all groups of them are summed"
    if isinstance(ons[0], FiniteStates):
        how = "the states of policy and verifier, and all groups of classes, are summed"
    return _verdict(
        shared,
        moments.mean,
        outcome=UNBIASED if unbiased else BIASED,
        method="exact",
        bias2=Measured(float(bias.square().sum()), 0.0),
        limit=rounding,
        deviation=deviation,
        how=how,
    )


def _summed_size(ons: list[EnumeratedPolicy]) -> float:
    """Return the root of E |R s|^2, of what is summed: it may cancel to a gradient of 0."""
    (found,) = all_moments([parse("REINFORCE")], ons)
    if not isinstance(found, Moments):
        return 0.0
    return math.sqrt(float(found.mean.square().sum()) + found.variance.value)


def _verdict(shared: dict[str, Any], mean: Tensor, **found: Any) -> PolicyVerdict:
    target = shared["target"]
    bias, length2 = mean - target, float(target.square().sum())
    slope = float(mean @ target) / length2 if length2 > 0 else math.nan
    across = bias - (slope - 1) * target if length2 > 0 else bias
    return PolicyVerdict(
        **shared,
        **found,
        bias=bias,
        slope=Measured(slope, 0.0),
        residual2=Measured(float(across.square().sum()), 0.0),
        cosine=cosine_of(mean, target) * math.copysign(1, shared["wanted"]),
    )


def _not_applicable(reason: str, shared: dict[str, Any]) -> PolicyVerdict:
    nothing = torch.zeros_like(shared["target"])
    shared = shared | {"target": nothing, "claimed": False}
    nan = Measured(math.nan, 0.0)
    return PolicyVerdict(
        **shared,
        outcome=NOT_APPLICABLE,
        method="exact",
        bias=nothing,
        bias2=nan,
        limit=math.nan,
        slope=nan,
        residual2=nan,
        deviation=math.nan,
        reason=reason,
    )


def _by_draws(
    estimator: PolicyGradient | LossEstimator, drawn: Drawn, max_draws: int, shared: dict[str, Any]
) -> PolicyVerdict:
    """Return the verdict by draws, of which there are more at each look until it is decided."""
    target, alpha = shared["target"], shared["alpha"]
    row = f"{shared['problem']}|{estimator}|trial"
    sums: DeviationSums | None = None
    look, start, block = _FIRST, 0, 0
    while True:
        n = min(drawn.block_size(estimator.g), look - start)
        generator = block_generator(shared["seed"], row, block)
        g = drawn.draws(estimator, n, generator)
        longest = float(g.norm(dim=1).max())
        added = DeviationSums.from_draws(g - target, longest)
        sums = added if sums is None else sums.merge(added)
        start, block = start + n, block + 1
        if start < look:
            continue
        rounding = _ULPS * torch.finfo(torch.float64).eps * (longest + float(target.norm()))
        test = MeanTest(sums, alpha, rounding)
        margin = shared["delta"] * float(target.norm())
        outcome = INCONCLUSIVE
        if test.log_evidence >= -math.log(alpha):
            outcome = BIASED
        elif test.bound <= margin and sums.largest_share <= 0.02:
            outcome = UNBIASED
        if outcome != INCONCLUSIVE or start >= max_draws:
            break
        look = min(max_draws, math.ceil(look * _MORE))
    return _verdict(
        shared,
        sums.mean + target,
        outcome=outcome,
        method="monte carlo",
        bias2=sums.bias2,
        limit=test.bound,
        deviation=math.sqrt(float(sums.variances.sum())),
        draws=sums.n,
        log_e_value=test.log_evidence,
        kurtosis=test.kurtosis,
        degrees=test.degrees,
        how=f"{sums.n:,} groups were sampled",
    )
