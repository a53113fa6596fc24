r"""Draws, bias and variance of gradient estimators in deep stochastic networks, layer by layer.

Pathwise estimators back-propagate through all layers in one pass; score-function estimators weight
the scores of all layers by the loss of whole-network samples; every other estimator from values of
f is put to one layer at a time, with the layers above it as a random f, for which it needs a set of
passes a layer.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import draw_one_hot, probabilities
from gradlab.checks import check_int
from gradlab.estimators import Estimator, PathwiseEstimator, ValueEstimator
from gradlab.figures.depth.network import DeepNetwork
from gradlab.loss import evaluate, gradient
from gradlab.moments import GROUPS, Groups, Moments
from gradlab.reproducible import block_generator, check_seed, single_thread

__all__ = ["deep_moments", "draw_gradients", "passes"]

_BLOCK_NUMBERS = 2**18


def draw_gradients(
    network: DeepNetwork, estimator: Estimator, n: int, generator: Generator | None = None
) -> tuple[Float[Tensor, "n B N C"], ...]:
    """Return n replicates of the estimate of d/dlogits E f for each layer and input.

    The gradient for the logits of a layer is that for its bias. Raises TypeError for an estimator
    that cannot be put to a layer, LossError and NotDifferentiableError for a bad loss.
    """
    if isinstance(estimator, PathwiseEstimator):
        return _pathwise(network, estimator, n, generator)
    with torch.no_grad():
        if _weighs_scores(estimator):
            return _score_function(network, estimator, n, generator)
        if isinstance(estimator, ValueEstimator):
            return _layer_by_layer(network, estimator, n, generator)
    raise TypeError(
        "estimator must be pathwise (with `sample`) or a ValueEstimator (with `estimate`), "
        f"not {type(estimator).__name__}"
    )


def passes(network: DeepNetwork, estimator: Estimator) -> float:
    """Return how many forward passes one draw of all layers' gradients costs.

    1 (and a backward one) for pathwise estimators, 1 for REINFORCE, m for RF(m). Put to each layer,
    an estimator with c evaluations samples c times that layer and all above it, on one sample of
    those below: (c L (L + 1) / 2 + L - 1) / L, as if all layers cost the same.
    """
    if isinstance(estimator, PathwiseEstimator) or _weighs_scores(estimator):
        return estimator.calls(1)
    layers = network.depth
    sampled = sum(
        estimator.calls(layer.bias.shape[-1], layer.bias.shape[-2]) * (layers - index)
        for index, layer in enumerate(network.layers)
    )
    return (sampled + layers - 1) / layers


@single_thread()
def deep_moments(
    network: DeepNetwork, estimator: Estimator, draws: int, seed: int = 0, *, row: str = ""
) -> tuple[Moments, ...]:
    """Return the moments of the estimate for each layer from `draws` draws, with standard errors.

    The variables of all inputs stand under each other: [B N, C]. `row` keeps the random numbers
    apart from those of other rows. Memory does not grow with `draws`. Raises ValueError for bad
    arguments, and what `draw_gradients` raises.
    """
    check_int("draws", draws, 2 * GROUPS)
    check_seed(seed)
    size = _block_size(network, estimator)
    totals: list[Groups] | None = None
    for start in range(0, draws, size):
        generator = block_generator(seed, f"{row}|{estimator}", start // size)
        block = draw_gradients(network, estimator, min(size, draws - start), generator)
        sums = [Groups.from_draws(g.flatten(1, 2)) for g in block]
        pairs = zip(totals or sums, sums, strict=True)
        totals = [a.merge(b) for a, b in pairs] if totals else sums
    assert totals is not None
    return tuple(map(Moments.from_groups, totals))


def _block_size(network: DeepNetwork, estimator: Estimator) -> int:
    """Return the number of draws in a block: a function of the network and the estimator alone."""
    largest = max(
        layer.bias.numel() * estimator.calls(layer.bias.shape[-1], layer.bias.shape[-2])
        for layer in network.layers
    )
    room = _BLOCK_NUMBERS // (largest * len(network.inputs))
    return max(GROUPS, room // GROUPS * GROUPS)


def _pathwise(
    network: DeepNetwork, estimator: PathwiseEstimator, n: int, generator: Generator | None
) -> tuple[Tensor, ...]:
    """One pass forward through samples and one back through their products."""
    first = network.layers[0].logits(network.inputs).detach()
    logits = [first.expand(n, *first.shape).clone().requires_grad_()]
    with torch.enable_grad():
        for layer in network.layers[1:]:
            logits.append(layer.logits(estimator.sample(logits[-1], generator).flatten(-2)))
        x = estimator.sample(logits[-1], generator)
    v = gradient(network.loss, x.detach())
    return torch.autograd.grad(x, logits, v)


def _weighs_scores(estimator: Estimator) -> bool:
    return estimator.score_weights(torch.zeros(2)) is not None


def _score_function(
    network: DeepNetwork, estimator: Estimator, n: int, generator: Generator | None
) -> tuple[Tensor, ...]:
    """Weight the scores of all layers by the loss of m samples of the whole network."""
    m, scores = estimator.calls(1), []
    logits = _first(network, m * n)
    for above in (*network.layers[1:], None):
        p = probabilities(logits)
        x = draw_one_hot(p, generator)
        scores.append((x - p).unflatten(0, (m, n)))
        if above is not None:
            logits = above.logits(x.flatten(-2))
    value = evaluate(network.loss, x).unflatten(0, (m, n))
    weight = estimator.score_weights(value)
    assert weight is not None
    return tuple((weight[..., None, None] * score).sum(0) for score in scores)


def _layer_by_layer(
    network: DeepNetwork, estimator: ValueEstimator, n: int, generator: Generator | None
) -> tuple[Tensor, ...]:
    """Put the estimator to each layer, given a sample below, with the layers above as a random f.

    Their noise is independent of the layer's sample: the mean over it is the expected loss.
    """
    logits, found = _first(network, n), []
    for index in range(network.depth):

        def f(x: Tensor, index: int = index) -> Tensor:
            return _above(network, index, x, generator)

        found.append(estimator.estimate(f, estimator.accepted(logits), 1, generator)[1][0])
        if index + 1 < network.depth:
            x = draw_one_hot(probabilities(logits), generator)
            logits = network.layers[index + 1].logits(x.flatten(-2))
    return tuple(found)


def _first(network: DeepNetwork, n: int) -> Float[Tensor, "n B N C"]:
    logits = network.layers[0].logits(network.inputs).detach()
    return logits.expand(n, *logits.shape)


def _above(
    network: DeepNetwork, index: int, x: Float[Tensor, "*batch B N C"], generator: Generator | None
) -> Float[Tensor, "*batch B"]:
    """Return the loss for samples of all layers above layer `index`, whose states x are given."""
    for layer in network.layers[index + 1 :]:
        x = draw_one_hot(probabilities(layer.logits(x.flatten(-2))), generator)
    return evaluate(network.loss, x)
