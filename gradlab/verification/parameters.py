"""Do the parameters of f get their gradient from what trains? Asked of code by draws.

A surrogate must carry the gradient for the logits, and the ordinary one for f's own parameters.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import probabilities
from gradlab.loss.gate import Objective
from gradlab.moments import Measured
from gradlab.reproducible import block_generator, generator_on
from gradlab.user_code.under_test import Draws
from gradlab.verification.testable_coordinates import Question
from gradlab.verification.verdict import BIASED, NOT_APPLICABLE, Verdict

__all__ = ["parameter_share", "with_parameters"]

_CALLS, _ROWS = 16, 64


def parameter_share(
    drawn: Draws,
    f: Objective,
    logits: Float[Tensor, "*batch N C"],
    seed: int,
    mean: Tensor | None = None,
) -> Measured | None:
    """Return what share of its gradient a parameter of f gets on average; 1 is right.

    f is given a parameter theta, f(x) + theta (1 + x . w), whose gradient is known to be 1 + p . w.
    None where the code evaluates f at relaxed x, at which that is not so. `mean`: E x, where x is
    drawn from a distribution.
    """
    assert drawn.surrogate is not None
    source = torch.Generator().manual_seed(0)
    shape = logits.shape[-2:] if mean is None else mean.shape
    axes = tuple(range(-len(shape), 0))
    w = torch.rand(shape, generator=source, dtype=torch.float64).to(logits)
    of_x = probabilities(logits) if mean is None else mean.to(logits)
    wanted = 1 + float((of_x * w).sum(axes).mean())
    relaxed = []
    shares = []
    for call in range(_CALLS):
        theta = torch.zeros((), dtype=logits.dtype, device=logits.device, requires_grad=True)

        def with_parameter(x: Tensor, theta: Tensor = theta) -> Tensor:
            relaxed.append(not bool(((x == 0) | (x == 1)).all()))
            return f(x) + theta * (1 + (x * w).sum(axes))

        leaf = logits.detach().expand(_ROWS, *logits.shape).clone().requires_grad_()
        generator = block_generator(seed, f"{drawn.name}|parameters", call)
        with torch.enable_grad():
            values = drawn.surrogate(with_parameter, leaf, generator_on(logits.device, generator))
            (of_theta,) = torch.autograd.grad(values.sum(), theta, allow_unused=True)
        got = 0.0 if of_theta is None else float(of_theta)
        shares.append(got / values.numel() / wanted)
    if any(relaxed):
        return None
    found = torch.tensor(shares, dtype=torch.float64)
    return Measured(float(found.mean()), float(found.std()) / math.sqrt(_CALLS))


def with_parameters(question: Question, verdict: Verdict, mean: Tensor | None = None) -> Verdict:
    """Return the verdict, with a note or BIASED where parameters of f do not get their gradient."""
    drawn = question.drawn
    if drawn.surrogate is None or verdict.outcome == NOT_APPLICABLE:
        return verdict
    share = parameter_share(drawn, question.f, question.at, question.seed, mean)
    if share is None or abs(share - 1) <= max(0.02, 9 * share.se):
        return verdict
    sentence = (
        f"Parameters of f get {share.value:.2g} ± {share.se:.1g} of their gradient from the value "
        "of the surrogate."
    )
    if share < 0.9:
        sentence += " Does it carry f(x) with its graph, as f(x) + (estimate part) does?"
    if drawn.estimator is not None and verdict.outcome != BIASED:
        return replace(verdict, outcome=BIASED, reason=sentence)
    # A function says nothing of parameters: it may be meant for the logits alone.
    tell = drawn.estimator is not None or question.f.parameters
    return replace(verdict, notes=(*verdict.notes, sentence)) if tell else verdict
