"""How `verify` judges code on a loss that sees the logits, f(x, logits).

The target is the whole gradient, E[f s] + E[df/dlogits]. Code estimates the first part only. The
second is in the graph of f, and must not hide a bias of the first.
"""

import math
from dataclasses import replace

import torch

from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.moments import Enumerated, Enumeration
from gradlab.loss import Objective, sees_parameters
from gradlab.user_code.under_test import DRAW, Draws
from gradlab.verification.testable_coordinates import Question

__all__ = ["note_of_share", "of_estimated_part", "training_only"]


def training_only(drawn: Draws, judge: str, f: Objective) -> Draws:
    """Return the draws that are judged on f: of an estimator, those of its training.

    Args:
        drawn: The draws of the code.
        judge: What is to be judged.
        f: The loss.

    Returns:
        The draws.

    Raises:
        ValueError: If `judge` is "draw" for an estimator, whose draws have no part of df/dlogits.
    """
    if drawn.estimator is None or not sees_parameters(f):
        return drawn
    if judge == DRAW:
        raise ValueError(
            f"judge must be 'both' or 'training' for {drawn.name} on a loss that sees the logits: "
            "df/dlogits is in the graph of f, which only a surrogate has"
        )
    return drawn.training


def of_estimated_part(question: Question, on: Enumerated) -> Question:
    """Return the question with a `delta` that is a share of the estimated part, E[f s].

    It stays a number in lengths of the whole gradient. So it is smaller where that is longer than
    the part which is estimated.

    Args:
        question: What is asked.
        on: The loss and the logits.

    Returns:
        The question; the same one where f does not see the logits, cannot be enumerated, or where
        the estimated part is 0 to the accuracy of its sums.
    """
    if not sees_parameters(question.f):
        return question
    elements = [on] if isinstance(on, Enumeration) else on.elements
    try:
        whole = float(torch.linalg.vector_norm(on.gradient))
        firsts = [element.values.gradient for element in elements]
        sums = math.hypot(*(element.second_route.sums for element in elements))
    except TooLargeError:
        return question
    first = float(torch.linalg.vector_norm(torch.stack(firsts)))
    if not sums < first < whole:
        return question
    return replace(question, delta=question.delta * first / whole)


def note_of_share(asked: float, used: float) -> tuple[str, ...]:
    """Return what is said where `delta` is smaller than it was asked for.

    Args:
        asked: The caller's `delta`.
        used: That of the question.

    Returns:
        A sentence, or nothing.

    Example:
        >>> note_of_share(0.05, 0.05)
        ()
    """
    if used == asked:
        return ()
    return (
        f"f sees the logits: of the gradient E[f s] is {used / asked:.2g} |g|, the estimated part, "
        f"and a bias below {asked:g} of that counts as none.",
    )
