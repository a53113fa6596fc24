"""Stochastic quantization: a real number becomes one of L equally spaced levels, drawn at random.

Each number is a categorical variable of L classes, so any pathwise estimator trains through it.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gradlab.checks import check_int
from gradlab.estimators import Estimator
from gradlab.nn.layer import CategoricalLayer

__all__ = ["Quantizer", "level_logits", "level_values"]


def level_values(levels: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, " L"]:
    """Return the L values u_k = -1 + 2 k / (L - 1), from -1 to 1.

    Args:
        levels: L, the number of levels, at least 2.
        dtype: The type of the result.

    Returns:
        The values [L].

    Raises:
        ValueError: If there are fewer than 2 levels.

    Example:
        >>> level_values(5).tolist()
        [-1.0, -0.5, 0.0, 0.5, 1.0]
    """
    check_int("levels", levels, 2)
    return torch.linspace(-1, 1, levels, dtype=torch.float64).to(dtype)


def level_logits(a: Float[Tensor, "*batch"], levels: int) -> Float[Tensor, "*batch L"]:
    r"""Return logits of the level of each number: the discretized logistic distribution around a.

    .. math:: P(k) = \sigma(t_k) - \sigma(t_{k-1}), \quad t_k = (u_k + d/2 - a) / s, \quad
        t_{-1} = -\infty,\; t_{L-1} = \infty

    Here d = 2 / (L - 1) is the distance of levels and s = d / 4. So the level is a plus logistic
    noise, rounded to the nearest level. For L = 2 this is the stochastic binary unit P(+1) =
    sigma(2 a), whose mean is tanh(a). Source: Louizos et al. 2019, Relaxed Quantization
    (1810.01875).

    Args:
        a: Real numbers [...].
        levels: L, the number of levels, at least 2.

    Returns:
        Logits [..., L]. They and their gradients are finite for every finite a for which 2 L a is.

    Raises:
        ValueError: If there are fewer than 2 levels.

    Example:
        >>> level_logits(torch.tensor([0.0]), 3).softmax(-1)
        tensor([[0.1192, 0.7616, 0.1192]])
    """
    check_int("levels", levels, 2)
    if levels == 2:
        # log P up to a number that is common to both classes.
        return torch.stack([-a, a], -1)
    steps = torch.arange(levels - 1, dtype=torch.float64, device=a.device)
    bounds = (2 * steps + 1 - (levels - 1)) / (levels - 1)
    t = (bounds.to(a.dtype) - a.unsqueeze(-1)) * (2 * (levels - 1))
    # sigma(y) - sigma(x) = sigma(y) sigma(-x) (1 - e^(x - y)), and y - x = d / s = 4.
    below, above = F.logsigmoid(t), F.logsigmoid(-t)
    inner = below[..., 1:] + above[..., :-1] + math.log(-math.expm1(-4.0))
    return torch.cat([below[..., :1], inner, above[..., -1:]], -1)


class Quantizer(nn.Module):
    r"""Real numbers become random levels in [-1, 1], with an estimator's gradient.

    .. math:: x \sim P, \quad value = \textstyle\sum_k x_k u_k

    In training mode the sample is the estimator's own, which is a mixture of levels for GS. In eval
    mode it is what `layer.evaluation` says, as in `CategoricalLayer`.

    Args:
        estimator: An estimator with a sample, or its text such as "ZGR".
        levels: L, the number of levels, at least 2.

    Raises:
        ValueError: If the estimator has no sample, or there are fewer than 2 levels.

    Example:
        >>> quantizer = Quantizer("ZGR", levels=3)
        >>> quantizer.layer.generator = torch.Generator().manual_seed(0)
        >>> quantizer(torch.tensor([-2.0, 0.0, 2.0])).tolist()
        [-1.0, 0.0, 1.0]
    """

    values: Tensor

    def __init__(self, estimator: Estimator | str, levels: int = 2) -> None:
        super().__init__()
        self.layer = CategoricalLayer(estimator)
        # The levels follow from the settings: they need no place in a checkpoint.
        self.register_buffer("values", level_values(levels), persistent=False)

    def forward(self, a: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return the level of each number.

        Args:
            a: Real numbers [...].

        Returns:
            Levels [...], each in [-1, 1].
        """
        x = self.layer(level_logits(a, len(self.values)))
        value: Tensor = x @ self.values.to(x.dtype)
        return value

    def extra_repr(self) -> str:
        """Return the number of levels, for printing."""
        return f"levels={len(self.values)}"
