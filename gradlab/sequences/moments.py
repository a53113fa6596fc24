"""Exact moments of policy gradients.

Sums are over classes of sequences where the coefficients factorize, else over groups of whole
sequences.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.tuples import NotExactError
from gradlab.moments import Moments
from gradlab.reproducible import single_thread
from gradlab.sequences.catalogue import parse
from gradlab.sequences.class_sums import (
    Classes,
    couples_prompts,
    group_moments,
    is_independent,
)
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.finite_moments import finite_moments
from gradlab.sequences.finite_states import FiniteStates, enumerated_policy
from gradlab.sequences.known import Known, known_of
from gradlab.sequences.policy_contract import Policy
from gradlab.sequences.policy_gradient import PolicyGradient
from gradlab.sequences.ratios import Score
from gradlab.sequences.tables import Asked, Tables, Weighting, tables
from gradlab.sequences.task import Task, tasks_of
from gradlab.sequences.whole_groups import whole_group_moments

__all__ = ["all_moments", "estimator_of", "exact_moments"]

Sums = tuple[float, float]

# The sums of weights that are all 0.
_NOTHING: Sums = (0.0, 0.0)


def estimator_of(estimator: PolicyGradient | str, group: int | None = None) -> PolicyGradient:
    """Return an estimator, at another group size if one is given, or say why it cannot be used.

    Args:
        estimator: A PolicyGradient or its text.
        group: G, the sequences of a group; by default the estimator's own.

    Returns:
        The estimator.

    Raises:
        TypeError: If it is neither.
        ValueError: If the text names none, or the group is too small for it.

    Example:
        >>> estimator_of("RLOO", 1)
        Traceback (most recent call last):
        ValueError: loo needs groups of at least 2 sequences, not 1
    """
    found = parse(estimator) if isinstance(estimator, str) else estimator
    if not isinstance(found, PolicyGradient):
        raise TypeError(
            f"estimator must be a PolicyGradient or its text, not {type(found).__name__}"
        )
    if group is not None:
        found = found.with_(g=group)
    reason = found.refusal()
    if reason is not None:
        raise ValueError(reason)
    return found


@single_thread()
def exact_moments(
    estimator: PolicyGradient | str,
    policy: Policy,
    task: Task | Iterable[Task],
    *,
    rollout: Policy | None = None,
    reference: Policy | None = None,
    group: int | None = None,
) -> Moments:
    """Return mean and variance of one estimate, exactly, by enumeration.

    One estimate is made from one group of G sequences, or from one group for each prompt. Groups
    are summed as multisets of classes of sequences, so that G may be 16 to 64. Estimators whose
    coefficients do not factorize over classes are put to every group of sequences.

    Args:
        estimator: A `PolicyGradient` or its text, such as "GRPO(g=8)".
        policy: From tokens [B, T] to logits [B, T, V]; logits[:, t] depend on tokens[:, :t] alone.
        task: The task, or the tasks of several prompts: one estimate is then the mean of theirs.
        rollout: The policy that samples; by default the policy itself.
        reference: The reference policy of a KL term.
        group: G, if it is not the estimator's own.

    Returns:
        The moments: `mean` [P] in the order of `policy.parameters()`, an ascent direction;
        `variance`, the trace of the covariance of one estimate.

    Raises:
        PolicyError: If a policy breaks its contract; the subclass says how.
        RewardError: If the reward does.
        SupportError: If the rollout policy never samples what the policy does, and the estimator
            weighs by the ratio of both.
        TooLargeError: If there are more than 2^20 sequences, or too many groups.
        NotExactError: If the estimator does not factorize and there are too many groups.
        ValueError: If the estimator cannot be used with this group or without a reference.

    Example:
        >>> from gradlab.sequences import Tabular, exact_gradient, tasks
        >>> policy, task = Tabular(3, 3), tasks.parity()
        >>> moments = exact_moments("RLOO(g=16)", policy, task)
        >>> bool((moments.mean - exact_gradient(policy, task)).abs().max() < 1e-12)
        True
    """
    found = estimator_of(estimator, group)
    ons = [enumerated_policy(policy, one, rollout, reference) for one in tasks_of(task)]
    (moments,) = all_moments([found], ons)
    if isinstance(moments, Exception):
        raise moments
    return moments


def all_moments(
    estimators: Sequence[PolicyGradient], ons: Sequence[EnumeratedPolicy]
) -> list[Moments | ValueError]:
    """Return the exact moments of several estimators, for which scores are computed once.

    Args:
        estimators: The estimators.
        ons: The policy on the task of each prompt.

    Returns:
        For each estimator its moments, or the error that says why there are none.

    Example:
        >>> from gradlab.sequences import Tabular, tasks
        >>> on = EnumeratedPolicy(Tabular(3, 3), tasks.parity())
        >>> rloo, centred = all_moments([parse("RLOO(g=2)"), parse("centred(g=2)")], [on])
        >>> bool((rloo.mean - 2 * centred.mean).abs().max() < 1e-12)
        True
    """
    found: dict[int, Moments | ValueError] = {}
    by_class = []
    for number, estimator in enumerate(estimators):
        try:
            _check(estimator, ons)
            states = [on for on in ons if isinstance(on, FiniteStates)]
            if states:
                found[number] = _of_states(estimator, ons, states)
            elif _is_alone(estimator) or _factorizes(estimator, ons):
                by_class.append(number)
            elif couples_prompts(estimator):
                found[number] = whole_group_moments(estimator, ons)
            else:
                parts = [whole_group_moments(estimator, [on]) for on in ons]
                found[number] = _of_prompts(parts)
        except (NotExactError, TooLargeError, ValueError) as error:
            found[number] = error
    asked = [_Question(estimators[number], ons) for number in by_class]
    known = [_answers([question.asked[q] for question in asked], on) for q, on in enumerate(ons)]
    for place, (number, question) in enumerate(zip(by_class, asked, strict=True)):
        try:
            found[number] = question.moments([answers[place] for answers in known])
        except (NotExactError, TooLargeError) as error:
            found[number] = error
    return [found[number] for number in range(len(estimators))]


def _of_states(
    estimator: PolicyGradient, ons: Sequence[EnumeratedPolicy], states: Sequence[FiniteStates]
) -> Moments:
    """Return the moments on long sequences."""
    if len(states) < len(ons):
        raise NotExactError(
            "all prompts must have an Automaton as the reward, or none; draw instead"
        )
    if couples_prompts(estimator):
        return finite_moments(estimator, states)
    return _of_prompts([finite_moments(estimator, [on]) for on in states])


def _check(estimator: PolicyGradient, ons: Sequence[EnumeratedPolicy]) -> None:
    """Raise ValueError where the estimator cannot be used on this policy."""
    for on in ons:
        if estimator.kl.name != "none" and on.reference is None:
            raise ValueError(f"{estimator.kl} needs a reference policy: give reference=")
        # What weighs by no ratio has a mean whatever is never sampled.
        plain = isinstance(estimator.loss, Score) and estimator.loss.ratio == "none"
        if on.rollout is not None and not plain:
            on.check_support()


def _factorizes(estimator: PolicyGradient, ons: Sequence[EnumeratedPolicy]) -> bool:
    dense = any(Known(on, next(iter(on.blocks()))).token_rewards is not None for on in ons)
    return estimator.factorizes and not dense and not estimator.kl.needs_logits


def _of_prompts(parts: Sequence[Moments]) -> Moments:
    """Return the moments of the mean of independent estimates."""
    mean = torch.stack([part.mean for part in parts]).mean(0)
    variance = torch.stack([part.variance_per_variable for part in parts]).sum()
    return Moments(mean, variance / len(parts) ** 2)


def _is_alone(estimator: PolicyGradient) -> bool:
    return is_independent(estimator) and not estimator.kl.needs_logits


class _Question:
    """What one estimator asks of all sequences, and how its moments follow from the answer."""

    def __init__(self, estimator: PolicyGradient, ons: Sequence[EnumeratedPolicy]) -> None:
        self.estimator, self.ons = estimator, ons
        self.alone = _is_alone(estimator)
        if self.alone:
            one = replace(estimator, g=1)
            weigh: Weighting = lambda known: one.coefficients(known.group()).squeeze(1)  # noqa: E731
            self.asked = [
                Asked([weigh], [(0, 0)], torch.zeros(on.tree.size, dtype=torch.int64), 1)
                for on in ons
            ]
        else:
            self.classes = [Classes(on, estimator) for on in ons]
            self.asked = [one.asked() for one in self.classes]

    def moments(self, answers: list[Tables | ValueError]) -> Moments:
        """Return the moments from the sums for each prompt."""
        found: list[Tables] = []
        for answer in answers:
            if isinstance(answer, ValueError):
                raise answer
            found.append(answer)
        if self.alone:
            return _of_prompts([self._mean_of_independent(table) for table in found])
        if couples_prompts(self.estimator):
            return group_moments(self.estimator, self.ons, self.classes, found)
        each = zip(self.ons, self.classes, found, strict=True)
        return _of_prompts([group_moments(self.estimator, [o], [c], [t]) for o, c, t in each])

    def _mean_of_independent(self, table: Tables) -> Moments:
        mean = table.means[0, 0]
        square = table.products[0, 0]
        variance = (square - mean.square().sum()).clamp_min(0.0)
        return Moments(mean, variance / self.estimator.g)


@dataclass
class _Shared:
    """What several estimators ask about the same classes: different weightings, each once."""

    place: Tensor
    classes: int
    weightings: dict[Sums, Weighting] = field(default_factory=dict)
    pairs: dict[tuple[int, int], None] = field(default_factory=dict)

    def row(self, sums: Sums) -> int:
        """Return the number of a weighting."""
        return list(self.weightings).index(sums)

    def asked(self) -> Asked:
        """Return the question of all together."""
        return Asked(list(self.weightings.values()), list(self.pairs), self.place, self.classes)


def _answers(asked: list[Asked], on: EnumeratedPolicy) -> list[Tables | ValueError]:
    """Return the sums for each question; equal weights are summed once, weights of 0 never."""
    shared: dict[tuple[int, int], _Shared] = {}
    first: dict[Sums, Weighting] = {}
    known: dict[Weighting, Sums] = {}
    for weigh in (weigh for one in asked for weigh in one.weightings):
        if weigh not in known:
            known[weigh] = _sums(weigh, on)
    every = [[known[weigh] for weigh in one.weightings] for one in asked]
    keys = []
    for one, sums in zip(asked, every, strict=True):
        number = torch.arange(1, len(one.place) + 1)
        key = (one.classes, int((one.place * number).sum()))
        keys.append(key)
        of_key = shared.setdefault(key, _Shared(one.place, one.classes))
        for weigh, total in zip(one.weightings, sums, strict=True):
            if total != _NOTHING:
                # One function for equal weights, so that they are computed once.
                of_key.weightings.setdefault(total, first.setdefault(total, weigh))
        for i, j in one.pairs:
            if _NOTHING not in (sums[i], sums[j]):
                of_key.pairs[of_key.row(sums[i]), of_key.row(sums[j])] = None
    found: dict[tuple[int, int], Tables | ValueError] = {}
    questions = {key: one.asked() for key, one in shared.items()}
    for key, question in questions.items():
        try:
            question.check(on)
        except TooLargeError as error:
            found[key] = error
    fits = [key for key in questions if key not in found]
    found |= dict(zip(fits, tables(on, [questions[key] for key in fits]), strict=True))
    return [
        _part(one, sums, shared[key], found[key])
        for one, sums, key in zip(asked, every, keys, strict=True)
    ]


def _part(
    asked: Asked, sums: list[Sums], shared: _Shared, found: Tables | ValueError
) -> Tables | ValueError:
    """Return what one question has of the sums of all, 0 where its weights are 0."""
    if isinstance(found, ValueError):
        return found
    nothing = torch.zeros(asked.classes, found.means.shape[-1], dtype=torch.float64)
    means = [nothing if total == _NOTHING else found.means[shared.row(total)] for total in sums]
    products, pairs = [], list(shared.pairs)
    for i, j in asked.pairs:
        if _NOTHING in (sums[i], sums[j]):
            products.append(torch.zeros_like(found.mass))
        else:
            products.append(found.products[pairs.index((shared.row(sums[i]), shared.row(sums[j])))])
    return Tables(found.mass, torch.stack(means), torch.stack(products))


def _sums(weigh: Weighting, on: EnumeratedPolicy) -> Sums:
    """Return what tells different weights apart: two random sums over all sequences."""
    source = torch.Generator().manual_seed(0)
    sums = torch.zeros(2, dtype=torch.float64)
    for leaves in on.blocks():
        noise = torch.rand(leaves.count, on.task.horizon, 2, generator=source, dtype=torch.float64)
        keep = on.sampled[leaves.part, None] > 0
        weights = torch.where(keep, weigh(known_of(on, leaves)), 0.0)
        if not weights.isfinite().all():
            raise ArithmeticError("a coefficient is not finite")
        sums += torch.einsum("nt,ntk->k", weights.to(torch.float64), noise)
    return (float(sums[0]), float(sums[1]))
