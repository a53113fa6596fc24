"""How a loss that sees the logits, f(x, logits), reaches methods that are written for f(x)."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from gradlab.categorical import check_logits
from gradlab.loss import Loss, bound, sees_parameters

__all__ = ["BINDS"]

Method = Callable[..., Any]


def _with_graph(method: Method) -> Method:
    """Return a method that is given f as a function of x whose graph reaches the logits."""

    @functools.wraps(method)
    def bound_method(self: Any, f: Loss, logits: Tensor, *args: Any, **options: Any) -> Any:
        return method(self, bound(f, logits), logits, *args, **options)

    return bound_method


def _as_constant(method: Method) -> Method:
    """Return a method that is given f as a function of x at these logits."""

    @functools.wraps(method)
    def bound_method(self: Any, f: Loss, logits: Tensor, *args: Any, **options: Any) -> Any:
        return method(self, bound(f, logits.detach()), logits, *args, **options)

    return bound_method


def _drawn(method: Method) -> Method:
    """Return `draw`; for a loss that sees the logits, the backward of a surrogate in rows."""

    @functools.wraps(method)
    def draw(
        self: Any, f: Loss, logits: Tensor, n: int, generator: Generator | None = None
    ) -> Tensor:
        if not sees_parameters(f):
            result: Tensor = method(self, f, logits, n, generator)
            return result
        check_logits(logits, ndim=2)
        leaf = logits.detach().expand(n, *logits.shape).clone().requires_grad_()
        with torch.enable_grad():
            values = self.surrogate(f, leaf, generator)
            (g,) = torch.autograd.grad(values.sum(), leaf)
        return g

    return draw


BINDS: dict[str, Callable[[Method], Method]] = {
    "draw": _drawn,
    "surrogate": _with_graph,
    "supports": _as_constant,
    "fit": _as_constant,
}
"""What stands around the methods of these names that a class of estimators writes."""
