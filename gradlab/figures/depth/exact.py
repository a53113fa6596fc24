r"""Exact mean and variance of gradient estimators in deep stochastic networks, layer by layer.

Given the state s of a layer, the cotangent v that comes from above is independent of all below, so
that its first two moments obey a recursion over layer states, as the exact gradient does:

.. math:: E[v' | s'] = J^T\, E[\,M(s', s)\, E[v | s] \;|\; s'], \quad
          E[v' v'^T | s'] = J^T\, E[\,M(s', s)\, E[v v^T | s]\, M(s', s)^T \;|\; s']\, J

with J the derivative of the logits by the state s' and M the estimator's matrix.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import probabilities
from gradlab.estimators import Estimator, LeaveOneOut, PathwiseEstimator, Reinforce
from gradlab.exact.enumeration import TooLargeError
from gradlab.figures.depth.network import (
    MAX_NUMBERS,
    DeepNetwork,
    Layer,
    Messages,
    exact_gradients,
)
from gradlab.loss import evaluate, gradient
from gradlab.moments import Moments
from gradlab.reproducible import single_thread

__all__ = ["exact_deep_moments", "exact_means"]

_CHUNK_NUMBERS = 2**20


@single_thread()
@torch.no_grad()
def exact_means(
    network: DeepNetwork, estimator: Estimator
) -> tuple[Float[Tensor, "B N C"], ...] | None:
    """Return the exact mean of the estimate for each layer, or None where it is not known.

    Unknown for GS, which relaxes the samples; the exact gradient for unbiased estimators. Raises
    TooLargeError for layers of too many states, LossError for a bad loss.
    """
    if estimator.order == torch.inf:
        return tuple(g.bias for g in exact_gradients(network))
    if not isinstance(estimator, PathwiseEstimator):
        return None
    messages = Messages.of(network)
    v = gradient(network.loss, messages.at_last(len(network.inputs))).movedim(1, 0)
    found = []
    for index in reversed(range(network.depth)):
        layer, x, h = network.layers[index], messages.here[index], messages.below[index]
        p = probabilities(layer.logits(h))
        tables = estimator.conditional_jacobians(p.flatten(0, 1))
        if tables is None:
            return None
        # E[1{x_i = k} v_i | s'] for each input, state below, variable i and class k.
        given = messages.transition[index] @ (x[..., None] * v[..., None, :]).flatten(2)
        given = given.unflatten(-1, (*x.shape[1:], x.shape[-1]))
        mean = torch.einsum("snkij,bsnkj->bsni", tables[0].unflatten(0, p.shape[:2]), given)
        found.append((messages.forward[index][..., None, None] * mean).sum(1))
        v = layer.pullback(h, mean)
        if index:
            v = v.unflatten(-1, network.layers[index - 1].bias.shape)
    return tuple(reversed(found))


@single_thread()
@torch.no_grad()
def exact_deep_moments(network: DeepNetwork, estimator: Estimator) -> tuple[Moments, ...] | None:
    """Return the exact moments of the estimate for each layer, or None where they are not known.

    The variables of all inputs stand under each other: [B N, C]. Known for REINFORCE, RF(m),
    pathwise estimators whose matrix is a function of the sample, and for binary variables all with
    conditional Jacobians. Raises TooLargeError for layers of too many states, LossError for a bad
    loss.
    """
    means = exact_means(network, estimator)
    if means is None:
        return None
    if isinstance(estimator, Reinforce | LeaveOneOut):
        squares: list[Tensor] | None = _score_function_squares(network, estimator)
    elif isinstance(estimator, PathwiseEstimator):
        squares = _pathwise_squares(network, estimator)
    else:
        return None
    if squares is None:
        return None
    return tuple(
        Moments(mean.flatten(0, 1), (square - mean.square().sum(-1)).clamp_min(0.0).flatten())
        for mean, square in zip(means, squares, strict=True)
    )


def _score_function_squares(
    network: DeepNetwork, estimator: Reinforce | LeaveOneOut
) -> list[Float[Tensor, "B N"]]:
    """Return E |estimate|^2 from E r^2 |s|^2, E r |s|^2 and E |s|^2, with r = f - E f."""
    messages = Messages.of(network)
    value = evaluate(network.loss, messages.at_last(len(network.inputs))).T
    mean = (messages.last * value).sum(-1, keepdim=True)
    # Moments of f - E f of order 2, 1, 0, given a state.
    powers = torch.stack([(value - mean) ** k for k in (2, 1, 0)])
    variance_f = (messages.last * powers[0]).sum(-1, keepdim=True)
    found = []
    gradients = [g.bias.square().sum(-1) for g in exact_gradients(network)]
    for index in reversed(range(network.depth)):
        layer, x, table = network.layers[index], messages.here[index], messages.transition[index]
        p = probabilities(layer.logits(messages.below[index]))
        norm2 = 1 - 2 * p + p.square().sum(-1, keepdim=True)
        given = table @ (powers[..., None] * x.flatten(1))
        scored = (given.unflatten(-1, p.shape[1:]) * norm2).sum(-1)
        square, linear, score = (messages.forward[index][..., None] * scored).sum(2)
        if isinstance(estimator, Reinforce):
            shift = mean - estimator.baseline
            found.append(square + 2 * shift * linear + shift**2 * score)
        else:
            m = estimator.m
            pairs = variance_f * score + (m * (m - 2) + 2) * gradients[index]
            found.append(square / m + pairs / (m * (m - 1)))
        powers = powers @ table.T
    return found[::-1]


def _pathwise_squares(
    network: DeepNetwork, estimator: PathwiseEstimator
) -> list[Float[Tensor, "B N"]] | None:
    """Return E |estimate|^2 from the second moments E[v v^T | s], [B, S, N C, N C]."""
    _check_size(network)
    messages = Messages.of(network)
    v = gradient(network.loss, messages.at_last(len(network.inputs))).movedim(1, 0).flatten(2)
    second = v[..., :, None] * v[..., None, :]
    found = []
    for index in reversed(range(network.depth)):
        layer, x, h = network.layers[index], messages.here[index], messages.below[index]
        products = _second_moments(estimator, layer, h, x, messages.transition[index], second)
        if products is None:
            return None
        square = (messages.forward[index][..., None, None] * products).sum(1)
        shape = layer.bias.shape
        found.append(square.diagonal(dim1=-2, dim2=-1).unflatten(-1, shape).sum(-1))
        half = layer.pullback(h[:, None], products.unflatten(-1, shape))
        second = layer.pullback(h[:, None], half.mT.unflatten(-1, shape))
    return found[::-1]


def _second_moments(
    estimator: PathwiseEstimator, layer: Layer, h: Tensor, x: Tensor, table: Tensor, second: Tensor
) -> Float[Tensor, "B R D D"] | None:
    """Return E[M V M^T | s'] for each state s' below, some of them at a time."""
    p = probabilities(layer.logits(h))
    tables = estimator.conditional_jacobians(p.flatten(0, 1))
    assert tables is not None  # its mean is known
    first, square = (t.unflatten(0, p.shape[:2]) for t in tables)
    # What M varies by given x. Of binary variables M is a multiple of D = [[1, -1], [-1, 1]].
    spread = square - first.mT @ first
    varies = bool((spread.abs() > 1e-12).any())
    variables, classes = x.shape[1:]
    if varies and classes != 2:
        return None
    own = second.unflatten(-1, (variables, classes)).unflatten(-3, (variables, classes))
    own = own.diagonal(dim1=-4, dim2=-2)[:, :, :2, :2]
    bend = own[:, :, 0, 0] + own[:, :, 1, 1] - own[:, :, 0, 1] - own[:, :, 1, 0]
    along = torch.eye(variables).repeat_interleave(classes, 0)
    same = (along @ along.T).to(x)
    wide = second.permute(1, 2, 0, 3).flatten(2)
    bent = (x * bend[..., None]).movedim(1, 0).flatten(1)
    sign = x.new_tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(variables, variables)
    found = []
    room = max(1, _CHUNK_NUMBERS // wide.numel())
    for matrix, scatter, probability in zip(
        first.split(room), spread.split(room), table.split(room), strict=True
    ):
        blocks = torch.einsum("snk,rnkij->rsnij", x, matrix).flatten(2, 3)
        blocks = blocks.repeat(1, 1, 1, variables) * same
        half = (blocks @ wide).unflatten(-1, (-1, blocks.shape[-1]))
        product = torch.einsum("rsibk,rsek->rbie", half, probability[..., None, None] * blocks)
        if varies:
            given = (probability @ bent).unflatten(-1, (-1, variables, classes))
            scale = (given * scatter[:, None, :, :, 0, 0]).sum(-1) / 2
            wider = scale.repeat_interleave(classes, -1)
            product = product + wider[..., None] * same * sign
        found.append(product)
    return torch.cat(found).movedim(1, 0)


def _check_size(network: DeepNetwork) -> None:
    """Raise TooLargeError where the second moments of a layer would not fit the memory."""
    for number, layer in enumerate(network.layers, 1):
        variables, classes = layer.bias.shape
        numbers = len(network.inputs) * layer.bias.numel() ** 2
        if numbers * classes**variables > MAX_NUMBERS:
            raise TooLargeError(
                f"exact variances at layer {number} ({variables} variables of {classes} classes, "
                f"{len(network.inputs)} inputs) need {numbers * classes**variables} numbers, more "
                f"than {MAX_NUMBERS}; use deep_moments(network, estimator, draws) instead"
            )
