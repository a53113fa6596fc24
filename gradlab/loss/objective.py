"""A loss as the engine calls it, after it has passed the gate."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.loss.contract import Loss
from gradlab.loss.two_arguments import BoundLoss, ParameterLoss

__all__ = ["Objective", "bound", "name_of", "sees_parameters"]


@dataclass(frozen=True, eq=False)
class Objective:
    """A loss that has passed the gate; called with float64 x on the CPU, as the engine has them.

    f itself is given x in the `dtype` and on the `device` of the logits of the caller. Its values
    come back as they are.

    Args:
        f: The loss of x alone.
        dtype: The dtype of the x that f is given.
        device: The device of the x that f is given.
        batch: B where f maps [..., B, N, C] to [..., B], else None.
        eps: The rounding unit of the coarsest arithmetic that is seen in f.
        parameters: Whether the values have a graph to anything that is trained.
        caller: The dtype of the caller's logits, where f is a table of float64 made for them.
        second: f(x, parameters), where it sees them; `f` is it at those of the caller.
    """

    f: Loss
    dtype: torch.dtype
    device: torch.device
    batch: int | None
    eps: float
    parameters: bool = False
    caller: torch.dtype | None = None
    second: Callable[..., Tensor] | None = None

    @property
    def trained(self) -> torch.dtype:
        """The dtype of the logits that are trained."""
        return self.dtype if self.caller is None else self.caller

    def __call__(
        self, x: Float[Tensor, "*batch N C"], *parameters: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*batch"]:
        """Return f(x), in the precision of x or its own, whichever is finer.

        Where f sees the parameters, f(x, parameters) is its value at others.
        """
        f = self.at(*parameters).f if parameters else self.f
        values = f(x.to(self.device, self.dtype))
        if not isinstance(values, Tensor) or not values.is_floating_point():
            return values  # named by `evaluate`
        return values.to(x.device, torch.promote_types(values.dtype, x.dtype))

    def __getattr__(self, name: str) -> Any:
        # What problems declare, such as name and degree.
        if name.startswith("__") or "f" not in vars(self):
            raise AttributeError(name)
        return getattr(self.f, name)

    def at(self, parameters: Float[Tensor, "*shape"]) -> "Objective":
        """Return f at these parameters, whose graph its values keep; f itself if it sees none."""
        if self.second is None:
            return self
        second = ParameterLoss(self.second)
        return replace(self, f=second.at(parameters.to(self.device, self.dtype)))

    def element(self, b: int) -> "Objective":
        """Return f of element b of a batch alone, x [..., N, C] -> [...]; the others repeat it."""

        def repeated(x: Tensor) -> Tensor:
            assert self.batch is not None
            return x.unsqueeze(-3).expand(*x.shape[:-2], self.batch, *x.shape[-2:])

        def of_one(x: Tensor) -> Tensor:
            return self.f(repeated(x))[..., b]

        def of_both(x: Tensor, parameters: Tensor) -> Tensor:
            assert self.second is not None
            return self.second(repeated(x), repeated(parameters))[..., b]

        second = None if self.second is None else of_both
        given = self.dtype, self.device, None, self.eps, self.parameters
        return Objective(of_one, *given, second=second)


def sees_parameters(f: object) -> bool:
    """Return whether a loss sees the parameters: it is marked, or made of such a loss.

    Args:
        f: A loss.

    Example:
        >>> from gradlab.loss import with_parameters
        >>> sees_parameters(abs), sees_parameters(with_parameters(max))
        (False, True)
    """
    if isinstance(f, Objective):
        return f.second is not None
    return isinstance(f, ParameterLoss | BoundLoss)


def bound(f: Loss, parameters: Float[Tensor, "*shape"]) -> Loss:
    """Return a loss of x alone at these parameters, with their graph, if it sees them; else f.

    Args:
        f: A loss.
        parameters: What its values are to have a graph to.

    Example:
        >>> from gradlab.loss import with_parameters
        >>> f = with_parameters(lambda x, logits: (x * logits).sum((-2, -1)))
        >>> bound(f, torch.ones(2, 2))(torch.eye(2))
        tensor(2.)
    """
    return f.at(parameters) if sees_parameters(f) else f  # type: ignore[attr-defined]


def name_of(f: Loss) -> str:
    """Return the name of a loss in rows and verdicts.

    Args:
        f: The loss.

    Returns:
        Its `name`, or the name of its function or class.

    Example:
        >>> name_of(abs)
        'abs'
    """
    inner = f.f if isinstance(f, Objective) else f
    return str(
        getattr(inner, "name", None) or getattr(inner, "__name__", None) or type(inner).__name__
    )
