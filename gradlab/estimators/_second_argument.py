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


def _sees(args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Loss, Tensor] | None:
    """Return f and logits of a call, by position or name, if f sees the logits."""
    given = dict(zip(("f", "logits"), args, strict=False)) | options
    if "logits" in given and sees_parameters(given.get("f")):
        return given["f"], given["logits"]
    return None


def _binding(constant: bool) -> Callable[[Method], Method]:
    """Return what gives a method f as a function of x, at these logits or with their graph."""

    def binds(method: Method) -> Method:
        @functools.wraps(method)
        def bound_method(self: Any, *args: Any, **options: Any) -> Any:
            seen = _sees(args, options)
            if seen is not None:
                f, logits = seen
                f = bound(f, logits.detach() if constant else logits)
                args, options = (f, *args[1:]) if args else args, options | {"f": f}
                if args:
                    options.pop("f")
            return method(self, *args, **options)

        return bound_method

    return binds


def _drawn(method: Method) -> Method:
    """Return `draw`; for a loss that sees the logits, the backward of a surrogate in rows."""

    @functools.wraps(method)
    def draw(self: Any, *args: Any, **options: Any) -> Any:
        if _sees(args, options) is None:
            return method(self, *args, **options)
        return _rows(self, *args, **options)

    return draw


def _rows(
    estimator: Any, f: Loss, logits: Tensor, n: int, generator: Generator | None = None
) -> Tensor:
    """Return n draws: the backward of surrogates for the logits, repeated in rows."""
    check_logits(logits, ndim=2)
    leaf = logits.detach().expand(n, *logits.shape).clone().requires_grad_()
    with torch.enable_grad():
        values = estimator.surrogate(f, leaf, generator)
        (g,) = torch.autograd.grad(values.sum(), leaf)
    return g


BINDS: dict[str, Callable[[Method], Method]] = {
    "draw": _drawn,
    "surrogate": _binding(constant=False),
    "supports": _binding(constant=True),
    "fit": _binding(constant=True),
}
"""What stands around the methods of these names that a class of estimators writes."""
