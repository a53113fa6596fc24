r"""Losses that see the parameters of the distribution of x beside the sample: f(x, logits).

.. math:: \nabla E f(x, \theta) = E[f\,s] + E[\partial f/\partial\theta], \qquad
          s = \nabla_\theta \log p(x; \theta)

A loss sees the parameters if, and only if, it is marked by `with_parameters`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from gradlab.loss.contract import SecondArgumentError, wants_more

__all__ = ["BoundLoss", "ParameterLoss", "with_parameters"]

# What users call the parameters: a later argument of such a name is the one that was meant.
_NAMES = {"logits", "parameters", "theta", "params"}


@dataclass(frozen=True, eq=False)
class ParameterLoss:
    """A loss f(x, parameters), as `with_parameters` marks it.

    Args:
        f: The function that was marked.

    Example:
        >>> import torch
        >>> f = ParameterLoss(lambda x, logits: (x * logits).sum((-2, -1)))
        >>> f(torch.eye(2), torch.ones(2, 2))
        tensor(2.)
    """

    f: Callable[[Tensor, Any], Tensor]

    def __call__(self, x: Float[Tensor, "*batch N C"], *parameters: Any) -> Float[Tensor, "*batch"]:
        """Return f(x, parameters)."""
        if len(parameters) != 1:
            raise SecondArgumentError(
                f"{_name(self.f)} is marked by gradlab.with_parameters and needs the parameters as "
                f"its second argument: call it as f(x, logits), not with {1 + len(parameters)} "
                "arguments. What wraps it (functools.partial, a decorator, a lambda) must be "
                "marked itself"
            )
        return self.f(x, *parameters)

    def __getattr__(self, name: str) -> Any:
        # What f declares, such as name and degree.
        if name.startswith("__") or "f" not in vars(self):
            raise AttributeError(name)
        return getattr(self.f, name)

    @property
    def name(self) -> str:
        """What rows call it: the name of f."""
        return _name(self.f)

    def at(self, parameters: Any) -> "BoundLoss":
        """Return the loss of x alone at these parameters, whose graph its values keep."""
        return BoundLoss(self, parameters)


@dataclass(frozen=True, eq=False)
class BoundLoss:
    """A loss f(x, parameters) at given parameters: a function of x whose graph reaches them.

    Args:
        second: The loss of two arguments.
        parameters: The second of them.

    Example:
        >>> import torch
        >>> f = ParameterLoss(lambda x, logits: (x * logits).sum((-2, -1)))
        >>> f.at(torch.ones(2, 2))(torch.eye(2))
        tensor(2.)
    """

    second: ParameterLoss
    parameters: Any

    def __call__(
        self, x: Float[Tensor, "*batch N C"], *parameters: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*batch"]:
        """Return f(x, parameters) at the given parameters, or at others."""
        return self.second(x, *(parameters or (self.parameters,)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "second" not in vars(self):
            raise AttributeError(name)
        return getattr(self.second, name)

    def at(self, parameters: Any) -> "BoundLoss":
        """Return the loss at other parameters."""
        return BoundLoss(self.second, parameters)


def with_parameters(f: Callable[[Tensor, Any], Tensor]) -> ParameterLoss:
    r"""Mark a loss f(x, logits) that sees the parameters beside the sample; also a decorator.

    A loss sees the parameters if, and only if, it is marked; gradlab then calls f(x, logits), both
    by position. What an unmarked loss is called with is x alone, whatever optional arguments it
    has. The gradient of such a loss is

    .. math:: \nabla E f = E[f\,s] + E[\partial f/\partial\,logits]

    Estimators estimate the first part. The second flows through the graph of f, once, into every
    truth, draw and surrogate. What f detaches is a constant, and so is all of f that runs under
    `torch.no_grad`.

    f must be elementwise over the batch in both arguments: it is given x [..., N, C] with logits
    [N, C], or with more axes in front, which broadcast against those of x, and reduces over the
    last two axes only. With `distribution=` it is given the parameters as they are.

    Args:
        f: A function of x and the logits, by position; an nn.Module, a bound method or a partial
            may be one too.

    Returns:
        The marked loss; call it as f(x, logits).

    Raises:
        TypeError: If f cannot be called with two positional arguments, or its second one is
            optional and another is called logits.

    Example:
        >>> import gradlab, torch
        >>> @gradlab.with_parameters
        ... def f(x, logits):  # minus the entropy of the second class
        ...     return x[..., 1].sum(-1) * torch.log_softmax(logits, -1)[..., 1].sum(-1)
        >>> gradlab.exact_gradient(f, torch.zeros(1, 2)).round(decimals=3)
        tensor([[-0.0770,  0.0770]], dtype=torch.float64)
    """
    if isinstance(f, ParameterLoss):
        return f
    if isinstance(f, type) or not callable(f):
        raise TypeError(f"with_parameters marks a function f(x, logits), not {f!r}")
    try:
        signature = inspect.signature(f.forward if isinstance(f, nn.Module) else f)
    except (TypeError, ValueError):  # of compiled code: it shows at the first call
        return ParameterLoss(f)
    if wants_more(f, 2):
        raise TypeError(
            f"{_name(f)}{signature} cannot be called as f(x, logits), with two positional "
            "arguments: write def f(x, logits), or mark lambda x, logits: f(x, logits=logits)"
        )
    arguments = list(signature.parameters.values())
    second = arguments[1] if len(arguments) > 1 else arguments[0]
    later = sorted(_NAMES & {argument.name for argument in arguments[2:]})
    if later and second.name not in _NAMES:
        raise TypeError(
            f"{_name(f)}{signature} would be given the logits as {second.name}, and it also has an "
            f"argument {later[0]}: put {later[0]} second, or mark lambda x, logits: f(x, "
            f"{later[0]}=logits)"
        )
    return ParameterLoss(f)


def _name(f: Any) -> str:
    return str(getattr(f, "name", None) or getattr(f, "__name__", None) or type(f).__name__)
