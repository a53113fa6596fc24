"""A small classification task for deep stochastic networks, trained with the exact gradient.

Points on a circle, their classes alternating by quadrant, so that no layer alone can tell them
apart; all that is random comes from the seed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.figures.depth.network import DeepNetwork, Layer, expected_loss
from gradlab.problems.base import normal
from gradlab.reproducible import seeded, single_thread

__all__ = ["Readout", "classification", "training"]


@dataclass(frozen=True, eq=False)
class Readout:
    r"""The negative log likelihood of a target class for each input, in nats.

    .. math:: f_b(x) = -\log softmax(x^T W + c)_{t_b}

    `weight` W [N C, K], `bias` c [K], `targets` t [B].
    """

    weight: Float[Tensor, "NC K"]
    bias: Float[Tensor, " K"]
    targets: Int[Tensor, " B"]

    def __call__(self, x: Float[Tensor, "*batch B N C"]) -> Float[Tensor, "*batch B"]:
        """Return the cross-entropy of each element of the batch."""
        log_p = torch.log_softmax(x.flatten(-2) @ self.weight + self.bias, -1)
        index = self.targets.expand(log_p.shape[:-1]).unsqueeze(-1)
        return -log_p.gather(-1, index).squeeze(-1)


def classification(
    depth: int,
    variables: int = 5,
    classes: int = 2,
    seed: int = 0,
    *,
    inputs: int = 8,
    hidden: int = 0,
    gain: float = 4.0,
) -> DeepNetwork:
    """Return a random network of `depth` equal layers on `inputs` points of a circle, two targets.

    Weights are normal, scaled so that logits have the standard deviation `gain`; `hidden` is the
    number of tanh features that a layer adds to the one-hot numbers below. Raises ValueError for a
    size below 1 or a gain that is not positive.
    """
    sizes = {"depth": depth, "variables": variables, "classes": classes, "inputs": inputs}
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value!r}")
    if not gain > 0 or hidden < 0:
        raise ValueError(f"gain must be positive and hidden >= 0, not {gain!r} and {hidden!r}")
    generator = seeded(f"deep classification {depth} {variables} {classes} {hidden}", seed)
    angle = 2 * torch.pi * (torch.arange(inputs, dtype=torch.float64) + 0.5) / inputs
    points = torch.stack([angle.cos(), angle.sin()], -1)
    numbers, width, active = variables * classes, 2, 1
    layers = []
    for _ in range(depth):
        mixing = normal(generator, width, hidden) / active**0.5 if hidden else None
        weight = gain * normal(generator, width + hidden, numbers) / (active + hidden) ** 0.5
        layers.append(Layer(normal(generator, variables, classes) / 2, weight, mixing))
        width, active = numbers, variables
    readout = normal(generator, numbers, 2) / variables**0.5
    targets = (4 * torch.arange(inputs) // inputs) % 2
    bias = torch.zeros(2, dtype=torch.float64)
    return DeepNetwork(tuple(layers), Readout(readout, bias, targets), points)


def training(
    network: DeepNetwork, steps: Iterable[int] = (0, 10, 100, 1000), rate: float = 0.02
) -> Iterator[tuple[int, DeepNetwork]]:
    """Yield the network after each number of steps of Adam on the exact mean loss of all inputs.

    All parameters of its layers and of its `Readout` are trained; nothing is random. Raises
    ValueError unless the steps increase from 0 on, TypeError for a loss that is not a Readout.
    """
    steps = list(steps)
    if any(b <= a for a, b in zip([-1, *steps], steps, strict=False)):
        raise ValueError(f"steps must increase from 0 on, not {steps}")
    if not isinstance(network.loss, Readout):
        raise TypeError(f"the network's loss must be a Readout, not {type(network.loss).__name__}")
    learned = _copy(network)
    parameters = [
        tensor.requires_grad_()
        for part in (*learned.layers, learned.loss)
        for tensor in vars(part).values()
        if tensor is not None and tensor.is_floating_point()
    ]
    adam = torch.optim.Adam(parameters, lr=rate)
    done = 0
    with single_thread(), torch.enable_grad():
        for wanted in steps:
            for _ in range(wanted - done):
                adam.zero_grad()
                expected_loss(learned).mean().backward()
                adam.step()
            done = wanted
            yield wanted, _copy(learned)


def _copy(network: DeepNetwork) -> DeepNetwork:
    """Return a network of copies of all tensors, outside of any graph."""

    def copied(part: Layer | Readout) -> dict[str, Any]:
        tensors = vars(part).items()
        return {name: None if t is None else t.detach().clone() for name, t in tensors}

    assert isinstance(network.loss, Readout)
    layers = tuple(Layer(**copied(layer)) for layer in network.layers)
    return DeepNetwork(layers, Readout(**copied(network.loss)), network.inputs)
