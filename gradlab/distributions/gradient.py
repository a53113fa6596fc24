r"""The gradient through a sample of any distribution with finitely many states.

.. math:: M(x)\,v = (1 - \alpha/2)\,(\partial\mu/\partial\theta)^T v
          + (\alpha/2)\,\bigl((x - \mu) \cdot v\bigr)\,\nabla_\theta \log p(x)
"""

from torch import Tensor
from torch.distributions import Distribution, Independent

from gradlab.estimators import Estimator, parse

__all__ = ["alpha_of", "base_of", "mean_and_log_prob", "mean_of", "with_gradient"]


def alpha_of(estimator: str | Estimator) -> float:
    r"""Return alpha of the line (1 - alpha/2) ST + (alpha/2) DARN on which an estimator lies.

    Args:
        estimator: ST (0), ZGR (1), DARN (2) or ST-ZGR(alpha=...), or its text.

    Returns:
        alpha, a number.

    Raises:
        ValueError: The estimator is not on this line, so its product is not known for structures.

    Example:
        >>> alpha_of("ST-ZGR(alpha=0.5)")
        0.5
    """
    found = parse(estimator) if isinstance(estimator, str) else estimator
    if found.line_alpha is None:
        raise ValueError(
            f"{found} is not known for samples of a structure; use ST, ZGR, DARN or "
            "ST-ZGR(alpha=...)"
        )
    return found.line_alpha


def with_gradient(distribution: Distribution, x: Tensor, alpha: float = 1.0) -> Tensor:
    r"""Return samples x whose backward is the product of ST, ZGR or DARN for this distribution.

    .. math:: M(x)\,v = (1 - \alpha/2)\,(\partial\mu/\partial\theta)^T v
              + (\alpha/2)\,\bigl((x - \mu) \cdot v\bigr)\,\nabla_\theta \log p(x)

    Exact for f of degree 1 in x, and for quadratic f at alpha = 1 (ZGR), whatever the distribution.
    For independent x and y with scores s the gradient of E f is E (f(x) - f(y)) (s(x) - s(y)) / 2,
    and the trapezoid rule for f(x) - f(y) is exact on quadratics. Elements of the batch are
    independent, each with its own product. Costs two backward passes.

    Args:
        distribution: A distribution with differentiable `log_prob` and `mean`.
        x: Samples [*sample, *batch, *event].
        alpha: Place on the line: 0 is ST, 1 ZGR, 2 DARN.

    Returns:
        The same values; their backward reaches the parameters.

    Example:
        >>> import torch
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> family = torch.distributions.OneHotCategorical(logits=logits)
        >>> with_gradient(family, torch.tensor([1.0, 0.0, 0.0]))[0].backward()
        >>> logits.grad
        tensor([ 0.3333, -0.1667, -0.1667])
    """
    mean, log_prob = mean_and_log_prob(distribution, x)
    if not (mean.requires_grad or log_prob.requires_grad):
        return x
    away = (x - mean).detach()
    score = log_prob - log_prob.detach()
    score = score.reshape(score.shape + (1,) * (x.ndim - score.ndim))
    # Both terms are 0, and exactly so; what they add is their gradient.
    return x + (1 - alpha / 2) * (mean - mean.detach()) + alpha / 2 * away * score


def mean_and_log_prob(distribution: Distribution, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, and log p(x) up to a number that does not depend on the parameters.

    Args:
        distribution: A distribution with finitely many states.
        x: Samples [*sample, *batch, *event].

    Returns:
        The mean [*batch, *event] and the log-probabilities, one for each independent element:
        those that `torch.distributions.Independent` adds up are kept apart.

    Raises:
        ValueError: The states are not vectors, as those of `torch.distributions.Categorical`.
    """
    distribution = base_of(distribution)
    if hasattr(distribution, "mean_and_log_weight"):
        mean, weight = distribution.mean_and_log_weight(x)
        return mean, weight
    return mean_of(distribution), distribution.log_prob(x)


def mean_of(distribution: Distribution) -> Tensor:
    """Return the mean of a distribution with finitely many states, differentiable.

    Args:
        distribution: The distribution. Without a `mean` of its own, its states are summed up.

    Returns:
        The mean [*batch, *event].

    Raises:
        ValueError: The states are not vectors, as those of `torch.distributions.Categorical`.

    Example:
        >>> import torch
        >>> mean_of(torch.distributions.Bernoulli(logits=torch.zeros(2)))
        tensor([0.5000, 0.5000])
    """
    distribution = base_of(distribution)
    try:
        mean = distribution.mean
    except NotImplementedError:
        states = distribution.enumerate_support()
        p = distribution.log_prob(states).exp()
        mean = (p.reshape(p.shape + (1,) * len(distribution.event_shape)) * states).sum(0)
    if bool(mean.isnan().any()):
        raise ValueError(
            f"{type(distribution).__name__} has no mean, so a gradient through x means nothing; "
            "use OneHotCategorical, or a score-function estimator such as RF(m=4)"
        )
    return mean


def base_of(distribution: Distribution) -> Distribution:
    """Return what `torch.distributions.Independent` wraps, its elements kept apart.

    Args:
        distribution: Any distribution.

    Example:
        >>> import torch
        >>> base_of(Independent(torch.distributions.Bernoulli(logits=torch.zeros(3)), 1))
        Bernoulli(logits: torch.Size([3]))
    """
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution
