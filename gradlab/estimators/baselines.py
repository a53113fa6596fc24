r"""REINFORCE with baselines that are learned: from earlier values of f, or from other variables.

A baseline may depend on anything but the class of its own variable in the sample that it corrects.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import draw_one_hot, one_hot, probabilities
from gradlab.checks import check_int
from gradlab.estimators.score_function import Reinforce
from gradlab.estimators.values import Batch, Estimates, SampledValueEstimator, Tuples
from gradlab.loss import Loss, evaluate

__all__ = ["LearnedBaseline", "MovingAverage"]

# Numbers of the normal equations of a fit, [N, N C + 1, N C + 1].
_LARGEST_FIT = 2**24


@dataclass(frozen=True, repr=False)
class MovingAverage(Reinforce):
    r"""EMA: REINFORCE with the moving average of the values of earlier samples as baseline.

    .. math:: \hat g_t = (f(x_t) - b_t)(x_t - p), \quad b_{t+1} = \beta b_t + (1 - \beta) f(x_t)

    Unbiased for every f and every decay beta; one evaluation. The estimator is frozen at b_t: after
    a step `estimator = estimator.updated(values)` gives that of the next one. The order matters:
    published code that updates b first, so that it contains the own sample, shrinks the mean to
    beta times the gradient (1 - (1 - beta)/B with the mean of B samples). Williams 1992 (Machine
    Learning 8).

    Args:
        baseline: What f is reduced by; `fit` finds the best one.
        decay: Share of the old baseline in the next one, in [0, 1).

    Example:
        >>> MovingAverage(baseline=0.0, decay=0.9)
        EMA(baseline=0, decay=0.9)
    """

    decay: float = 0.9

    name: ClassVar[str] = "EMA"
    running_field: ClassVar[str | None] = "baseline"
    aliases: ClassVar[tuple[str, ...]] = ("Moving-Average",)
    family: ClassVar[str] = "score function"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.decay, int | float) or not 0 <= self.decay < 1:
            raise ValueError(f"decay must be a number in [0, 1), not {self.decay!r}")

    def updated(self, values: Float[Tensor, "*batch"]) -> "MovingAverage":
        """Return the estimator of the next step, after one in which f had these values."""
        mean = float(values.detach().to(torch.float64).mean())
        return self.with_(baseline=self.decay * self.baseline + (1 - self.decay) * mean)

    def fit(
        self,
        f: Loss,
        logits: Float[Tensor, "N C"],
        draws: int = 4096,
        generator: Generator | None = None,
        *,
        steps: int | None = None,
    ) -> "MovingAverage":
        """Return the estimator after `draws` steps of one sample each at these logits."""
        values = _values(f, logits, draws, generator)[1]
        age = torch.arange(draws - 1, -1, -1, dtype=torch.float64, device=values.device)
        average = (1 - self.decay) * float(values @ self.decay**age)
        return self.with_(baseline=self.decay**draws * self.baseline + average)


@dataclass(frozen=True, repr=False)
class LearnedBaseline(SampledValueEstimator):
    r"""LEARNED: REINFORCE with a baseline a variable, linear in the other variables and fitted.

    .. math:: \hat g_i = (f(x) - b_i(x_{-i}))\,(x_i - p_i), \quad
              b_i = w_{i0} + \sum_{j \ne i} w_{ij} \cdot x_j

    Unbiased for every f and all w, as b_i does not see x_i; one evaluation. `fit` finds the w of
    least variance by weighted least squares; before, b = 0. Fitted at some logits it stays unbiased
    at all others of their shape. A linear instance of Mnih & Gregor 2014 (1402.0030), without their
    division by a running deviation, which scales the mean.

    Args:
        weights: What `fit` found, one row per variable.

    Example:
        >>> LearnedBaseline()
        LEARNED
    """

    weights: tuple[tuple[float, ...], ...] = ()

    name: ClassVar[str] = "LEARNED"
    fitted_fields: ClassVar[tuple[str, ...]] = ("weights",)
    learned_fields: ClassVar[tuple[str, ...]] = ("weights",)
    family: ClassVar[str] = "score function"
    reference: ClassVar[str] = "Mnih & Gregor 2014, arXiv 1402.0030"

    def refusal(self, logits: Float[Tensor, "*batch N C"]) -> str | None:
        """Return the reason why the weights do not fit logits of this shape, or None."""
        variables, classes = logits.shape[-2:]
        fitted = len(self.weights), len(self.weights[0]) if self.weights else 0
        if fitted in ((0, 0), (variables, variables * classes + 1)):
            return None
        return (
            f"this LEARNED is fitted to {fitted[0]} variables of {(fitted[1] - 1) // fitted[0]} "
            f"classes, not {variables} of {classes}; fit it again"
        )

    def estimate_at(self, f: Loss, logits: Batch, classes: Tuples) -> Estimates:
        """Return n replicates of f(x) and of the estimate."""
        p = probabilities(logits.detach())
        x = one_hot(classes[0], p)
        value = evaluate(f, x.to(logits.dtype))
        weight = value.detach().to(p.dtype).unsqueeze(-1)
        if self.weights:
            w = torch.tensor(self.weights, dtype=p.dtype, device=p.device)
            weight = weight - w[:, 0] - x.flatten(-2) @ w[:, 1:].T
        return value, (weight.unsqueeze(-1) * (x - p)).to(logits.dtype)

    def fit(
        self,
        f: Loss,
        logits: Float[Tensor, "N C"],
        draws: int = 4096,
        generator: Generator | None = None,
        *,
        steps: int | None = None,
    ) -> "LearnedBaseline":
        """Return this estimator with the w that minimize E |s_i|^2 (f - b_i)^2 over the draws.

        Raises ValueError for bad `draws`, or where the N equations of N C + 1 unknowns would fill
        the memory, and what f raises.
        """
        variables, classes = logits.shape
        unknowns = variables * classes + 1
        if variables * unknowns**2 > _LARGEST_FIT:
            raise ValueError(
                f"a fit of LEARNED solves {variables} systems of {unknowns} equations: more than "
                f"{_LARGEST_FIT} numbers; use RF(m=4) instead"
            )
        x, values = _values(f, logits, draws, generator)
        p = probabilities(logits.detach()).to(torch.float64)
        square = (x - p).square().sum(-1)
        features = torch.cat([x.new_ones(draws, 1), x.flatten(-2)], -1)
        own = torch.eye(variables, device=x.device).repeat_interleave(classes, 1)
        seen = 1 - torch.nn.functional.pad(own, (1, 0)).to(x.dtype)  # [N, N C + 1]
        weighted = features.T @ (square.T.unsqueeze(-1) * features)
        normal = weighted * seen.unsqueeze(-1) * seen.unsqueeze(-2)
        right = ((square * values.unsqueeze(-1)).T @ features) * seen
        # One-hot rows add up to 1, so that solutions are many: the shortest one.
        w = (torch.linalg.pinv(normal, rtol=1e-10, hermitian=True) @ right.unsqueeze(-1)).squeeze(
            -1
        )
        return self.with_(weights=tuple(tuple(row) for row in (w * seen).tolist()))


def _values(
    f: Loss, logits: Tensor, draws: int, generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """Return samples of x and f there, both float64."""
    check_int("draws", draws, 1)
    x = draw_one_hot(probabilities(logits.detach().to(torch.float64)), generator, draws)
    with torch.no_grad():
        return x, evaluate(f, x).to(torch.float64)
