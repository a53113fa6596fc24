"""A user's module or function as a loss that keeps the contract of f.

Most modules take one batch axis, one dtype and a training mode; f takes any batch shape, the dtype
of the logits, and is a function of x alone. `as_loss` stands between the two.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.checks import check_choice
from gradlab.loss.contract import Loss, LossError
from gradlab.loss.frozen import with_frozen_modules

__all__ = ["as_loss"]

# Without `chunk`, one call of the module gets so many rows that x has about this many numbers.
_NUMBERS = 2**20

_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "N C": lambda x: x,
    "C N": lambda x: x.transpose(-2, -1),
    "flat": lambda x: x.flatten(1),
    "levels": lambda x: x @ torch.arange(x.shape[-1], dtype=x.dtype, device=x.device),
    "classes": lambda x: x.argmax(-1),
}


def as_loss(
    module: Callable[..., Any],
    *,
    layout: str = "N C",
    target: Tensor | None = None,
    loss: Callable[[Any, Tensor], Tensor] | None = None,
    output: str | int | Callable[[Any], Any] | None = None,
    reduce: str | None = None,
    chunk: int | None = None,
) -> Loss:
    """Return a loss f: x [..., N, C] -> values [...] that calls `module` with one batch axis.

    All axes in front of [N, C] become one axis of R rows for the call, and are restored in the
    values.

    An nn.Module, also as a bound method such as `model.decode` or inside functools.partial, is
    copied. The copy is in eval mode, its parameters are frozen, and x is cast to their dtype; the
    caller's module stays as it is. Later changes of its weights do not reach f. To train the
    parameters, call the module in a loss of your own. If the logits are among the parameters, write
    f(x, logits) yourself, marked by `gradlab.with_parameters`: the copy would hold them constant.
    Submodules must be registered, as in
    nn.ModuleList, not kept in a plain list.

    A plain function is called as it is. Put the modules that it calls into eval mode yourself, and
    cast x to their dtype. f gives a copy of x, so the module may write into its input.

    Args:
        module: takes the R rows in the given layout and returns a tensor [R], [R, 1], or, with
            `loss`, `output` or `reduce`, what these turn into one.
        layout: how the module sees x. "N C": [R, N, C]. "C N": [R, C, N], channels first, for
            Conv1d. "flat": [R, N * C]. "levels": [R, N], the number of the class, as the sum of
            c * x_c, which is linear in x, so that gradients flow. "classes": [R, N], the integer
            class, for embeddings; f then has no gradient in x.
        target: a tensor [B, ...] of targets or inputs, the first axis for the batch. With B > 1, x
            is [..., B, N, C] and row b meets target b, whatever axes are in front. With B = 1, or
            no axis at all, every x meets the same target. Floating targets are cast to the dtype
            of what they meet.
        loss: a function (output, target) -> one value per row, such as
            functools.partial(F.cross_entropy, reduction="none"). Without it, `target` is the
            second argument of the module.
        output: the part of the module's result to use: a key or an attribute ("logits"), an index
            (0), or a function of the result.
        reduce: "sum" or "mean", over all axes of [R, ...] but the first.
        chunk: the largest number of rows in one call; by default so many that x has about a
            million numbers. It bounds the memory of values; with gradients, the graphs of all
            calls are kept. With chunk=1, also a module that reduces over its batch is right.

    Returns:
        The loss f. It raises LossError when it is called if the module's result is not one floating
        value per row, or if the targets do not match x.

    Raises:
        TypeError: the module or an argument has the wrong type, or the module cannot be copied.
        ValueError: an argument has a value that is not known.

    Example:
        >>> import torch, gradlab
        >>> conv = torch.nn.Conv1d(3, 1, kernel_size=2)
        >>> f = gradlab.as_loss(conv, layout="C N", reduce="mean")
        >>> gradlab.exact_gradient(f, torch.zeros(4, 3)).shape
        torch.Size([4, 3])
    """
    if isinstance(module, type) or not callable(module):
        raise TypeError(f"module must be an nn.Module or a function, not {module!r}")
    check_choice("layout", layout, _LAYOUTS)
    if reduce not in (None, "sum", "mean"):
        raise ValueError(f"reduce must be 'sum', 'mean' or None, not {reduce!r}")
    if chunk is not None and (type(chunk) is not int or chunk < 1):
        raise ValueError(f"chunk must be a positive integer, not {chunk!r}")
    if target is not None:
        if not isinstance(target, Tensor):
            raise TypeError(f"target must be a torch.Tensor, not {type(target).__name__}")
        target = target.detach().clone()
        target = target[None] if target.ndim == 0 else target
    elif loss is not None:
        raise ValueError("loss compares the output with target; give target=, a tensor [B, ...]")
    if not (output is None or isinstance(output, str | int) or callable(output)):
        raise TypeError(f"output must be a key, an index or a function, not {output!r}")
    own, dtype = with_frozen_modules(module)
    if loss is not None:
        loss = with_frozen_modules(loss)[0]
    return _AdaptedLoss(own, layout, target, loss, output, reduce, chunk, dtype)


@dataclass(frozen=True, eq=False)
class _AdaptedLoss:
    """What `as_loss` returns; the fields are its arguments, and the dtype of the module."""

    module: Callable[..., Any]
    layout: str
    target: Tensor | None
    loss: Callable[[Any, Tensor], Tensor] | None
    output: str | int | Callable[[Any], Any] | None
    reduce: str | None
    chunk: int | None
    dtype: torch.dtype | None

    def __call__(self, x: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch"]:
        if x.ndim < 2:
            raise ValueError(f"x must have shape [..., N, C], not {list(x.shape)}")
        batch = x.shape[:-2]
        self._check_target(batch)
        rows = x.reshape(math.prod(batch), *x.shape[-2:])
        rows = rows.to(self.dtype or x.dtype, copy=True)  # the module may write into it
        if len(rows) == 0:  # many modules cannot be called with no rows
            return rows.sum((-2, -1)).reshape(batch)
        step = self.chunk or max(1, _NUMBERS // max(1, rows[0].numel()))
        values = [
            self._values(rows[start : start + step], start) for start in range(0, len(rows), step)
        ]
        return torch.cat(values).reshape(batch)

    def _check_target(self, batch: torch.Size) -> None:
        if self.target is None or len(self.target) == 1 or batch[-1:] == self.target.shape[:1]:
            return
        count = len(self.target)
        raise LossError(
            f"there are {count} targets, so x must have shape [..., {count}, N, C], and the axes "
            f"in front of N and C are {list(batch)}; one target of {count} numbers is target[None]"
        )

    def _values(self, rows: Tensor, start: int) -> Tensor:
        """Return the values [R] of the rows, of which the first is number `start` of all."""
        shown = _LAYOUTS[self.layout](rows)
        if self.target is None:
            result = _part(self.module(shown), self.output)
        else:
            target = self._target_of(start, len(rows))
            if self.loss is None:
                result = _part(self.module(shown, _like(target, rows)), self.output)
            else:
                result = _part(self.module(shown), self.output)
                result = _part(self.loss(result, _like(target, result)), None, "loss")
        return self._one_a_row(result, len(rows))

    def _target_of(self, start: int, count: int) -> Tensor:
        """Return the targets of `count` rows from number `start` on."""
        assert self.target is not None
        if len(self.target) == 1:
            return self.target.expand(count, *self.target.shape[1:])
        places = torch.arange(start, start + count, device=self.target.device)
        return self.target[places % len(self.target)]

    def _one_a_row(self, result: Tensor, count: int) -> Tensor:
        """Return the result for `count` rows as values [count]."""
        who = "the module" if self.loss is None else "loss"
        if not result.is_floating_point():
            raise LossError(
                f"{who} must return a floating-point tensor, not {result.dtype}; compare "
                "classes with a target by loss=, or convert the result by output="
            )
        if count == result.numel() == 1:  # also what squeeze() makes of one row
            return result.reshape(1)
        shape = list(result.shape)
        if result.ndim == 0:
            raise LossError(
                f"{who} returns one number for {count} rows: it reduces over the batch. Give "
                'its loss reduction="none", select the output before the loss by output= and give '
                "loss= and target=, or call it with single rows by chunk=1"
            )
        if shape[0] != count:
            raise LossError(
                f"{who} returns shape {shape} for {count} rows; its first axis must be the "
                "batch. Build recurrent and attention modules with batch_first=True"
            )
        result = result.flatten(1) if result.ndim > 1 else result[:, None]
        if self.reduce is not None:
            return result.sum(1) if self.reduce == "sum" else result.mean(1)
        if result.shape[1] != 1:
            raise LossError(
                f"{who} returns shape {shape} for {count} rows, not one value a row; give "
                "reduce='sum' or reduce='mean', or compare it with a target by loss="
            )
        return result[:, 0]


def _like(target: Tensor, other: Any) -> Tensor:
    """Return a floating target in the dtype of the floating tensor that it meets."""
    floating = isinstance(other, Tensor) and other.is_floating_point()
    return target.to(other.dtype) if floating and target.is_floating_point() else target


def _part(
    result: Any, output: str | int | Callable[[Any], Any] | None, who: str = "the module"
) -> Tensor:
    """Return the tensor of the result of `who` that `output` names."""
    parts, shown = _parts(result)
    if isinstance(output, str | int):
        if output not in parts:
            raise LossError(f"{who} returns {shown}, which has no part {output!r}")
        result = parts[output]
    elif output is not None:
        result = output(result)
    if isinstance(result, Tensor):
        return result
    if output is not None:
        raise LossError(f"{who} has {_parts(result)[1]} as output={output!r}, not a tensor")
    names = [name for name, part in parts.items() if isinstance(part, Tensor)]
    example = f"; select a part by output=, such as {names[0]!r}" if names else ""
    raise LossError(f"{who} returns {shown}, not a tensor{example}")


def _parts(result: Any) -> tuple[dict[Any, Any], str]:
    """Return the named parts of a result, and what the result is, in words."""
    kind = type(result).__name__
    if isinstance(result, Tensor):
        return {}, "a tensor"
    if isinstance(result, Mapping):
        return dict(result), f"a {kind} with the keys {', '.join(map(repr, result))}"
    if isinstance(result, tuple | list):
        return dict(enumerate(result)), f"a {kind} of {len(result)}"
    parts = getattr(result, "__dict__", {})
    names = f" with the attributes {', '.join(map(repr, parts))}" if parts else ""
    return parts, f"an object of type {kind}{names}"
