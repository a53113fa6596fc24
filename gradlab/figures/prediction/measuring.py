"""The criteria: what a ranking can know of an estimator at one moment of a reference run.

All are computed from mean and variance of one gradient of the latent logits of a batch together,
exact where cheap and from draws elsewhere.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gradlab.categorical import draw_one_hot, probabilities
from gradlab.estimators import Estimator, QuadratureError, parse
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.moments import EnumeratedBatch, NotExactError
from gradlab.figures.prediction.tasks import Snapshot
from gradlab.loss.gate import checked
from gradlab.moments import Moments
from gradlab.montecarlo import monte_carlo
from gradlab.reproducible import block_generator

__all__ = ["AVERAGED", "PARTS", "measured"]

AVERAGED = (1, 10, 100, 1000)
"""How many gradients are averaged."""

PARTS = ("estimated", "whole")
"""The gradient that the estimator gives, or with the part that is known added to it."""

# Seconds that exact moments of one estimator may take.
_PATIENCE = 1.0


def measured(
    snapshot: Snapshot, estimators: Iterable[str], draws: int, seed: int
) -> list[dict[str, Any]]:
    """Return one row per estimator and part of the gradient: errors, cosine and progress.

    Args:
        snapshot: the moment of a reference run, with f, logits and what is known of the gradient.
        estimators: their texts.
        draws: how many draws where exact moments are not known or take too long.
        seed: decides the draws.

    Returns:
        Rows with `error B` (mean squared error of the mean of B, over |truth|^2), `progress B`
        and `cosine`. A part "whole" stands only where something is known.
    """
    f = checked(snapshot.f, snapshot.logits)
    on = EnumeratedBatch(f, snapshot.logits) if snapshot.truth is None else None
    truth = snapshot.truth if on is None else on.gradient
    assert truth is not None
    rows = []
    for text in estimators:
        estimator = _settled(parse(text), snapshot, seed)
        exact = _exact(estimator, on)
        moments = exact or monte_carlo(
            estimator, snapshot.f, snapshot.logits, draws, seed, row=f"prediction {snapshot.step}"
        )
        row = {
            "estimator": text,
            "step": snapshot.step,
            "reference_loss": snapshot.loss,
            "method": "exact" if exact else "monte carlo",
        }
        rows.append(row | {"part": PARTS[0]} | _criteria(moments, truth))
        if snapshot.known is not None:
            known = snapshot.known.to(torch.float64)
            whole = _criteria(_shifted(moments, known), truth + known)
            rows.append(row | {"part": PARTS[1]} | whole)
    return rows


def _criteria(moments: Moments, truth: Tensor) -> dict[str, float]:
    truth2 = float(truth.square().sum())
    row = {"truth2": truth2, "cosine": float(moments.cosine(truth))}
    for averaged in AVERAGED:
        row[f"error {averaged}"] = float(moments.mse(truth, averaged)) / truth2
        progress = moments.progress(truth, averaged)
        row |= {f"progress {averaged}": progress.value, f"progress {averaged} se": progress.se}
    return row


def _shifted(moments: Moments, known: Tensor) -> Moments:
    """Return the moments of draws to which `known` is added."""
    if moments.groups is None:
        return replace(moments, mean=moments.mean + known)
    return Moments.from_groups(replace(moments.groups, mean=moments.groups.mean + known))


def _settled(estimator: Estimator, snapshot: Snapshot, seed: int) -> Estimator:
    """Return a moving average that has come to the loss of the snapshot; others as they are."""
    if estimator.running_field is None:
        return estimator
    source = block_generator(seed, f"prediction {snapshot.step} baseline")
    x = draw_one_hot(probabilities(snapshot.logits), source, 64).to(snapshot.logits.dtype)
    with torch.no_grad():
        return estimator.with_(**{estimator.running_field: float(snapshot.f(x).mean())})


def _exact(estimator: Estimator, on: EnumeratedBatch | None) -> Moments | None:
    if on is None or on.seconds(estimator) > _PATIENCE:
        return None
    try:
        return on.moments(estimator)
    except (NotExactError, QuadratureError, TooLargeError):
        return None
