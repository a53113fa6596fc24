"""Does a loss f(x, logits) keep its contract in its second argument? Found by a few more calls.

Its gradient in the logits must be finite and belong to this call; logits with axes in front must
give each row its own value; and nothing may be kept of the logits of an earlier call.
"""

import torch
from torch import Tensor

from gradlab.loss.contract import (
    BatchDependentError,
    ChangesInputError,
    LossError,
    NotFiniteError,
    StatefulLossError,
    evaluate,
    weighted_sum,
)
from gradlab.loss.diagnosis import agree
from gradlab.loss.two_arguments import ParameterLoss

__all__ = ["NOT_FINITE", "check_second", "checked_gradient", "direct_gradient"]

NOT_FINITE = (
    "at logits of -inf p log p is 0 log 0, and its gradient NaN: put 0 in place of log p there, "
    "torch.where(logits > -torch.inf, logits.log_softmax(-1), 0.0)"
)
"""What is said where df/dlogits is not finite."""

# The size of a step to other logits, relative to theirs.
_STEP = 1e-2
# In what shape states come where the logits of a row serve several of them.
_SEVERAL = (3, 4)


def check_second(
    f: ParameterLoss,
    states: Tensor,
    values: Tensor,
    parameters: Tensor,
    first: Tensor,
    eps: float,
    *,
    rows: bool,
) -> None:
    """Raise the fault of f in its second argument, if it has one.

    Args:
        f: The loss of two arguments.
        states: States [12, *batch, N, C] of x.
        values: What f was at them, at these parameters.
        parameters: The caller's, without their graph.
        first: The gradient of an earlier call, from `checked_gradient`.
        eps: The rounding unit of f.
        rows: Whether f must take parameters with axes in front.

    Raises:
        BatchDependentError: With axes in front, a value depends on the parameters of other rows.
        StatefulLossError: f keeps parameters of an earlier call, or their graph.
    """
    others = _others(parameters, len(states))
    with torch.no_grad():
        evaluate(f.at(others[0].clone()), states)
        again = evaluate(f.at(parameters.clone()), states)
    if not agree(again, values, eps):
        raise StatefulLossError(
            f"f(x, logits) changes by {float((again - values).abs().max()):.2g} at the same x and "
            "logits after a call with other logits: it keeps something of them; compute it anew "
            "from the second argument in each call"
        )
    if rows:
        _check_rows(f, states, others, eps)
    try:
        second = checked_gradient(f, states, parameters)
    except RuntimeError as error:
        raise _kept_graph(" ".join(str(error).split())[:120]) from error
    size = max(float(first.abs().max()), float(second.abs().max()))
    # A sum over all states is as accurate as its largest terms, which may cancel.
    allowed = 2**7 * eps * (size + float(values.abs().sum()))
    if float((first - second).abs().max()) > allowed:
        raise _kept_graph("another gradient at the second call")


def _kept_graph(reason: str) -> StatefulLossError:
    return StatefulLossError(
        f"f(x, logits) keeps a value with the graph of an earlier call ({reason}): its gradient in "
        "the logits is right once only. Compute it anew from the second argument in each call"
    )


def direct_gradient(
    values: Tensor, parameters: Tensor, weight: Tensor | None = None, *, keep_graph: bool = False
) -> Tensor:
    """Return the gradient of values in the parameters, 0 where they do not depend on them.

    Args:
        values: Values of f, [...].
        parameters: What they may have a graph to.
        weight: Weights of the values, [...]; their sum is differentiated. 1 by default.
        keep_graph: Whether the values keep their graph.

    Returns:
        The gradient, in the shape of the parameters.

    Raises:
        NotFiniteError: If it is NaN or infinite.

    Example:
        >>> logits = torch.ones(2, requires_grad=True)
        >>> direct_gradient(logits.square(), logits)
        tensor([2., 2.])
    """
    if not values.requires_grad:
        return torch.zeros_like(parameters)
    weight = torch.ones_like(values) if weight is None else weight.to(values.dtype)
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        weighted_sum(values, weight), parameters, retain_graph=keep_graph, allow_unused=True
    )
    if (g := found[0]) is None:
        return torch.zeros_like(parameters)
    if not torch.isfinite(g.sum()):
        bad = (~torch.isfinite(g)).nonzero()
        if len(bad):
            at = bad[0].tolist()
            raise NotFiniteError(
                f"df/dlogits is {g[tuple(at)].item()} at entry {at} of the logits; {NOT_FINITE}"
            )
    return g


def checked_gradient(f: ParameterLoss, states: Tensor, parameters: Tensor) -> Tensor:
    """Return the gradient of the sum of f at the states in the parameters.

    Args:
        f: The loss of two arguments.
        states: States of x.
        parameters: The caller's, without their graph.

    Returns:
        The gradient.

    Raises:
        ChangesInputError: f writes into the parameters.
        NotFiniteError: The gradient is not finite.
    """
    with torch.enable_grad():
        leaf = parameters.clone().requires_grad_()
        # Not a leaf: writing into it is allowed by torch, and must be seen.
        given = leaf.clone()
        values = evaluate(f.at(given), states)
        if not torch.equal(given.detach(), parameters):
            raise ChangesInputError(
                "f writes into the logits that it is given, in place; let it work on a copy, "
                "logits.clone()"
            )
        return direct_gradient(values, leaf)


def _others(parameters: Tensor, count: int) -> Tensor:
    """Return other parameters for each of so many rows, close by."""
    source = torch.Generator().manual_seed(0)
    step = torch.rand(count, *parameters.shape, generator=source, dtype=torch.float64)
    step = step.to(parameters.device, parameters.dtype) * _STEP
    finite = torch.where(torch.isfinite(parameters), parameters, 0.0)
    return parameters + step * (1 + finite.abs())


def _check_rows(f: ParameterLoss, states: Tensor, others: Tensor, eps: float) -> None:
    """Raise BatchDependentError unless each row of logits serves its own row of x."""
    with torch.no_grad():
        try:
            several = evaluate(f.at(others.clone()), states)
            shared = evaluate(f.at(others[: _SEVERAL[1]].clone()), states.unflatten(0, _SEVERAL))
            alone = [evaluate(f.at(others[i].clone()), states[i : i + 1]) for i in (0, 1)]
        except LossError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise BatchDependentError(
                f"f(x, logits) works with logits {list(others.shape[1:])}, but not with an axis in "
                f"front, {list(others.shape)} for x {list(states.shape)} ({type(error).__name__}: "
                f"{reason}); {_ROWS}"
            ) from error
    found = torch.cat([*alone, shared[0]])
    wanted = torch.cat([several[:2], several[: _SEVERAL[1]]])
    if not agree(found, wanted, eps):
        raise BatchDependentError(
            "f(x, logits) depends on the logits of other rows: with an axis in front of both its "
            f"value differs by {float((found - wanted).abs().max()):.2g} from that of the row "
            f"alone; {_ROWS}"
        )
    if others.ndim < 4:
        return
    # Of a batch, every second element has other logits: the elements between keep their values.
    mixed = others[:1].clone()
    mixed[:, 1::2] = others[1:2, 1::2]
    with torch.no_grad():
        kept = evaluate(f.at(mixed[0]), states[:1])[:, ::2]
        wanted = evaluate(f.at(others[0].clone()), states[:1])[:, ::2]
    if not agree(kept, wanted, eps):
        raise BatchDependentError(
            "the value of an element of the batch depends on the logits of others, by "
            f"{float((kept - wanted).abs().max()):.2g}; {_ROWS}"
        )


_ROWS = (
    "logits may have axes in front, as x has: work on their last two axes only, such as "
    ".sum((-2, -1)), and not over all of them"
)
