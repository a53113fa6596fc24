r"""The truth about a bound of K samples: its value, and the gradient of that, by enumeration.

.. math:: L_K = E \log \tfrac1K \sum_k w_k, \quad
          \nabla L_K = E \sum_k (Z - v_k)\,h_k

The value is differentiable in the logits and in the parameters of log p(x, z): automatic
differentiation is a second route to the gradient.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.bounds.log_sums import log_mean, shares
from gradlab.bounds.states import WeightedStates
from gradlab.loss import Loss, NotFiniteError
from gradlab.reproducible import single_thread

__all__ = ["check_finite_weights", "exact_gradient", "exact_value", "gradient_of", "value_of"]


@single_thread()
def exact_value(
    log_joint: Loss, logits: Float[Tensor, "N C"], k: int, *, route: str = "multisets"
) -> Float[Tensor, ""]:
    """Return the bound E log (1/K) sum_k w_k of K samples, by enumeration, in nats.

    Args:
        log_joint: log p(x, z) of one-hot z, [..., N, C] -> [...]; -inf is allowed.
        logits: Of q(z) = Categorical(softmax(logits)), [N, C].
        k: K, the number of samples.
        route: "multisets" of samples, or all ordered "tuples", which is slower; both agree.

    Returns:
        The value, float64. Its backward reaches the logits and the parameters of log_joint. It is
        -inf where q draws a state of weight 0.

    Raises:
        TooLargeError: There are too many states or tuples; the message counts them.
        LossError: log_joint breaks the contract of a loss.

    Example:
        >>> from gradlab.bounds import exact_value
        >>> log_joint = lambda z: (z[..., 0, :] @ torch.tensor([0.1, 0.3])).log()
        >>> [round(float(exact_value(log_joint, torch.zeros(1, 2), k)), 4) for k in (1, 2, 64)]
        [-1.0601, -0.9882, -0.9183]
    """
    return value_of(WeightedStates(log_joint, logits), k, route)


def value_of(on: WeightedStates, k: int, route: str = "multisets") -> Float[Tensor, ""]:
    """Return the bound of K samples, with its graph; see `exact_value`.

    Args:
        on: All states with their weights.
        k: K.
        route: "multisets" or "tuples".

    Returns:
        The value, float64.

    Example:
        >>> on = WeightedStates(lambda z: z[..., 0, 0], torch.zeros(1, 2))
        >>> round(float(value_of(on, 1)), 4)
        1.1931
    """
    log_q = on.log_q_on_graph()
    log_joint = on.log_joint()
    graph = torch.is_grad_enabled() and (log_q.requires_grad or log_joint.requires_grad)
    total = torch.zeros((), dtype=torch.float64)
    if not graph:
        for index, p in on.tuples(k, route):
            total = total + p @ log_mean(on.log_w[index])
        return total
    if not on.is_finite:
        return total - math.inf
    log_w = log_joint - log_q
    centre = on.q @ on.log_w
    # The parameters enter through the weights, and through the probability of a tuple.
    for index, p in on.tuples(k, route):
        z = log_mean(log_w[index])
        score = log_q[index].sum(0)
        total = total + p @ (z + (z.detach() - centre) * (score - score.detach()))
    return total


@single_thread()
def exact_gradient(
    log_joint: Loss, logits: Float[Tensor, "N C"], k: int, *, route: str = "multisets"
) -> Float[Tensor, "N C"]:
    """Return the gradient of the bound of K samples in the logits, by enumeration.

    Args:
        log_joint: log p(x, z) of one-hot z, [..., N, C] -> [...]; it need not be differentiable.
        logits: Of q, [N, C].
        k: K, the number of samples.
        route: "multisets" of samples, or all ordered "tuples", which is slower; both agree.

    Returns:
        The gradient [N, C], float64. That in parameters of log_joint is the backward of
        `exact_value`.

    Raises:
        NotFiniteError: The bound is -inf, so it has no gradient.
        TooLargeError: There are too many states or tuples; the message counts them.
        LossError: log_joint breaks the contract of a loss.

    Example:
        >>> from gradlab.bounds import exact_gradient
        >>> log_joint = lambda z: (z[..., 0, :] @ torch.tensor([0.1, 0.3])).log()
        >>> exact_gradient(log_joint, torch.zeros(1, 2), k=2).round(decimals=4)
        tensor([[-0.1497,  0.1497]], dtype=torch.float64)
    """
    return gradient_of(WeightedStates(log_joint, logits), k, route)


def gradient_of(on: WeightedStates, k: int, route: str = "multisets") -> Float[Tensor, "N C"]:
    """Return the gradient of the bound of K samples; see `exact_gradient`.

    Args:
        on: All states with their weights.
        k: K.
        route: "multisets" or "tuples".

    Returns:
        The gradient [N, C], float64.

    Raises:
        NotFiniteError: The bound is -inf.

    Example:
        >>> on = WeightedStates(lambda z: z[..., 0, 0], torch.zeros(1, 2))
        >>> gradient_of(on, 1)
        tensor([[ 0.2500, -0.2500]], dtype=torch.float64)
    """
    check_finite_weights(on, k)
    none = torch.zeros(0, 1, dtype=torch.float64)
    # An offset of log w changes no gradient, but costs digits.
    centre = on.q @ on.log_w
    total = torch.zeros_like(on.p)
    with torch.no_grad():
        for index, p in on.tuples(k, route, on.p.numel()):
            log_w = on.log_w[index]
            weight = log_mean(log_w - centre) - shares(log_w)
            total += torch.einsum("n,nic->ic", p, on.on(index, none, none).scored(weight))
    return total


def check_finite_weights(on: WeightedStates, k: int) -> None:
    """Raise NotFiniteError if q draws a state of weight 0, so that the bound is -inf.

    Args:
        on: All states with their weights.
        k: K.

    Raises:
        NotFiniteError: There is such a state; the message says which, and the way out.

    Example:
        >>> check_finite_weights(WeightedStates(lambda z: z[..., 0, 0], torch.zeros(1, 2)), 2)
    """
    if on.is_finite:
        return
    zero = on.log_w == -math.inf
    first = on.classes[zero][0].tolist()
    raise NotFiniteError(
        f"the bound is -inf: with probability {float(on.q[zero].sum()) ** k:.2g} all {k} samples "
        f"have p(x, z) = 0, as at z = {first} (classes). Mask these classes in the logits by -inf, "
        "or give them a small probability"
    )
