r"""Stochastic networks of L dependent layers of categorical variables, and their exact gradient.

The gradient comes from two sets of messages over the states of single layers, forward
probabilities q and backward expected losses, so that the cost is a sum over pairs of neighbouring
layers and not over the paths through all of them.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import check_logits, configurations, joint_of_all, probabilities
from gradlab.exact.enumeration import TooLargeError
from gradlab.loss import Loss, evaluate
from gradlab.reproducible import single_thread

__all__ = [
    "MAX_NUMBERS",
    "DeepNetwork",
    "Layer",
    "LayerGradient",
    "Messages",
    "exact_gradients",
    "expected_loss",
    "state_probabilities",
    "states",
]

MAX_NUMBERS = 2**24
"""How many float64 numbers a table between two neighbouring layers may hold."""


@dataclass(frozen=True, eq=False)
class Layer:
    r"""N categorical variables of C classes, their logits a function of the layer below.

    .. math:: logits(h) = b + W^T [h;\, \tanh(A^T h)]

    `bias` b [N, C], where -inf masks a class; `weight` W [F, N C]; `mixing` A [D, H], with D
    numbers below and F = D + H, or None for an affine layer (F = D). float64. Raises ValueError
    where the shapes do not fit, and what `check_logits` raises for `bias`.
    """

    bias: Float[Tensor, "N C"]
    weight: Float[Tensor, "F NC"]
    mixing: Float[Tensor, "D H"] | None = None

    def __post_init__(self) -> None:
        check_logits(self.bias, ndim=2)
        if self.weight.ndim != 2 or self.weight.shape[1] != self.bias.numel():
            raise ValueError(
                f"weight must have shape [F, N C = {self.bias.numel()}], "
                f"not {list(self.weight.shape)}"
            )
        if self.mixing is not None and sum(self.mixing.shape) != len(self.weight):
            raise ValueError(
                f"mixing of shape {list(self.mixing.shape)} makes {sum(self.mixing.shape)} "
                f"features of the numbers below, but weight has {len(self.weight)} rows"
            )

    @property
    def below(self) -> int:
        """How many numbers D the layer takes from below."""
        return len(self.weight) if self.mixing is None else len(self.mixing)

    def features(self, h: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch F"]:
        """Return [h; tanh(A^T h)], or h itself where there is no `mixing`."""
        return h if self.mixing is None else torch.cat([h, torch.tanh(h @ self.mixing)], -1)

    def logits(self, h: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch N C"]:
        """Return the logits of the layer's variables given the numbers below."""
        return (self.features(h) @ self.weight).unflatten(-1, self.bias.shape) + self.bias

    def pullback(
        self, h: Float[Tensor, "*#batch D"], g: Float[Tensor, "*batch N C"]
    ) -> Float[Tensor, "*batch D"]:
        """Return the gradient for h where the logits have the gradient g."""
        v = g.flatten(-2) @ self.weight.T
        if self.mixing is None:
            return v
        bent = 1 - torch.tanh(h @ self.mixing).square()
        return v[..., : self.below] + (bent * v[..., self.below :]) @ self.mixing.T


@dataclass(frozen=True, eq=False)
class DeepNetwork:
    """x_1 given an input, x_2 given x_1, ..., x_L given x_(L-1), and a loss f(x_L).

    `layers` from the input to the loss; `loss` takes x_L [..., B, N, C] to values [..., B], one for
    each of the B inputs; `inputs` [B, D]: by default one empty input, for which the first layer's
    logits are its bias. Raises ValueError where a layer does not fit what is below it.
    """

    layers: tuple[Layer, ...]
    loss: Loss
    inputs: Float[Tensor, "B D"] = field(
        default_factory=lambda: torch.zeros(1, 0, dtype=torch.float64)
    )

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers must hold at least one layer")
        size = self.inputs.shape[-1]
        for number, layer in enumerate(self.layers, 1):
            if layer.below != size:
                raise ValueError(
                    f"layer {number} takes {layer.below} numbers from below, where there are {size}"
                )
            size = layer.bias.numel()

    @property
    def depth(self) -> int:
        """How many layers L there are."""
        return len(self.layers)


def states(layer: Layer) -> Float[Tensor, "S N C"]:
    """Return all S = C^N states of a layer, one-hot, the last variable running fastest."""
    variables, classes = layer.bias.shape
    return torch.nn.functional.one_hot(configurations(variables, classes), classes).to(
        layer.bias.dtype
    )


def state_probabilities(logits: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch S"]:
    """Return the probabilities of all C^N states, in the order of `states`; differentiable."""
    return joint_of_all(probabilities(logits))


@dataclass(frozen=True, eq=False)
class Messages:
    """What passes between the layers of a network: tables over states, all float64.

    For each layer: `below` [S', D], the numbers below it in each state there (the inputs for the
    first layer); `here` [S, N, C], its own states; `transition` [S', S]; `forward` [B, S'], the
    probability of the states below for each input.
    """

    below: list[Tensor]
    here: list[Tensor]
    transition: list[Tensor]
    forward: list[Tensor]
    last: Float[Tensor, "B S"]

    @classmethod
    def of(cls, network: DeepNetwork) -> "Messages":
        """Return the forward messages; raises TooLargeError where a table would be too large."""
        _check_size(network)
        here = [states(layer) for layer in network.layers]
        below = [network.inputs, *(x.flatten(1) for x in here[:-1])]
        transition = [
            state_probabilities(layer.logits(h))
            for layer, h in zip(network.layers, below, strict=True)
        ]
        forward = [torch.eye(len(network.inputs), dtype=network.inputs.dtype)]
        for table in transition:
            forward.append(forward[-1] @ table)
        return cls(below, here, transition, forward[:-1], forward[-1])

    def at_last(self, inputs: int) -> Float[Tensor, "S B N C"]:
        """Return the last layer's states, each once for every input, as the loss takes them."""
        return self.here[-1][:, None].expand(-1, inputs, -1, -1)


def expected_loss(network: DeepNetwork) -> Float[Tensor, " B"]:
    """Return E f for each input by forward messages; its backward differentiates through them.

    Raises TooLargeError for layers of too many states, LossError for a bad loss.
    """
    messages = Messages.of(network)
    values = evaluate(network.loss, messages.at_last(len(network.inputs)))
    return (messages.last * values.T).sum(-1)


class LayerGradient(NamedTuple):
    """The gradient of E f for a layer's `bias` [B, N, C] and `weight` [B, F, N C], by input."""

    bias: Float[Tensor, "B N C"]
    weight: Float[Tensor, "B F NC"]


@single_thread()
@torch.no_grad()
def exact_gradients(network: DeepNetwork) -> tuple[LayerGradient, ...]:
    r"""Return the exact gradient of E f for every layer, by dynamic programming over layer states.

    .. math:: \partial_{logits} E f = \sum_{s'} q(s') \sum_s T(s, s')\,
              (\beta(s) - \beta'(s'))\,x_s, \quad \beta'(s') = \sum_s T(s, s') \beta(s)

    with q the probability of the state s' below and beta the expected loss given a state. The
    gradient for the bias is that for the logits. Raises TooLargeError for layers of too many
    states, LossError for a bad loss.
    """
    messages = Messages.of(network)
    beta = evaluate(network.loss, messages.at_last(len(network.inputs))).T
    # Centred: an offset of the loss would cost digits of small gradients.
    beta = beta - (messages.last * beta).sum(-1, keepdim=True)
    found = []
    for index in reversed(range(network.depth)):
        layer, x = network.layers[index], messages.here[index].flatten(1)
        table, h = messages.transition[index], messages.below[index]
        beta_below = beta @ table.T
        p = probabilities(layer.logits(h)).flatten(1)
        given = table @ (beta[..., None] * x) - beta_below[..., None] * p
        by_state = messages.forward[index][..., None] * given
        bias = by_state.sum(1).unflatten(-1, layer.bias.shape)
        found.append(LayerGradient(bias, layer.features(h).T @ by_state))
        beta = beta_below
    return tuple(reversed(found))


def _check_size(network: DeepNetwork) -> None:
    """Raise TooLargeError where the tables of a layer would not fit the memory."""
    inputs = len(network.inputs)
    below = math.log2(inputs)
    for number, layer in enumerate(network.layers, 1):
        variables, classes = layer.bias.shape
        here = variables * math.log2(classes)
        # Transitions [S', S], and the products [B, S, N C] on both sides of them.
        largest = max(below + here, max(below, here) + math.log2(inputs * layer.bias.numel()))
        if largest > math.log2(MAX_NUMBERS):
            raise TooLargeError(
                f"layer {number} ({variables} variables of {classes} classes, "
                f"2^{here:.1f} states on 2^{below:.1f} below, {inputs} inputs) needs tables of "
                f"2^{largest:.1f} numbers, more than 2^{math.log2(MAX_NUMBERS):.0f}; take fewer "
                "variables a layer or fewer inputs, or measure the gradient by a long run of "
                "deep_moments(network, LeaveOneOut(m=4), draws)"
            )
        below = here
