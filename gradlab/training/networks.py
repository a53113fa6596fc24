"""Classifiers with stochastic quantized activations or weights: a perceptron and a small conv net.

In every hidden layer the sums are normalized before they are quantized.
"""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gradlab.checks import check_choice
from gradlab.estimators import Estimator
from gradlab.nn.layer import Evaluation
from gradlab.nn.quantization import Quantizer

__all__ = ["MODELS", "Model", "QuantizedNetwork", "WeightLayer"]

Model = Literal["mlp", "conv"]

MODELS: tuple[str, ...] = get_args(Model)
"""mlp: 784-500-500; conv: 32C5-MP2-64C5-MP2-512FC; both with one output a class after that."""


class WeightLayer(nn.Module):
    """A linear layer, or a convolution that keeps the size, of real or quantized weights.

    Quantized weights are levels divided by sqrt(inputs of a unit), drawn once per call. What is
    trained is one latent number for each weight.

    Args:
        shape: Outputs x inputs, or outputs x inputs x side x side for a convolution.
        quantizer: Draws the weights; None for real weights.
        bias: Whether to add a trained bias to each output.
        generator: The source of the initial weights; torch's global generator by default.

    Example:
        >>> WeightLayer((2, 3))(torch.zeros(4, 3)).shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        quantizer: Quantizer | None = None,
        bias: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        limit = 1 / math.sqrt(math.prod(shape[1:]))
        self.quantizer = quantizer
        self.scale = 1.0 if quantizer is None else limit
        # Real weights as torch draws them; latent ones between the outer levels.
        reach = 1.0 if quantizer is not None else limit
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-reach, reach, generator=generator))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None

    def forward(self, h: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Return the weighted sums.

        Args:
            h: Inputs [B, inputs], or [B, inputs, height, width] for a convolution.

        Returns:
            Sums [B, outputs], or [B, outputs, height, width].
        """
        weight = self.weight
        if self.quantizer is not None:
            weight = self.quantizer(weight) * self.scale
        if weight.ndim == 2:
            return F.linear(h, weight, self.bias)
        return F.conv2d(h, weight, self.bias, padding=weight.shape[-1] // 2)


class QuantizedNetwork(nn.Module):
    """A classifier of images whose hidden units and/or weights are random levels in [-1, 1].

    A hidden layer consists of weighted sums, batch normalization and levels, or ReLU where
    `activations` is False. In a convolution the largest sum of each 2x2 is taken before the
    quantizer, which so draws 4 times fewer variables. The normalization matches the sums to the
    fixed levels and noise. Without it sums of hundreds of levels would saturate nearly every unit.
    Its learned scale is the inverse temperature of the unit. The last sums and biases are always
    real.

    Args:
        model: "mlp" or "conv", see `MODELS`.
        estimator: An estimator with a sample, or its text such as "ZGR".
        levels: L, the number of levels, at least 2.
        activations: Whether the hidden units are quantized.
        weights: Whether the weights of all layers are quantized.
        classes: The number of classes of the images.
        generator: The source of the initial weights; torch's global generator by default.

    Raises:
        ValueError: If the model is unknown, the estimator has no sample, or there are fewer than 2
            levels.

    Example:
        >>> QuantizedNetwork("mlp", "ZGR")(torch.zeros(2, 784)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        model: str,
        estimator: Estimator | str,
        *,
        levels: int = 2,
        activations: bool = True,
        weights: bool = False,
        classes: int = 10,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        check_choice("model", model, MODELS)

        def weighted(*shape: int, bias: bool = False) -> WeightLayer:
            quantizer = Quantizer(estimator, levels) if weights else None
            return WeightLayer(shape, quantizer, bias, generator)

        def activation() -> nn.Module:
            return Quantizer(estimator, levels) if activations else nn.ReLU()

        hidden: list[nn.Module]
        if model == "mlp":
            hidden = []
            for inputs, outputs in ((784, 500), (500, 500)):
                hidden += [weighted(outputs, inputs), nn.BatchNorm1d(outputs), activation()]
        else:
            hidden = [nn.Unflatten(-1, (1, 28, 28))]
            for inputs, outputs in ((1, 32), (32, 64)):
                sums = weighted(outputs, inputs, 5, 5)
                hidden += [sums, nn.MaxPool2d(2), nn.BatchNorm2d(outputs), activation()]
            hidden += [nn.Flatten(), weighted(512, 64 * 7 * 7), nn.BatchNorm1d(512), activation()]
        last = 500 if model == "mlp" else 512
        self.layers = nn.Sequential(*hidden, weighted(classes, last, bias=True))

    def forward(self, images: Float[Tensor, "B 784"]) -> Float[Tensor, "B classes"]:
        """Return the logits of the classes.

        Args:
            images: Grey images in [0, 1], [B, 784].

        Returns:
            Logits [B, classes].
        """
        logits: Tensor = self.layers(2 * images - 1)
        return logits

    def draw_from(self, generator: Generator | None, evaluation: str = "sample") -> None:
        """Make all layers draw from `generator`.

        Args:
            generator: The source of all samples.
            evaluation: What eval mode takes: "sample", a draw, or "mode", the most probable level.
        """
        for module in self.modules():
            if isinstance(module, Quantizer):
                module.layer.generator = generator
                module.layer.evaluation = Evaluation(evaluation)

    @staticmethod
    def variables(model: str, activations: bool, weights: bool, batch: int) -> int:
        """Return how many variables the largest quantizer draws at once.

        Args:
            model: "mlp" or "conv".
            activations: Whether the hidden units are quantized.
            weights: Whether the weights are quantized.
            batch: The number of images.

        Returns:
            The number of variables.
        """
        units, connections = _LARGEST[model]
        return max(activations * units * batch, weights * connections)


# Units of the largest layer of an image, weights of the largest layer.
_LARGEST = {"mlp": (500, 500 * 784), "conv": (32 * 14 * 14, 512 * 64 * 7 * 7)}
