"""One call of a loss that users bring: what it is given, what it may return, what it may not do."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradlab.user_code.objects import line_of

__all__ = ["FORMS", "Form", "LossFunctionError", "called", "forward_of", "number_of"]


class LossFunctionError(ValueError):
    """A loss function that cannot be examined; the message says why."""


@dataclass(frozen=True)
class Form:
    """How a loss takes its tensors; what it works with is found by trying.

    Args:
        mask: "number" or "bool".
        index: Which sequences share a prompt, as a "tensor" or a "list".
        dtype: Of log-probabilities, rewards and advantages.

    Example:
        >>> Form().mask
        'number'
    """

    mask: str = "number"
    index: str = "tensor"
    dtype: torch.dtype = torch.float64


FORMS = (
    Form(),
    Form(mask="bool"),
    Form(index="list"),
    Form(dtype=torch.float32),
    Form(mask="bool", index="list"),
    Form(mask="bool", dtype=torch.float32),
)
"""All forms that are tried, in this order."""


def forward_of(function: Any) -> Callable[..., Any]:
    """Return what has the arguments of a loss: the `forward` of a module.

    Args:
        function: A loss.

    Example:
        >>> forward_of(torch.nn.Identity()).__name__
        'forward'
    """
    return function.forward if isinstance(function, torch.nn.Module) else function


def called(
    function: Callable[..., Any], arguments: Mapping[str, Any], changed: set[str] | None = None
) -> Any:
    """Return what a loss returns.

    Args:
        function: The loss.
        arguments: All arguments by their names.
        changed: Is given the names of the arguments that the call changed in place.

    Raises:
        LossFunctionError: It raises, or ends the program.

    Example:
        >>> called(lambda log_prob, /, mask: log_prob + mask, {"log_prob": 1, "mask": 2})
        3
    """
    before = [] if changed is None else [(n, x, x.clone()) for n, x in _tensors(arguments)]
    named = dict(arguments)
    parameters = inspect.signature(forward_of(function)).parameters.values()
    first = [named.pop(p.name) for p in parameters if p.kind is p.POSITIONAL_ONLY]
    try:
        result = function(*first, **named)
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        hint = "; copy it into the file too, or import it" if isinstance(error, NameError) else ""
        raise LossFunctionError(f"the loss raised {said}{line_of(error)}{hint}") from error
    if changed is not None:
        changed |= {name for name, now, old in before if not _same(now, old)}
    return result


def _tensors(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that a loss must leave as they are."""
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            yield from _tensors(value)
        elif isinstance(value, Tensor) and not value.requires_grad:
            yield name, value


def _same(now: Tensor, old: Tensor) -> bool:
    return now.shape == old.shape and bool(((now == old) | (now != now)).all())


_DETACHED = (
    "the loss has no gradient for the policy's log-probabilities: look for .detach(), .item(), "
    "numpy, torch.tensor(...), .long() or torch.no_grad() between them and what is returned"
)


def number_of(result: Any, tokens: torch.Size) -> Tensor:
    """Return the loss out of what a function returns, one number or one per token.

    Args:
        result: A tensor, a tuple that begins with it, or a dict that has it as "loss".
        tokens: [N, T], the shape of a loss per token.

    Raises:
        LossFunctionError: It is none of these, or has no gradient.

    Example:
        >>> x = torch.ones((), requires_grad=True)
        >>> number_of({"loss": 2 * x}, torch.Size([6, 7])).item()
        2.0
    """
    if isinstance(result, Mapping):
        result = result.get("loss")
    elif isinstance(result, tuple | list) and result:
        result = result[0]
    if isinstance(result, int | float) and not isinstance(result, bool):
        raise LossFunctionError(
            f"the loss must return a tensor, not the number {result:.4g}: leave out .item() or "
            "float(...), which cut its gradient off"
        )
    if not isinstance(result, Tensor):
        nothing = ": a return is missing" if result is None else ""
        raise LossFunctionError(
            "the loss must return a tensor, a tuple that begins with it or a dict with 'loss', not "
            f"{type(result).__name__}{nothing}"
        )
    if result.is_complex():
        raise LossFunctionError(f"the loss must be a real number, not {result.dtype}")
    if not result.requires_grad:
        raise LossFunctionError(_DETACHED)
    if result.numel() == 1:
        return result.squeeze()
    if result.shape == tokens:
        return result
    once = f"[{tokens[0]}]"
    if list(result.shape) in ([tokens[0]], [tokens[0], 1]):
        said = f"where it is one number per sequence {once}, return its mean"
    else:
        said = f"or one number per token, {list(tokens)}, with aggregation='TOK', for instance"
    raise LossFunctionError(f"the loss must be one number, not {list(result.shape)}; {said}")


def no_gradient() -> LossFunctionError:
    """Return the error of a loss that does not depend on the log-probabilities."""
    return LossFunctionError(_DETACHED)
