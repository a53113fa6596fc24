"""Is an estimator unbiased? `verify` proves it by enumeration where it can, and draws where not.

It judges what is analysed, `draw`, and what trains, the backward of a surrogate; a proof holds only
for code whose mechanism was enumerated.
"""

import math
import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import draw_one_hot, probabilities
from gradlab.checks import check_choice, check_int
from gradlab.comparison.rows import METHODS
from gradlab.estimators import LeaveOneOut
from gradlab.exact.enumeration import TooLargeError, check_states
from gradlab.exact.mechanism import overrides
from gradlab.exact.moments import Enumerated, Enumeration, NotExactError, enumerated
from gradlab.exact.rarity import rarity
from gradlab.exact.sampled_structures import structured_or_sampled
from gradlab.exact.structures import DistributionOf, Structured
from gradlab.loss import Loss, NotDifferentiableError, evaluate
from gradlab.loss.gate import name_of
from gradlab.reproducible import check_seed, single_thread
from gradlab.user_code.under_test import DRAW, TRAINING, Code, Draws, batched, draws_of
from gradlab.verification.exact_bias import ExactBias
from gradlab.verification.nearest import nearest, unbiased_too
from gradlab.verification.of_structures import verify_on
from gradlab.verification.pairs import of_both, together
from gradlab.verification.parameters import with_parameters
from gradlab.verification.proofs import (
    NOT_KNOWN,
    by_enumeration,
    enumerated_bias,
    exact_against,
    not_applicable,
    other_target,
    target_rounding,
)
from gradlab.verification.resemblance import listed
from gradlab.verification.second_argument import note_of_share, of_estimated_part, training_only
from gradlab.verification.sequential_test import trial
from gradlab.verification.testable_coordinates import FEWEST, Question
from gradlab.verification.trained_mean import trained_mean
from gradlab.verification.verdict import BIASED, UNBIASED, Verdict
from gradlab.version import REMOVAL

__all__ = ["JUDGED", "check_options", "verify"]

JUDGED = ("both", DRAW, TRAINING)
# Draws by which code is compared with a mean that was enumerated.
_CHECKED, _CHECK_ALPHA = 4096, 1e-7
# States by which the size of f is known where it is not enumerated.
_SOME = 64


@single_thread()
def verify(
    code: Code,
    f: Loss | Enumerated | Structured,
    logits: Float[Tensor, "*shape"] | None = None,
    *,
    against: Code | Float[Tensor, "*shape"] | None = None,
    method: str = "auto",
    judge: str = "both",
    batch: int | None = None,
    draws: int | None = None,
    max_draws: int = 2**20,
    delta: float = 0.05,
    alpha: float = 1e-3,
    seed: int = 0,
    problem: str | None = None,
    enumeration: Enumerated | None = None,
    progress: bool = False,
    distribution: DistributionOf | None = None,
) -> Verdict:
    """Return the verdict on whether the mean of `code` is the gradient of E f at `logits`.

    Draws are added until the e-value exceeds 1/`alpha` (BIASED), the bias is below `delta` times
    the length of the gradient with confidence 1 - `alpha` (UNBIASED), or `max_draws` are made
    (INCONCLUSIVE). Two trials of one code share `alpha`. Sums are of float64.

    Args:
        code: an Estimator, its class or text, a function or an nn.Module: see
            `gradlab.user_code.draws_of`.
        f: the loss; for logits [B, N, C] it maps x [..., B, N, C] to [..., B]. Or an
            `Enumeration`, in place of f and logits, which serves several calls.
        logits: [N, C], or [B, N, C]: then what trains is judged for all elements together. f and
            the code are given this dtype.
        against: another target than the gradient: a tensor, or an estimator, whose exact mean, or
            else whose own draws, are compared. "ST" asks whether code is straight-through, not
            whether that is unbiased. Where f cannot be enumerated, the default is RF(m=4).
        method: "exact" by enumeration; "monte-carlo", by draws; "auto": exact where the code that
            runs is what can be enumerated. "draws", the old word, works until 2.0.
        judge: "draw", which is analysed; "training", the backward of the surrogate or sample, in
            batches; "both": the less favourable of the two verdicts, which says what it judges.
        batch: judge code that uses statistics of its batch as an estimator of so many samples.
        draws: make exactly so many draws; Hotelling's test decides.
        max_draws: stop without a decision after so many.
        delta: largest bias that counts as none, in lengths of the gradient.
        alpha: rate at which unbiased code may be called biased.
        seed: of all draws, an int in [0, 2^63).
        problem: the name of f in the verdict.
        enumeration: deprecated: an enumeration of f at these logits, beside them.
        progress: show a bar on stderr.
        distribution: what x is drawn from instead of independent rows, a function from parameters
            of any shape, given as `logits`. What code of yours gets then: see
            `gradlab.user_code.on_structures.draws_on`.

    Returns:
        A `Verdict`; print it for the outcome, or `explain()` it for the reasons.

    Raises:
        ValueError: for bad arguments.
        TypeError: if nothing can be drawn from `code`, or there are both logits and an enumeration.
        EstimatorError: if the code is faulty.
        LossError: if f breaks its contract.
        NotExactError, TooLargeError: if `method` is "exact" and that is not possible.

    Example:
        >>> import gradlab
        >>> from gradlab.problems import problem, regime
        >>> gradlab.verify("ST", problem("quadratic", 2, 3), regime("moderate", 2, 3)).outcome
        'BIASED'
    """
    if method == "draws":
        told = f'method="draws" is now method="monte-carlo"; {REMOVAL} does not read the old word'
        warnings.warn(told, DeprecationWarning, stacklevel=3)
        method = "monte-carlo"
    check_options(method, draws, max_draws, delta, alpha, seed)
    if distribution is not None or isinstance(f, Structured):
        given: dict[str, Any] = {"against": against, "method": method, "judge": judge}
        given |= {"batch": batch, "draws": draws, "max_draws": max_draws, "delta": delta}
        given |= {"alpha": alpha, "seed": seed, "problem": problem, "progress": progress}
        return verify_on(code, structured_or_sampled(f, logits, distribution)[0], **given)
    on = enumerated(f, logits, enumeration)
    drawn = _asked(draws_of(code), judge, batch, on)
    name = problem or name_of(on.objective)
    claimed = _claimed(drawn, on.objective) if against is None else True
    at = drawn.at(on.caller_logits)
    question = Question(drawn, on.objective, on.logits, at, name, claimed, delta, alpha, seed)
    one = on if isinstance(on, Enumeration) else on.elements[0]
    wanted: Draws | Tensor | None = None
    if against is not None:
        wanted = against if isinstance(against, Tensor) else draws_of(against)
    for asked in (drawn, wanted):
        estimator = asked.estimator if isinstance(asked, Draws) else None
        # A copy: what is asked may write into it.
        given_logits = one.logits.clone()
        reason = None if estimator is None else estimator.supports(one.objective, given_logits)
        if reason is not None:
            return replace(not_applicable(question, reason), against=_named(wanted))
    question = of_estimated_part(_with_sizes(question, on), on)
    target: Tensor | Draws
    notes: tuple[str, ...] = ()
    if against is None:
        try:
            target = on.gradient
        except TooLargeError:
            if method == "exact":
                raise
            wanted = draws_of(LeaveOneOut(4))
        else:
            exact, notes = _exact(question, on, method, judge)
            if exact is not None:
                return exact
    if wanted is not None:
        target, sentence = other_target(wanted, on, method)
        notes = (sentence,)
        exact = exact_against(question, target, on, method, judge, target_rounding(wanted, on))
        if exact is not None:
            return replace(exact, against=_named(wanted), notes=exact.notes + notes)
    given = {"draws": draws, "max_draws": max_draws, "progress": progress}
    try:
        verdict = _by_draws(question, target, judge, given)
    except NotDifferentiableError as error:
        return not_applicable(question, str(error))
    notes += note_of_share(delta, question.delta)
    if verdict.outcome == BIASED and drawn.order is None and wanted is None:
        resembles = nearest(question, verdict.target, on, max_draws, constant=verdict.constant)
        verdict = replace(verdict, resembles=resembles)
    if verdict.outcome == UNBIASED and drawn.order is None and wanted is None:
        same = unbiased_too(on, verdict.target)
        if same:
            notes += (
                f"So are, on this f and exactly, {listed(same)}: it does not tell the code from "
                "them; another f may.",
            )
    named = "" if against is None else _named(wanted)
    return replace(verdict, notes=verdict.notes + notes, against=named)


def _named(wanted: Draws | Tensor | None) -> str:
    if wanted is None:
        return ""
    return "the given tensor" if isinstance(wanted, Tensor) else wanted.name


def _asked(drawn: Draws, judge: str, batch: int | None, on: Enumerated) -> Draws:
    """Return the draws that are asked for, or raise ValueError if the code has none such."""
    check_choice("judge", judge, JUDGED)
    drawn, logits = training_only(drawn, judge, on.objective), on.logits
    if drawn.estimator is None and judge not in ("both", drawn.of):
        raise ValueError(
            f"judge must be 'both' or {drawn.of!r} for {drawn.name}: it has nothing else"
        )
    if drawn.estimator is not None and (judge == TRAINING or logits.ndim == 3):
        drawn = drawn.training
    if batch is None:
        return drawn
    if logits.ndim == 3:
        raise ValueError("batch is for logits [N, C]: logits [B, N, C] are a batch already")
    return batched(drawn, batch)


def _with_sizes(question: Question, on: Enumerated) -> Question:
    """Return the question with the size of f, and how rare its states are, where it is enumerated.

    Else the size is that of some values.
    """
    try:
        check_states(on.logits if on.logits.ndim == 2 else on.logits[0])
        elements = [on] if isinstance(on, Enumeration) else on.elements
        scale = math.hypot(*(element.values.sizes.f_score for element in elements))
        return replace(question, scale=scale, rarity=partial(rarity, on))
    except TooLargeError:
        source = torch.Generator().manual_seed(0)
        x = draw_one_hot(probabilities(on.logits), source, _SOME)
        with torch.no_grad():
            values = evaluate(question.f, x).to(torch.float64)
        return replace(question, scale=float(values.square().mean().sqrt()))


def _by_draws(
    question: Question, target: Tensor | Draws, judge: str, given: dict[str, Any]
) -> Verdict:
    """Return the verdict by draws of all that is judged."""
    drawn = question.drawn
    if not drawn.is_shipped:
        drawn.check_randomness(question.f, question.at, question.seed)
    both = drawn.of == DRAW and drawn.estimator is not None and judge == "both"
    if not both:
        return with_parameters(question, trial(question, target, **given))
    training = replace(question, drawn=drawn.training)
    if drawn.is_shipped:
        # One formula serves both, and tests of gradlab's own hold them together.
        verdict = trial(question, target, **given)
        sure = replace(training, alpha=_CHECK_ALPHA)
        apart = trial(sure, drawn, draws=_CHECKED).outcome == BIASED
        return together(verdict, trial(training, target, **given)) if apart else of_both(verdict)
    half = question.alpha / 2
    training = replace(training, alpha=half)
    training.drawn.check_randomness(question.f, question.at, question.seed)
    of_draw = trial(replace(question, alpha=half), target, **given)
    return together(of_draw, with_parameters(training, trial(training, target, **given)))


def check_options(
    method: str, draws: int | None, max_draws: int, delta: float, alpha: float, seed: int
) -> None:
    """Raise ValueError, naming the argument, unless these options of `verify` are allowed."""
    check_choice("method", method, METHODS)
    for name, count in (("draws", draws), ("max_draws", max_draws)):
        if count is not None:
            check_int(name, count, FEWEST)
    for name, share in (("delta", delta), ("alpha", alpha)):
        if not isinstance(share, float) or not 0 < share < 1:
            raise ValueError(f"{name} must be a number between 0 and 1, not {share!r}")
    check_seed(seed)


def _claimed(drawn: Draws, f: Loss) -> bool | None:
    """Return whether exactness is declared on f, None where that is not known."""
    if drawn.order is None:
        return None
    if drawn.order == math.inf:
        return True
    degree = getattr(f, "degree", None)
    return None if degree is None else degree <= drawn.order


def _exact(
    question: Question, on: Enumerated, method: str, judge: str
) -> tuple[Verdict | None, tuple[str, ...]]:
    """Return the verdict by enumeration if wanted and known, and notes if it is given up."""
    drawn = question.drawn
    if method == "monte-carlo":
        return None, ()
    try:
        if drawn.estimator is None:
            raise NotExactError(f"no exact mean is known for {drawn.name}: use draws")
        exact = enumerated_bias(drawn.estimator, on)
    except NOT_KNOWN as error:
        if method == "exact":
            raise
        replaced = drawn.estimator is not None and overrides(drawn.estimator)
        return None, (f"By draws: {error}.",) if replaced else ()
    verdict = by_enumeration(question, exact)
    if method == "auto" and not drawn.is_shipped:
        # The formula is proved; that the code draws by it is not, until it is tried.
        drawn.check_randomness(question.f, question.at, question.seed)
        sure = replace(question, alpha=_CHECK_ALPHA)
        if drawn.of == DRAW and trial(sure, exact.mean, draws=_CHECKED).outcome == BIASED:
            return None, ("Its draws contradict the mean of its own formula: judged by draws.",)
    if judge == DRAW:
        return verdict, ()
    of_training = _trained(question, exact, on)
    if drawn.of == TRAINING:
        return of_training, ()
    return together(verdict, of_training), ()


def _trained(question: Question, exact: ExactBias, on: Enumerated) -> Verdict:
    """Return the verdict on what trains, beside the exact mean of what is analysed."""
    drawn = question.drawn.training
    question = replace(question, drawn=drawn)
    proved = replace(by_enumeration(question, exact), judged=TRAINING)
    estimator = drawn.estimator
    assert estimator is not None
    try:
        if not isinstance(on, Enumeration):
            raise NotExactError("what trains a batch is tried by draws")
        trained = trained_mean(estimator, on, on.objective.dtype)
    except NotExactError:
        # The same mean, as far as some draws can tell.
        sure = replace(question, alpha=_CHECK_ALPHA)
        if trial(sure, exact.mean, draws=_CHECKED).outcome != BIASED:
            how = f"{proved.how}; {_CHECKED:,} draws of its surrogate agree"
            found = replace(proved, how=how)
        else:
            found = trial(question, exact.truth)
        return found if drawn.is_shipped else with_parameters(question, found)
    both = replace(exact, mean=trained.mean, bound=exact.bound + trained.bound)
    verdict = replace(by_enumeration(question, both), judged=TRAINING)
    if abs(trained.share - 1) > trained.share_bound:
        sentence = f"Parameters of f get {trained.share:.4g} of their gradient from the surrogate."
        return replace(verdict, outcome=BIASED, reason=sentence)
    if trained.share_bound > question.delta:
        sentence = (
            f"Whether parameters of f get their gradient is known to {trained.share_bound:.2g} "
            "only, by the dtype of the logits."
        )
        verdict = replace(verdict, notes=(*verdict.notes, sentence))
    apart = float(torch.linalg.vector_norm(trained.mean - exact.mean))
    if apart <= both.bound:
        return replace(verdict, how=f"{proved.how}; {trained.route}")
    return replace(verdict, how=f"{trained.route}; the mean of its draw is another")
