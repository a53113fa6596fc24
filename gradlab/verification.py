"""Is an estimator unbiased? `verify` proves it by enumeration where it can, and draws where not.

Without a loss it climbs the ladder of polynomials and tells up to which degree it is exact.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_logits
from gradlab.draws import Code, Draws, draws_of
from gradlab.estimators import LeaveOneOut
from gradlab.exact.bias import ExactBias, exact_bias
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.moments import Enumeration, NotExactError
from gradlab.gumbel_jacobian import QuadratureError
from gradlab.loss import Loss, NotDifferentiableError
from gradlab.moments import Measured
from gradlab.question import FEWEST, Question
from gradlab.reproducible import check_seed, single_thread
from gradlab.trial import trial
from gradlab.verdict import BIASED, NOT_APPLICABLE, UNBIASED, Verdict

__all__ = ["METHODS", "check_options", "verify"]

METHODS = ("auto", "exact", "draws")
# Draws by which a mean proved from a formula is compared with what the code draws.
_CHECKED, _CHECK_ALPHA = 4096, 1e-7


@single_thread()
def verify(
    code: Code,
    f: Loss,
    logits: Float[Tensor, "N C"],
    *,
    against: Code | Float[Tensor, "N C"] | None = None,
    method: str = "auto",
    draws: int | None = None,
    max_draws: int = 2**20,
    delta: float = 0.05,
    alpha: float = 1e-3,
    seed: int = 0,
    problem: str | None = None,
    enumeration: Enumeration | None = None,
    progress: bool = False,
) -> Verdict:
    """Return the verdict on whether the mean of `code` is the gradient of E f at `logits`.

    `code`: an Estimator, its class or text, or a function (see `gradlab.draws.draws_of`). `method`:
    "exact" by enumeration, "draws", or "auto": exact where the mean is known. `against`: another
    target than the gradient: a tensor, or an estimator, whose exact mean, or else whose own draws,
    are compared; where f cannot be enumerated, RF(m=4) is.

    Draws are added until the e-value exceeds 1/`alpha` (BIASED), the bias is below `delta` times
    the length of the gradient with confidence 1 - `alpha` (UNBIASED), or `max_draws` are made
    (INCONCLUSIVE); an unbiased estimator is called biased with probability at most `alpha`. With
    `draws` all of them are made and Hotelling's test at level `alpha` decides. float64.

    Raises ValueError for bad arguments, TypeError if `code` is nothing to draw from, EstimatorError
    if it is faulty, LossError for a bad f, NotExactError or TooLargeError if method is "exact" and
    that is not possible.
    """
    check_options(method, draws, max_draws, delta, alpha, seed)
    logits = check_logits(logits, ndim=2).detach().to("cpu", torch.float64)
    drawn = draws_of(code)
    name = problem or str(getattr(f, "name", None) or getattr(f, "__name__", type(f).__name__))
    claimed = _claimed(drawn, f) if against is None else True
    question = Question(drawn, f, logits, name, claimed, delta, alpha, seed)
    reason = None if drawn.estimator is None else drawn.estimator.supports(f, logits)
    if reason is not None:
        return _not_applicable(question, reason)
    enumeration = enumeration or Enumeration(f, logits)
    target: Tensor | Draws
    notes: tuple[str, ...] = ()
    if against is None:
        try:
            values = enumeration.values
        except TooLargeError:
            if method == "exact":
                raise
            against = LeaveOneOut(4)
        else:
            rms = values.mean.square() + (values.p * values.conditional_square).sum(-1).max()
            question = replace(question, scale=float(rms.sqrt()))
            exact, notes = _exact(question, enumeration, method)
            if exact is not None:
                return exact
            target = values.gradient
    if against is not None:
        target, told = _other_target(against, f, logits, enumeration)
        notes = (told,)
    try:
        drawn.check_randomness(f, logits, seed)
    except NotDifferentiableError as error:
        return _not_applicable(question, str(error))
    verdict = trial(question, target, draws=draws, max_draws=max_draws, progress=progress)
    return replace(verdict, notes=verdict.notes + notes)


def check_options(
    method: str, draws: int | None, max_draws: int, delta: float, alpha: float, seed: int
) -> None:
    """Raise ValueError, naming the argument, unless these options of `verify` are allowed."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    for name, count in (("draws", draws), ("max_draws", max_draws)):
        if count is not None and (not isinstance(count, int) or count < FEWEST):
            raise ValueError(f"{name} must be an int of at least {FEWEST}, not {count!r}")
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


def _not_applicable(question: Question, reason: str) -> Verdict:
    nothing = torch.zeros_like(question.logits)
    return Verdict(
        estimator=question.drawn.name,
        problem=question.problem,
        outcome=NOT_APPLICABLE,
        method="exact",
        claimed=False,
        target=nothing,
        bias=nothing,
        bias2=Measured(math.nan, 0.0),
        limit=math.nan,
        slope=Measured(math.nan, 0.0),
        residual2=Measured(math.nan, 0.0),
        deviation=math.nan,
        delta=question.delta,
        alpha=question.alpha,
        seed=question.seed,
        reason=reason,
    )


def _exact(
    question: Question, enumeration: Enumeration, method: str
) -> tuple[Verdict | None, tuple[str, ...]]:
    """Return the verdict by enumeration if wanted and known, and notes if it is given up."""
    estimator = question.drawn.estimator
    if method == "draws":
        return None, ()
    try:
        if estimator is None:
            raise NotExactError(f"no exact mean is known for {question.drawn.name}: use draws")
        exact = exact_bias(estimator, question.f, question.logits, enumeration)
    except (NotExactError, QuadratureError, TooLargeError):
        if method == "exact":
            raise
        return None, ()
    if method == "auto":
        # The formula is proved; that the code draws by it is not, until it is tried.
        sure = replace(question, alpha=_CHECK_ALPHA)
        if trial(sure, exact.mean, draws=_CHECKED).outcome == BIASED:
            return None, ("Its draws contradict the mean of its own formula: judged by draws.",)
    return _proved(question, exact), ()


def _proved(question: Question, exact: ExactBias) -> Verdict:
    g, length2 = exact.truth, float(exact.truth.square().sum())
    ratio = float((exact.mean * g).sum()) / length2 if length2 > 0 else math.nan
    across = exact.bias - (ratio - 1) * g if length2 > 0 else exact.bias
    return Verdict(
        estimator=question.drawn.name,
        problem=question.problem,
        outcome=UNBIASED if exact.is_zero else BIASED,
        method="exact",
        claimed=question.claimed,
        target=g,
        bias=exact.bias,
        bias2=Measured(exact.size**2, 0.0),
        limit=exact.bound,
        slope=Measured(ratio, 0.0),
        residual2=Measured(float(across.square().sum()), 0.0),
        deviation=exact.deviation,
        delta=question.delta,
        alpha=question.alpha,
        seed=question.seed,
        how=f"{exact.route}; the gradient by two routes that agree",
    )


def _other_target(
    against: Code | Tensor, f: Loss, logits: Tensor, enumeration: Enumeration
) -> tuple[Tensor | Draws, str]:
    """Return the target that is not the exact gradient, and what it is."""
    if isinstance(against, Tensor):
        if against.shape != logits.shape:
            raise ValueError(
                f"against must have the shape of logits {list(logits.shape)}, "
                f"not {list(against.shape)}"
            )
        return against.detach().to("cpu", torch.float64), "Target: the given tensor."
    other = draws_of(against)
    if other.estimator is not None:
        try:
            mean = exact_bias(other.estimator, f, logits, enumeration).mean
        except (NotExactError, QuadratureError, TooLargeError):
            pass
        else:
            return mean, f"Target: the exact mean of {other.name}."
    other.check_randomness(f, logits)
    return other, f"Target: the mean of {other.name}, by as many draws of it."
