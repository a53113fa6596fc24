"""What does code estimate that is not unbiased? The known estimator whose mean is nearest."""

import math

import torch

from gradlab.estimators import DARN, ZGR, Estimator, GumbelSoftmaxST, StraightThrough
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.moments import EnumeratedBatch, Enumeration, NotExactError
from gradlab.gumbel_jacobian import QuadratureError
from gradlab.loss import LossError
from gradlab.verdict import Verdict

__all__ = ["nearest"]

_TEMPERATURES = (0.1, 0.25, 0.5, 1.0, 2.0)
# A mean that may be so far off, relative to its length, is not called the same.
_SAME = 0.1
# Numbers of the tables of one temperature that are worth making for a sentence.
_LARGEST = 2**15


def nearest(verdict: Verdict, on: Enumeration | EnumeratedBatch) -> tuple[str, ...]:
    """Return a sentence on the known estimators with whose exact means a verdict's draws agree.

    Straight-through rules and straight-through Gumbel-softmax at some temperatures; empty where f
    allows none of them.
    """
    assert verdict.draws is not None
    mean = verdict.target + verdict.bias
    noise2 = verdict.deviation**2 / verdict.draws
    agreeing, tried = [], 0
    for estimator in _candidates(on):
        try:
            known = on.moments(estimator).mean
        except (NotExactError, QuadratureError, TooLargeError, LossError):
            continue
        tried += 1
        length = float(torch.linalg.vector_norm(known))
        apart2 = float((mean - known).square().sum()) - noise2
        limit = math.sqrt(max(apart2, 0.0) + 2 * noise2)
        if length > 0 and limit <= _SAME * length:
            agreeing.append((limit / length, str(estimator)))
    if not tried:
        return ()
    if not agreeing:
        return (
            "Its mean is none of ST, DARN, ZGR and GS-ST at temperatures from 0.1 to 2: it is not "
            "shown to be any of the known straight-through rules.",
        )
    agreeing.sort()
    least = agreeing[0][0]
    names = " or ".join(name for limit, name in agreeing if limit <= 2 * least)
    return (
        f"Its mean agrees with that of {names}, within {least:.1%} of its length: whether it is "
        f'coded right as such is asked by against="{agreeing[0][1]}" (--against).',
    )


def _candidates(on: Enumeration | EnumeratedBatch) -> list[Estimator]:
    found: list[Estimator] = [StraightThrough(), DARN(), ZGR()]
    if on.logits.numel() * on.logits.shape[-1] ** 2 <= _LARGEST:
        found += [GumbelSoftmaxST(tau) for tau in _TEMPERATURES]
    return found
