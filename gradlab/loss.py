"""The loss contract: f maps one-hot (or relaxed) x [..., N, C] to values [...].

What every caller of a user's f needs: its values and its gradient in x, with the faults of f named.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.categorical import is_readable

__all__ = [
    "Loss",
    "LossError",
    "NotDifferentiableError",
    "evaluate",
    "gradient",
    "value_and_gradient",
    "why_no_gradient",
]

Loss = Callable[[Tensor], Tensor]


class LossError(ValueError):
    """The loss f broke its contract: a wrong type or shape, or values that are not finite."""


class NotDifferentiableError(LossError):
    """The loss f has no gradient in x, and the estimator needs one."""

    def __init__(self) -> None:
        super().__init__(
            "f is not differentiable: f(x) does not depend on x through differentiable torch "
            "operations; use a score-function estimator such as RF(m=4)"
        )


def evaluate(f: Loss, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
    """Return f(x), checked to be one finite value for each x.

    Raises LossError if f returns no floating tensor of shape x.shape[:-2], does not work in the
    dtype of x, or returns NaN or an infinity (the message shows for which x).
    """
    if not callable(f):
        raise TypeError(f"f must be a callable x -> values, not {type(f).__name__}")
    try:
        values = f(x)
    except RuntimeError as error:
        if "dtype" not in str(error) and "scalar type" not in str(error):
            raise
        raise LossError(
            f"f failed on x of {x.dtype} ({error}); the exact engine and compare work in float64: "
            "let f follow the dtype of x, for a module by f.double()"
        ) from error
    if not isinstance(values, Tensor) or not values.is_floating_point():
        kind = f"a {values.dtype} tensor" if isinstance(values, Tensor) else repr(type(values))
        raise LossError(f"f must return a floating-point tensor, not {kind}")
    if values.shape != x.shape[:-2]:
        raise LossError(
            f"f must return one value for each x: shape {list(x.shape[:-2])} for x of shape "
            f"{list(x.shape)}, not {list(values.shape)}; reduce over the last two axes only"
        )
    if is_readable(values) and not torch.isfinite(values.detach().sum()):
        _refuse_not_finite("f(x)", values.detach(), x)
    return values


def gradient(f: Loss, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch N C"]:
    """Return grad f(x) with respect to x, for every x of the batch at once.

    Raises NotDifferentiableError if f(x) does not depend on x through differentiable operations,
    LossError if the gradient is not finite, and what `evaluate` raises.
    """
    return value_and_gradient(f, x, keep_graph=False)[1]


def value_and_gradient(
    f: Loss, x: Float[Tensor, "*batch N C"], *, keep_graph: bool = True
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch N C"]]:
    """Return f(x), with its graph for the parameters of f, and grad f(x), from one evaluation.

    Raises what `gradient` raises.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        values = evaluate(f, x)
        v = None
        if values.requires_grad:
            ones = torch.ones_like(values)
            (v,) = torch.autograd.grad(values, x, ones, keep_graph, allow_unused=True)
    if v is None:
        raise NotDifferentiableError
    if not torch.isfinite(v.sum()):
        _refuse_not_finite("grad f(x)", v.sum((-2, -1)), x.detach())
    return values, v


def why_no_gradient(f: Loss, x: Float[Tensor, "*batch N C"]) -> str | None:
    """Return the reason why f has no gradient at x, or None if it has one."""
    try:
        gradient(f, x)
    except NotDifferentiableError as error:
        return str(error)
    return None


def _refuse_not_finite(what: str, values: Tensor, x: Tensor) -> None:
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad) == 0:
        return  # only the sum overflowed
    first = tuple(bad[0].tolist())
    row = x.detach()[first]
    one_hot = bool(((row == 0) | (row == 1)).all())
    shown = f"classes {row.argmax(-1).tolist()}" if one_hot else f"relaxed x = {row.tolist()}"
    raise LossError(f"{what} is {values[first].item()} for {shown}; it must be finite")
