"""The truth about a loss: its expectation, the gradient of that, and an estimator's moments.

x is drawn from independent categorical variables, or from any `distribution` with finitely many
states.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.estimators import Estimator
from gradlab.exact.differentiable import value_with_graph, wants_graph
from gradlab.exact.direct import direct_part
from gradlab.exact.enumeration import value_moments
from gradlab.exact.moments import Enumerated, enumerated
from gradlab.exact.packed import in_a_row, packed, unpacked
from gradlab.exact.structures import DistributionOf, Structured
from gradlab.exact.tabulated import Tabulated
from gradlab.loss import Loss, Objective
from gradlab.loss.gate import checked
from gradlab.moments import Moments

__all__ = ["NEEDS_DISTRIBUTION", "exact_gradient", "exact_moments", "exact_value", "structured"]

NEEDS_DISTRIBUTION = "a tuple of parameters needs a distribution= that is made of them"
"""What is said of a tuple of parameters without one."""

Parameters = Float[Tensor, "*shape"] | tuple[Tensor, ...] | None


def exact_value(
    f: Loss | Structured, logits: Parameters = None, *, distribution: DistributionOf | None = None
) -> Float[Tensor, "*result"]:
    """Return the expected loss E f(x), x ~ Categorical(softmax(logits)), by enumeration.

    Where the logits require a gradient, the value has a graph to them, and to parameters of f:
    torch differentiates it, also twice.

    Args:
        f: The loss, x [..., N, C] -> [...], or f(x, logits) marked by `gradlab.with_parameters`; or
            a `Structured` in place of all arguments.
        logits: The parameters [N, C]. For [B, N, C] f maps x [..., B, N, C] to [..., B].
        distribution: What x is drawn from instead: a function from the parameters, of any shape or
            a tuple of tensors, to a `torch.distributions.Distribution`; see
            `gradlab.exact.structures.Structured`.

    Returns:
        The value, or B values, in units of f, float64.

    Raises:
        TooLargeError: Beyond `MAX_CONFIGURATIONS` configurations of positive probability.
        LossError: If f breaks its contract.

    Example:
        >>> import gradlab
        >>> gradlab.exact_value(lambda x: x[..., 0, 1], torch.tensor([[0.0, 0.0]]))
        tensor(0.5000, dtype=torch.float64)
    """
    on = structured(f, logits, distribution)
    if on is None:
        objective, found = _of_elements(f, logits, _value)
        assert isinstance(logits, Tensor)
        return value_with_graph(found, objective, logits) if wants_graph(logits) else found
    given = in_a_row(logits) if isinstance(logits, tuple) else logits
    return on.value if given is None or not wants_graph(given) else on.value_with_graph(given)


def exact_gradient(
    f: Loss | Structured, logits: Parameters = None, *, distribution: DistributionOf | None = None
) -> Float[Tensor, "*result"] | tuple[Tensor, ...]:
    r"""Return the true gradient d/dlogits E f(x), by enumeration, from values of f alone.

    .. math:: \partial_{ic} E f = p_{ic}\,(E[f \mid x_i = c] - E f)

    and E[df/dlogits] more where f sees the logits.

    Args:
        f: The loss, x [..., N, C] -> [...]; it need not be differentiable. Or f(x, logits), marked
            by `gradlab.with_parameters`, differentiable in the logits; or a `Structured` in place
            of all arguments.
        logits: The parameters [N, C]. For [B, N, C] f maps x [..., B, N, C] to [..., B].
        distribution: What x is drawn from instead: a function from the parameters, of any shape or
            a tuple of tensors, to a `torch.distributions.Distribution`; see
            `gradlab.exact.structures.Structured`.

    Returns:
        The gradient in the shape of the logits, in units of f, float64. In a batch row b is the
        gradient of element b. For a tuple of parameters a tuple.

    Raises:
        TooLargeError: Beyond `MAX_CONFIGURATIONS` configurations of positive probability.
        LossError: If f breaks its contract.

    Example:
        >>> import gradlab
        >>> gradlab.exact_gradient(lambda x: x[..., 0, 1], torch.tensor([[0.0, 0.0]]))
        tensor([[-0.2500,  0.2500]], dtype=torch.float64)
    """
    on = structured(f, logits, distribution)
    if on is None:
        return _of_elements(f, logits, _gradient)[1]
    if isinstance(logits, tuple):
        return unpacked(on.gradient, [tensor.shape for tensor in logits])
    return on.gradient


def _value(f: Objective, logits: Tensor) -> Tensor:
    return value_moments(f, logits, squares=False).mean


def _gradient(f: Objective, logits: Tensor) -> Tensor:
    first = value_moments(f, logits, squares=False).gradient
    if f.second is None:
        return first
    return first + direct_part(f, logits.detach().to("cpu", torch.float64)).mean


def _of_elements(
    f: Any, logits: Parameters, part: Callable[[Objective, Tensor], Tensor]
) -> tuple[Objective, Tensor]:
    """Return f after the gate, and a part of what is known of it, for each element of a batch."""
    if logits is None:
        raise TypeError("logits are missing: give (f, logits)")
    if isinstance(logits, tuple):
        raise TypeError(NEEDS_DISTRIBUTION)
    objective = checked(f, logits)
    at = logits.detach()
    if at.ndim == 2:
        return objective, part(objective, at)
    table = Tabulated(objective, at)
    return objective, torch.stack([part(table.element(b), row) for b, row in enumerate(at)])


def exact_moments(
    estimator: Estimator,
    f: Loss | Enumerated | Structured,
    logits: Parameters = None,
    *,
    distribution: DistributionOf | None = None,
) -> Moments:
    """Return mean and variance of one draw of `estimator` without sampling, float64.

    A value estimator for which no formula is known is put to every tuple of its samples.

    Args:
        estimator: The estimator.
        f: The loss, or an `Enumeration` or a `Structured` in place of all other arguments.
        logits: The parameters [N, C]. For [B, N, C] f maps x [..., B, N, C] to [..., B].
        distribution: What x is drawn from instead: a function from the parameters, of any shape or
            a tuple of tensors, to a `torch.distributions.Distribution`; see
            `gradlab.exact.structures.Structured`.

    Returns:
        The moments; for logits [B, N, C] they have the axis B in front. For a tuple of parameters
        they are those of all its numbers in one row.

    Raises:
        NotExactError: If the moments are not known (as of GS, ARSM, REBAR, or of a class that
            overrides what is enumerated), or the estimator refuses the logits.
        TooLargeError: If there are too many configurations, or the tables would fill the memory.
        QuadratureError: If a temperature of the Gumbel family is too extreme.
        NotDifferentiableError: If the estimator needs a gradient that f does not have.
        LossError: If f breaks its contract.
        TypeError: If there are both an enumeration and logits, or neither.

    Example:
        >>> import gradlab
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("quadratic", 2, 3), regime("moderate", 2, 3)
        >>> moments = gradlab.exact_moments(gradlab.ZGR(), f, logits)
        >>> torch.allclose(moments.mean, gradlab.exact_gradient(f, logits))
        True
    """
    on = structured(f, logits, distribution)
    if on is not None:
        return on.moments(estimator)
    assert not isinstance(f, Structured)
    if isinstance(logits, tuple):
        raise TypeError(NEEDS_DISTRIBUTION)
    return enumerated(f, logits).moments(estimator)


def structured(
    f: Any, logits: Parameters, distribution: DistributionOf | None
) -> Structured | None:
    """Return what is enumerated where x is drawn from a distribution; else None.

    Args:
        f: A loss, or a `Structured` in place of all arguments.
        logits: The parameters of the distribution; a tuple of tensors is kept as one row of
            numbers, while f and `distribution` are given the tuple.
        distribution: From the parameters to what x is drawn from.

    Returns:
        The states of f, or None where neither a `Structured` nor a distribution is given.

    Raises:
        TypeError: If there is too much or too little.

    Example:
        >>> structured(lambda x: x[..., 0], torch.zeros(2, 3), None) is None
        True
    """
    if isinstance(f, Structured):
        if logits is not None or distribution is not None:
            raise TypeError("a Structured has its own parameters and distribution: give it alone")
        return f
    if distribution is None:
        return None
    if logits is None or isinstance(f, Enumerated):
        raise TypeError("with distribution= give a loss f and the parameters")
    if isinstance(logits, tuple):
        return Structured(*packed(f, logits, distribution), held=logits)
    return Structured(f, logits, distribution)
