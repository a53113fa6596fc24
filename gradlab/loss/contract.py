"""The loss contract: f maps one-hot (or relaxed) x [..., N, C] to values [...].

What every caller of a user's f needs: its values and its gradient in x, with the faults of f named.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradlab.categorical import is_readable
from gradlab.loss.tabled import TabledLoss

__all__ = [
    "BatchDependentError",
    "ChangesInputError",
    "GradientModeError",
    "HoldsLogitsError",
    "Loss",
    "LossDtypeError",
    "LossError",
    "LossShapeError",
    "LossTypeError",
    "NotDifferentiableError",
    "NotFiniteError",
    "RandomLossError",
    "SecondArgumentError",
    "StatefulLossError",
    "evaluate",
    "gradient",
    "value_and_gradient",
    "wants_more",
    "weighted_sum",
    "why_no_gradient",
]

Loss = Callable[[Tensor], Tensor]


class LossError(ValueError):
    """The loss f broke its contract; each subclass is one way to break it."""


class LossTypeError(LossError):
    """The loss f returned something other than a floating-point tensor."""


class LossShapeError(LossError):
    """The loss f does not return one value for each x, or takes x with one batch axis only."""


class LossDtypeError(LossError):
    """The loss f does not work in the dtype of the logits."""


class NotFiniteError(LossError):
    """The loss f, or its gradient, is NaN or infinite at some x."""


class RandomLossError(LossError):
    """The loss f draws random numbers: two calls at the same x differ."""


class StatefulLossError(LossError):
    """The loss f keeps something from call to call that changes its values."""


class BatchDependentError(LossError):
    """The value of f at one x depends on the other x of the call, or on the shape of the batch."""


class HoldsLogitsError(LossError):
    """The loss f depends on the logits themselves, not only through the sample x."""


class SecondArgumentError(LossError):
    """The loss f has a second argument and is not marked, or is marked and called without it."""


class ChangesInputError(LossError):
    """The loss f writes into the x, or the logits, that it is given."""


class GradientModeError(LossError):
    """The loss f gives other values while torch records gradients."""


class NotDifferentiableError(LossError):
    """The loss f has no gradient in x, and the estimator needs one."""

    def __init__(self) -> None:
        super().__init__(
            "f is not differentiable: f(x) does not depend on x through differentiable torch "
            "operations; use a score-function estimator such as RF(m=4)"
        )


def evaluate(f: Loss, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
    """Return f(x), checked to be one finite value for each x.

    Args:
        f: The loss, x [..., N, C] -> values [...].
        x: One-hot or relaxed samples [..., N, C].

    Returns:
        The values [...].

    Raises:
        LossTypeError: If f does not return a floating tensor.
        LossShapeError: If its shape is not x.shape[:-2], or f takes one batch axis only.
        LossDtypeError: If f does not work in the dtype of x.
        SecondArgumentError: If f needs a second argument.
        NotFiniteError: If a value is NaN or infinite; the message shows for which x.

    Example:
        >>> evaluate(lambda x: x[..., 0].sum(-1), torch.eye(2))
        tensor(1.)
    """
    if not callable(f):
        raise TypeError(f"f must be a callable x -> values, not {type(f).__name__}")
    try:
        values = f(x)
    except LossError:
        raise
    except Exception as error:
        fault = _by_experiment(f, x, error)
        if fault is None:
            raise
        raise fault from error
    if not isinstance(values, Tensor) or not values.is_floating_point():
        kind = f"a {values.dtype} tensor" if isinstance(values, Tensor) else repr(type(values))
        raise LossTypeError(f"f must return a floating-point tensor, not {kind}")
    if values.shape != x.shape[:-2]:
        raise LossShapeError(
            f"f must return one value for each x: shape {list(x.shape[:-2])} for x of shape "
            f"{list(x.shape)}, not {list(values.shape)}; reduce over the last two axes only, "
            "not over the batch, or let gradlab.as_loss(f) do it"
        )
    if is_readable(values) and not math.isfinite(values.detach().sum().item()):
        _refuse_not_finite("f(x)", values.detach(), x)
    return values


def gradient(f: Loss, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch N C"]:
    """Return grad f(x) with respect to x, for every x of the batch at once.

    Args:
        f: The loss, x [..., N, C] -> values [...].
        x: One-hot or relaxed samples [..., N, C].

    Returns:
        The gradients [..., N, C].

    Raises:
        NotDifferentiableError: If f(x) does not depend on x through differentiable operations.
        LossError: If the gradient is not finite, or f breaks its contract.

    Example:
        >>> gradient(lambda x: x[..., 0].sum(-1) ** 2, torch.eye(2))
        tensor([[2., 0.],
                [2., 0.]])
    """
    known = f.gradient_at(x) if isinstance(f, TabledLoss) else None
    return value_and_gradient(f, x, keep_graph=False)[1] if known is None else known


def value_and_gradient(
    f: Loss, x: Float[Tensor, "*batch N C"], *, keep_graph: bool = True
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch N C"]]:
    """Return f(x), with its graph for the parameters of f, and grad f(x), from one evaluation.

    Args:
        f: The loss, x [..., N, C] -> values [...].
        x: One-hot or relaxed samples [..., N, C].
        keep_graph: Whether the values keep their graph.

    Returns:
        The values [...] and the gradients [..., N, C].

    Raises:
        NotDifferentiableError: If f(x) does not depend on x through differentiable operations.
        LossError: If the gradient is not finite, or f breaks its contract.

    Example:
        >>> values, v = value_and_gradient(lambda x: x[..., 0].sum(-1) ** 2, torch.eye(2))
        >>> values.item(), v.shape
        (1.0, torch.Size([2, 2]))
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        values = evaluate(f, x)
        v = None
        if values.requires_grad:
            total = weighted_sum(values, torch.ones_like(values))
            (v,) = torch.autograd.grad(total, x, retain_graph=keep_graph, allow_unused=True)
    if v is None:
        raise NotDifferentiableError
    if not math.isfinite(v.sum().item()):
        _refuse_not_finite("grad f(x)", v.sum((-2, -1)), x.detach())
    return values, v


def weighted_sum(values: Tensor, weight: Tensor) -> Tensor:
    """Return what to differentiate for the gradient of values, each times its weight.

    `torch.autograd.grad` with `grad_outputs=weight` gives the same bits, and imports sympy: that
    takes longer than many a question about a small model.

    Args:
        values: The values, with a graph.
        weight: One number for each.

    Returns:
        The sum, on the graph of the values.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> torch.autograd.grad(weighted_sum(x**2, torch.tensor([1.0, 10.0])), x)
        (tensor([ 2., 40.]),)
    """
    with torch.enable_grad():
        return (values * weight).sum()


def why_no_gradient(f: Loss, x: Float[Tensor, "*batch N C"]) -> str | None:
    """Return the reason why f has no gradient at x, or None if it has one.

    Args:
        f: The loss, x [..., N, C] -> values [...].
        x: One-hot or relaxed samples [..., N, C].

    Returns:
        The reason.

    Example:
        >>> why_no_gradient(lambda x: x[..., 0].sum(-1), torch.eye(2)) is None
        True
    """
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
    raise NotFiniteError(f"{what} is {values[first].item()} for {shown}; it must be finite")


def _by_experiment(f: Loss, x: Tensor, error: Exception) -> LossError | None:
    """Return what f could not take, found by giving it x in other forms, or None if nothing helps.

    Messages of torch differ between operations and versions, so none of them is read.
    """
    if isinstance(error, TypeError) and wants_more(f, 1) and not wants_more(f, 2):
        return SecondArgumentError(
            "f needs a second argument, and gradlab calls an unmarked loss as f(x). If that "
            "argument is the logits, mark f: gradlab.with_parameters(f); else fix its value by "
            "functools.partial"
        )
    reason = " ".join(str(error).split())[:200]
    flat = x.detach().flatten(0, -3) if x.ndim > 3 else x.detach()
    others = [
        d for d in (torch.float32, torch.float64, torch.bfloat16, torch.float16) if d != x.dtype
    ]
    for form, dtype in [(flat, x.dtype), *((flat, d) for d in others)]:
        if form.shape == x.shape and dtype == x.dtype:
            continue
        try:
            with torch.no_grad():
                f(form.to(dtype))
        except Exception:
            continue
        if dtype == x.dtype:
            return LossShapeError(
                f"f takes x with one batch axis, {list(flat.shape)}, but not {list(x.shape)} "
                f"({reason}); gradlab.as_loss(f) flattens the axes in front and restores them"
            )
        name, asked = str(dtype).removeprefix("torch."), str(x.dtype).removeprefix("torch.")
        return LossDtypeError(
            f"f works on x of {name} but not of {asked} ({reason}); x comes in the dtype of the "
            f"logits: pass logits.to(torch.{name}), or let f convert x or its weights"
        )
    return None


def wants_more(f: Callable[..., Any], count: int) -> bool:
    """Return whether f cannot be called with so many positional arguments, by its signature.

    Args:
        f: A function or a module.
        count: The number of arguments.

    Returns:
        Whether the signature forbids it; False where there is none to be read.

    Example:
        >>> wants_more(lambda x, logits: x, 1), wants_more(lambda x, logits: x, 2)
        (True, False)
    """
    try:
        signature = inspect.signature(f.forward if isinstance(f, nn.Module) else f)
    except (TypeError, ValueError):
        return False
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return True
    return False
