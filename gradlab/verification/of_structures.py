"""Is an estimator unbiased where x is drawn from a distribution with finitely many states?

As `verify` does it for independent rows: the code that runs is enumerated where states are few,
and draws decide where they are many, or where the code is your own.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradlab.estimators import LeaveOneOut
from gradlab.exact.sampled_structures import SampledStructure
from gradlab.exact.structure_rarity import rarity_on
from gradlab.exact.structures import Structured
from gradlab.exact.tuples import NotExactError
from gradlab.loss import NotDifferentiableError
from gradlab.loss.gate import name_of
from gradlab.user_code.on_structures import (
    DrawsOn,
    draws_on,
    has_own_rsample,
    place_of,
    trains,
    why_not_on,
)
from gradlab.user_code.under_test import DRAW, TRAINING, Code, Draws, batched
from gradlab.verification.law_of_samples import check_law
from gradlab.verification.nearest import nearest, unbiased_too
from gradlab.verification.pairs import of_both, together
from gradlab.verification.parameters import with_parameters
from gradlab.verification.proofs import by_enumeration, not_applicable
from gradlab.verification.resemblance import listed
from gradlab.verification.sequential_test import trial
from gradlab.verification.structure_bias import (
    StructureSizes,
    sizes_of,
    structure_bias,
    trained_bias,
)
from gradlab.verification.structure_questions import StructureQuestion
from gradlab.verification.verdict import BIASED, UNBIASED, Verdict

__all__ = ["verify_on"]

# Draws by which what trains is compared with a mean that was enumerated.
_CHECKED, _CHECK_ALPHA = 4096, 1e-7
# Samples by which the size of f is known where it is not enumerated.
_SOME = 64


def verify_on(
    code: Code,
    on: Structured,
    *,
    against: Code | Tensor | None = None,
    method: str = "auto",
    judge: str = "both",
    batch: int | None = None,
    problem: str | None = None,
    delta: float,
    alpha: float,
    seed: int,
    **given: Any,
) -> Verdict:
    """Return the verdict on code where x is drawn from a distribution; see `gradlab.verify`.

    Args:
        code: The estimator, or your own code as `draws_on` reads it.
        on: The loss, the parameters and the distribution.
        against: Another target than the gradient.
        method: "exact", "monte-carlo" or "auto".
        judge: "draw", "training" or "both".
        batch: Samples of the batch that one estimate uses.
        problem: The name of f in the verdict.
        delta: Largest bias that counts as none.
        alpha: Rate at which unbiased code may be called biased.
        seed: Of all draws.
        **given: How many draws are made, and whether progress is shown.

    Returns:
        A `Verdict` with tensors in the shape of the parameters.

    Raises:
        ValueError: For bad arguments, or where samples do not follow log_prob.
        TypeError: If nothing can be drawn from the code.
        EstimatorError: If the code is faulty.
        NotExactError: If `method` is "exact" and that is not possible.
    """
    if on.objective.second is not None:
        raise ValueError(
            "f(x, parameters) on a distribution is not verified yet: take the terms that see the "
            "parameters out of f; compare and recommend measure it as it is"
        )
    drawn = draws_on(code, on)
    question = _question(drawn, on, problem, delta, alpha, seed)
    if against is None:
        question = replace(question, claimed=_claimed(drawn, on))
    wanted = None if against is None or isinstance(against, Tensor) else draws_on(against, on)
    for asked in (drawn, wanted):
        estimator = None if asked is None else asked.estimator
        reason = None if estimator is None else why_not_on(estimator, on)
        if reason is not None:
            told = _named(against, wanted)
            return replace(not_applicable(question, reason), against=told)
    drawn = _asked(drawn, on, judge, batch)
    question = replace(question, drawn=drawn)
    enumerated = not isinstance(on, SampledStructure)
    check_law(on, seed)
    sizes = sizes_of(on) if enumerated else None
    target: Tensor | Draws
    notes: tuple[str, ...] = ()
    if against is not None:
        target, told, rounding = _other_target(against, wanted, on, sizes, method)
        notes = (told,)
    elif enumerated:
        target, rounding = on.gradient, None
    else:
        if method == "exact":
            raise NotExactError("the states are too many to be enumerated: use draws")
        wanted = draws_on(LeaveOneOut(4), on)
        target, rounding = wanted, None
        notes = (f"Target: the mean of {wanted.name}, by as many draws of it.",)
    verdict = _exactly(question, target, rounding, sizes, method, judge, given)
    if verdict is None:
        try:
            verdict = _by_draws(question, target, judge, given)
        except NotDifferentiableError as error:
            return not_applicable(question, str(error))
        if drawn.order is None and against is None and enumerated:
            verdict, more = _resembling(question, verdict, on, given["max_draws"])
            notes += more
    return replace(verdict, notes=verdict.notes + notes, against=_named(against, wanted))


def _question(
    drawn: DrawsOn, on: Structured, problem: str | None, delta: float, alpha: float, seed: int
) -> StructureQuestion:
    text = on.text
    enumerated = not isinstance(on, SampledStructure)
    values = on.values if enumerated else on.objective(on.sample(_SOME, _source()))
    return StructureQuestion(
        drawn,
        replace(on.objective, f=on.f),
        on.parameters,
        drawn.at(on.given_parameters),
        problem or f"{name_of(on.f)} of {text}",
        True,
        delta,
        alpha,
        seed,
        scale=float(values.detach().to(torch.float64).square().mean().sqrt()),
        rarity=partial(rarity_on, on) if enumerated else None,
        distribution=text,
        on=on,
    )


def _source() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _claimed(drawn: DrawsOn, on: Structured) -> bool | None:
    """Return whether exactness is declared on f, None where that is not known."""
    if drawn.order is None:
        return None
    if drawn.order == float("inf"):
        return True
    degree = getattr(on.f, "degree", None)
    return None if degree is None else degree <= drawn.order


def _named(against: Code | Tensor | None, wanted: DrawsOn | None) -> str:
    if against is None:
        return ""
    return "the given tensor" if isinstance(against, Tensor) else str(wanted and wanted.name)


def _asked(drawn: DrawsOn, on: Structured, judge: str, batch: int | None) -> DrawsOn:
    """Return the draws that are asked for, or raise ValueError if the code has none such."""
    if drawn.estimator is None and judge not in ("both", drawn.of):
        raise ValueError(
            f"judge must be 'both' or {drawn.of!r} for {drawn.name}: it has nothing else"
        )
    if drawn.estimator is not None and judge == TRAINING:
        if not trains(drawn.estimator, on):
            raise ValueError(
                f"judge must be 'both' or 'draw' for {drawn.name}: on this distribution nothing "
                "trains with it; ST, ZGR, DARN and ST-ZGR do, behind rsample of the distributions "
                "of gradlab"
            )
        drawn = drawn.training
    if batch is None:
        return drawn
    return batched(drawn, batch)  # type: ignore[return-value]


def _other_target(
    against: Code | Tensor,
    wanted: DrawsOn | None,
    on: Structured,
    sizes: StructureSizes | None,
    method: str,
) -> tuple[Tensor | Draws, str, float | None]:
    """Return the target that is not the gradient, what it is, and what rounding it has."""
    if isinstance(against, Tensor):
        if against.shape != on.parameters.shape:
            raise ValueError(
                f"against must have the shape of the parameters {list(on.parameters.shape)}, not "
                f"{list(against.shape)}"
            )
        given = against.detach().to("cpu", torch.float64)
        eps = torch.finfo(against.dtype).eps if against.is_floating_point() else 0.0
        return given, "Target: the given tensor.", eps * float(torch.linalg.vector_norm(given))
    assert wanted is not None
    if wanted.estimator is not None and sizes is not None:
        try:
            exact = structure_bias(wanted.estimator, on, sizes)
        except NotExactError:
            pass
        else:
            return exact.mean, f"Target: the exact mean of {wanted.name}.", exact.bound
    if method == "exact":
        raise NotExactError(f"no exact mean is known for {wanted.name}: use draws")
    if not wanted.is_shipped:
        wanted.check_randomness(on.f, on.given_parameters)
    return wanted, f"Target: the mean of {wanted.name}, by as many draws of it.", None


def _exactly(
    question: StructureQuestion,
    target: Tensor | Draws,
    rounding: float | None,
    sizes: StructureSizes | None,
    method: str,
    judge: str,
    given: dict[str, Any],
) -> Verdict | None:
    """Return the verdict by enumeration if wanted and known; draws for an `rsample` of your own."""
    on, estimator = question.where, question.drawn.estimator
    if method == "monte-carlo":
        return None
    try:
        if estimator is None or sizes is None or not isinstance(target, Tensor):
            raise NotExactError(f"no exact mean is known for {question.drawn.name}: use draws")
        exact = structure_bias(estimator, on, sizes)
    except NotExactError:
        if method == "exact":
            raise
        return None
    if rounding is not None:
        exact = replace(exact, truth=target, bound=exact.bound + rounding)
    verdict = by_enumeration(question, exact)
    if judge == DRAW or not trains(estimator, on):
        return verdict
    training = replace(question, drawn=question.drawn.training)
    if has_own_rsample(on):
        if method == "exact":
            raise NotExactError(
                f"what {training.drawn.name} trains with is an rsample of your own, judged "
                "by draws: leave method at 'auto', or judge='draw'"
            )
        trained = trial(training, target, **given)
    else:
        of_training = trained_bias(estimator, on, exact, on.given_parameters.dtype)
        trained = by_enumeration(training, of_training)
    trained = replace(trained, judged=TRAINING)
    if question.drawn.of == TRAINING:
        return trained
    both = together(verdict, trained)
    # A proof of the formula is none of an `rsample` that draws have judged.
    known = both.outcome == verdict.outcome and trained.method != verdict.method
    return replace(trained, judged=both.judged, notes=both.notes) if known else both


def _by_draws(
    question: StructureQuestion, target: Tensor | Draws, judge: str, given: dict[str, Any]
) -> Verdict:
    """Return the verdict by draws of all that is judged."""
    drawn = question.drawn
    if not drawn.is_shipped:
        drawn.check_randomness(question.f, question.at, question.seed)
    verdict = trial(question, target, **given)
    if drawn.surrogate is not None and place_of(question.where).batches:
        return with_parameters(question, verdict, _mean(question.where))
    if drawn.of == TRAINING or judge == DRAW or not trains(drawn.estimator, question.where):
        return replace(verdict, judged=drawn.of)
    training = replace(question, drawn=drawn.training)
    # One formula serves both: some draws show whether it does.
    sure = replace(training, alpha=_CHECK_ALPHA)
    if trial(sure, drawn, draws=_CHECKED).outcome == BIASED:
        return together(verdict, trial(training, target, **given))
    return of_both(verdict)


def _mean(on: Structured) -> Tensor:
    """Return the mean of x, enumerated or from samples."""
    if isinstance(on, SampledStructure):
        return on.sample(2**14, _source()).mean((0, 1)).reshape(on.shape)
    return (on.p @ on.states.flatten(1)).reshape(on.shape)


def _resembling(
    question: StructureQuestion, verdict: Verdict, on: Structured, last: int
) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict with what biased code resembles, or what else is unbiased on this f."""
    if verdict.outcome == BIASED:
        found = nearest(question, verdict.target, on, last, constant=verdict.constant)
        return replace(verdict, resembles=found), ()
    same = unbiased_too(on, verdict.target) if verdict.outcome == UNBIASED else []
    if not same:
        return verdict, ()
    told = f"So are, on this f and exactly, {listed(same)}: it does not tell the code from them"
    return verdict, (f"{told}; another f may.",)
