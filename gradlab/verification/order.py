"""Up to which degree is an estimator exact? Its verdicts on a ladder of losses.

The rungs are polynomials of growing degree in each variable, then losses that are none; an
estimator without loss at hand is known by the highest rung below which it has no bias. Code that is
known by its draws alone is also tried at other sizes, logits and dtypes (see rungs.py).
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from gradlab.estimators import PathwiseEstimator, QuadratureError
from gradlab.exact.finite_states import DistributionOf
from gradlab.exact.moments import NotExactError
from gradlab.loss import LossError
from gradlab.progress import tracked
from gradlab.user_code.replicates import NO_REPLICATES
from gradlab.user_code.under_test import (
    Code,
    Draws,
    EstimatorDtypeError,
    EstimatorError,
    batched,
    draws_of,
)
from gradlab.verification.jacobian_conditions import StaticCheck, static_check
from gradlab.verification.ladder import Ladder
from gradlab.verification.rungs import DRAWN_SIZE, RUNGS, SITES, SIZES, Rung, Site, binary, rungs
from gradlab.verification.structure_rungs import ladder_on
from gradlab.verification.verdict import BIASED, Verdict
from gradlab.verification.verifying import verify

__all__ = ["RUNGS", "SIZES", "Ladder", "Rung", "rungs", "verify_order"]

BINARY_SIZE = (3, 2)
# Tried at a site, the losses of the highest degree that is left, in turn: their trials are short.
_STRONG: dict[float, tuple[str, ...]] = {
    math.inf: ("mlp", "table"),
    4: ("polynomial:4",),
    3: ("cubic",),
    2: ("quadratic", "multiquadratic"),
    1: ("linear", "multilinear"),
    0: ("constant",),
}
# At a site a bias below so many times delta counts as none.
_COARSER = 2


def verify_order(
    code: Code,
    *,
    on: Sequence[Rung] | None = None,
    sites: Sequence[Site] | None = None,
    against: Code | None = None,
    judge: str = "both",
    batch: int | None = None,
    delta: float = 0.05,
    alpha: float = 1e-3,
    max_draws: int = 2**20,
    seed: int = 0,
    progress: bool = False,
    distribution: DistributionOf | None = None,
    logits: Float[Tensor, "*parameters"] | None = None,
) -> Ladder:
    """Return up to which degree in each variable `code` is exact, from its verdict on each rung.

    With `distribution` it is the degree in all coordinates of x together: see
    `gradlab.verification.structure_rungs`.

    All trials by draws share `alpha`: each has an equal part of it, so that any right code is
    called biased anywhere at a rate of at most `alpha`, as far as each trial keeps its level.

    Args:
        code: as in `gradlab.verify`. It may refuse masked logits, by raising or by NaN, and one of
            the dtypes.
        on: the rungs; by default `rungs()`: nine losses, three sizes, three regimes of logits.
            Where no exact mean is known, draws are made at moderate logits of the size (2, 3), or
            (3, 2) for an estimator that refuses three classes.
        sites: other sizes, logits, dtypes and sizes of f where code is tried besides, unless it is
            an estimator of gradlab whose means are all known; by default `SITES`, and none if `on`
            is given. At each a loss of the highest degree that is left is tried, and where that is
            biased one of each lower degree, so that `degree` holds there too. A bias below twice
            `delta` counts as none there.
        against: an estimator whose mean is compared instead of the gradient.
        judge: as in `gradlab.verify`, and so are the following.
        batch: samples of the batch that one estimate uses.
        delta: largest bias that counts as none, in lengths of the gradient.
        alpha: rate at which right code may be called biased anywhere.
        max_draws: stop a trial without a decision after so many draws.
        seed: of the losses, logits and draws.
        progress: show a bar on stderr.
        distribution: what x is drawn from instead of independent rows, a function of parameters;
            its ladder has polynomials in x, at these and at other parameters of their shape.
        logits: the parameters of the distribution, any shape.

    Returns:
        A `Ladder` with the verdicts.

    Raises:
        EstimatorError: if the code is faulty; the message names the site.
        ValueError, TypeError: as in `gradlab.verify`.

    Example:
        >>> import gradlab
        >>> gradlab.verify_order("ZGR").outcome
        'EXACT TO DEGREE 2'
    """
    if distribution is not None or logits is not None:
        if on is not None or sites is not None:
            raise ValueError("a distribution has a ladder of its own: leave on and sites out")
        options: dict[str, Any] = {"against": against, "judge": judge, "batch": batch}
        options |= {"delta": delta, "alpha": alpha, "max_draws": max_draws, "seed": seed}
        return ladder_on(code, distribution, logits, progress=progress, **options)
    drawn = draws_of(code)
    named = drawn if batch is None else batched(drawn, batch)
    other = None if against is None else draws_of(against)
    chosen = list(rungs(seed=seed) if on is None else on)
    also = list((SITES if on is None else ()) if sites is None else sites)
    takes = all(_takes(one, chosen, DRAWN_SIZE) for one in (drawn, other) if one is not None)
    size = DRAWN_SIZE if takes else BINARY_SIZE
    if not takes:
        also = list(dict.fromkeys(map(binary, also)))
    # A site can end with a counterexample at most once for each degree: the rest of the trials are
    # one for each site.
    trials = sum(rung.is_moderate(size) for rung in chosen) + len(also)
    trials += len(_STRONG) if also else 0
    options = {"against": against, "judge": judge, "batch": batch, "delta": delta, "seed": seed}
    options |= {"alpha": alpha / max(trials, 1), "max_draws": max_draws}
    pairs: list[tuple[Rung, Verdict]] = []
    for rung in tracked(chosen, drawn.name, "rungs", shown=progress):
        method = "auto" if rung.is_moderate(size) else "exact"
        with suppress(NotExactError, QuadratureError):
            pairs.append((rung, _verdict(code, rung, method=method, **options)))
    static = _static(drawn, [rung for rung, _ in pairs], size)
    wanted = "" if other is None else other.name
    ladder = Ladder(named.name, drawn.order, *_columns(pairs), static, wanted)
    if drawn.is_shipped and not any(v.method == "monte carlo" for v in ladder.verdicts):
        return ladder
    options["delta"] = min(_COARSER * delta, 0.5)
    for number, site in enumerate(tracked(also, drawn.name, "sites", shown=progress)):
        ladder = _tried(ladder, code, site, number, options)
    return ladder


def _verdict(code: Code, rung: Rung, **options: Any) -> Verdict:
    return verify(code, rung.enumeration, problem=rung.name, **options)


def _columns(pairs: Sequence[tuple[Rung, Verdict]]) -> tuple[Any, Any]:
    return tuple(rung for rung, _ in pairs), tuple(verdict for _, verdict in pairs)


def _tried(ladder: Ladder, code: Code, site: Site, number: int, options: dict[str, Any]) -> Ladder:
    """Return the ladder with verdicts at one site: from the degree that is left downwards.

    Raises EstimatorError or LossError, with the site, if the code fails there.
    """
    for degree, strong in _STRONG.items():
        kinds = [k for k in strong if degree <= ladder.degree and ladder.decides(k)]
        if not kinds:
            continue
        rung = site.rung(kinds[number % len(kinds)], options["seed"])
        try:
            verdict = _verdict(code, rung, **options)
        except (EstimatorError, LossError) as error:
            refuses = site.masks and not isinstance(error, NO_REPLICATES)
            if refuses or isinstance(error, EstimatorDtypeError):
                return replace(ladder, refused=(*ladder.refused, f"at {site} ({error})"))
            told = "; give on=rungs(...) to try the code elsewhere"
            raise type(error)(f"{error}, at {site}{told}") from error
        pairs = (*ladder.pairs, (rung, verdict))
        ladder = replace(ladder, rungs=_columns(pairs)[0], verdicts=_columns(pairs)[1])
        if verdict.outcome != BIASED:
            return ladder
    return ladder


def _takes(drawn: Draws, on: Sequence[Rung], size: tuple[int, int]) -> bool:
    """Return whether the code takes a loss on logits of this size; true where there is none."""
    there = [rung.enumeration for rung in on if rung.is_moderate(size)]
    estimator = drawn.estimator
    refused = estimator and [estimator.supports(e.f, e.logits) is not None for e in there]
    return not refused or not all(refused)


def _static(drawn: Draws, on: Sequence[Rung], size: tuple[int, int]) -> StaticCheck | None:
    """Return the check of the Jacobians at the first logits on which draws are made."""
    for rung in on:
        if rung.is_moderate(size) and isinstance(drawn.estimator, PathwiseEstimator):
            try:
                return static_check(drawn.estimator, rung.enumeration.logits)
            except NotExactError:
                return None
    return None
