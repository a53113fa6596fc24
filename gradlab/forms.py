"""What users write for an estimator, in the forms in which they write it, as draws.

A function draw(f, logits, n, generator), a surrogate(f, logits, generator) whose backward is the
estimate, a sample(logits, generator) or nn.Module that is back-propagated through.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from gradlab.categorical import draw_one_hot, probabilities
from gradlab.loss import Loss, NotDifferentiableError, why_no_gradient
from gradlab.seeded_calls import EstimatorError

__all__ = ["Form", "Source", "Surrogate", "form_of", "of_surrogate"]

Source = Callable[[Loss, Tensor, int, Generator], Tensor]
"""n draws [n, *logits.shape] for f and logits [N, C] or [B, N, C]."""

Surrogate = Callable[[Loss, Tensor, Generator], Tensor]
"""Values [n, ...] for f and a leaf of logits [n, ..., N, C], whose backward are n draws."""

_FORMS = (
    "an Estimator, its class or its text; a function draw(f, logits, n, generator) -> [n, N, C]; "
    "surrogate(f, logits, generator) -> values whose backward gives the estimate; or "
    "sample(logits, generator) -> x; or an nn.Module from logits to x. A function without the "
    "argument generator draws from torch's global one"
)
_KNOWN = ("f", "logits", "n", "generator")


@dataclass(frozen=True)
class Form:
    """Code as draws: `source`, and the `surrogate` whose backward they are, if they are that."""

    name: str
    source: Source
    surrogate: Surrogate | None = None


def form_of(code: object, *, averaged: bool = False) -> Form:
    """Return the form that code has, by the names of its arguments (see `gradlab.draws.draws_of`).

    With `averaged` a surrogate may also return the mean over its batch, of shape []. Raises
    TypeError for what is none of these forms.
    """
    if not callable(code):
        raise TypeError(f"cannot draw from {type(code).__name__}; give {_FORMS}")
    name = getattr(code, "__name__", type(code).__name__)
    arguments = _arguments(code)
    call = _seeded(code, arguments)
    if isinstance(code, nn.Module) and len(arguments - {"generator"}) == 1:
        (only,) = arguments - {"generator"}
        with_layer = _with_generator(code, call)
        return _of_sample(name, lambda logits, g: with_layer(g, **{only: logits}))
    if "logits" not in arguments:
        has = f"its arguments are {', '.join(sorted(arguments))}" if arguments else "it names none"
        raise TypeError(
            f"cannot draw from {name}: no argument is called logits, {has}; give {_FORMS}"
        )
    if "n" in arguments:
        return Form(name, lambda f, logits, n, g: call(g, f=f, logits=logits, n=n))
    if "f" in arguments:
        surrogate = lambda f, logits, g: call(g, f=f, logits=logits)  # noqa: E731
        return of_surrogate(name, surrogate, averaged=averaged)
    return _of_sample(name, lambda logits, g: call(g, logits=logits))


def _arguments(code: Callable[..., Any]) -> set[str]:
    """Return the names of the arguments that code must, or by its name may, be given."""
    try:
        parameters = inspect.signature(
            code.forward if isinstance(code, nn.Module) else code
        ).parameters.values()
    except (TypeError, ValueError):
        return set()
    named = (p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    return {p.name for p in named if p.default is p.empty or p.name in _KNOWN}


def _seeded(code: Callable[..., Any], arguments: set[str]) -> Callable[..., Any]:
    """Return the code as a function of a generator, which it gets or which seeds torch for it."""

    def called(generator: Generator, **given: Any) -> Any:
        if "generator" in arguments:
            return code(generator=generator, **given)
        devices = [generator.device] if generator.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            seed = torch.randint(2**62, [1], generator=generator, device=generator.device)
            torch.manual_seed(int(seed))
            return code(**given)

    return called


def _with_generator(module: nn.Module, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return the call of a module, during which generators that its layers keep are replaced."""

    def called(generator: Generator, **given: Any) -> Any:
        keeping = [m for m in module.modules() if isinstance(vars(m).get("generator"), Generator)]
        kept = [layer.generator for layer in keeping]
        for layer in keeping:
            layer.generator = generator  # type: ignore[assignment]
        try:
            return call(generator, **given)
        finally:
            for layer, own in zip(keeping, kept, strict=True):
                layer.generator = own

    return called


def _of_sample(name: str, sample: Callable[[Tensor, Generator], Any]) -> Form:
    """Return the draws by back-propagating f at a sample."""

    def surrogate(f: Loss, leaf: Tensor, generator: Generator) -> Tensor:
        x = sample(leaf, generator)
        if not isinstance(x, Tensor) or x.shape != leaf.shape:
            got = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise EstimatorError(
                f"{name} must return x of the shape of logits {list(leaf.shape)}, not {got}"
            )
        return f(x)

    return of_surrogate(name, surrogate)


def of_surrogate(
    name: str, surrogate: Callable[[Loss, Tensor, Generator], Any], *, averaged: bool = False
) -> Form:
    """Return the draws by the backward of a surrogate, a row of logits for each."""

    def draw(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        leaf = logits.expand(n, *logits.shape).clone().requires_grad_()
        with torch.enable_grad():
            values = surrogate(f, leaf, generator)
            rows = [n, *logits.shape[:-2]]
            shapes = [rows, []] if averaged else [rows]
            if not isinstance(values, Tensor) or list(values.shape) not in shapes:
                got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise EstimatorError(
                    f"{name} must give one value for each of {math.prod(rows)} logits [n, N, C], "
                    f"not {got}; do not average over the batch, or verify(code, ..., batch=B)"
                )
            if not values.requires_grad:
                if why_no_gradient(f, draw_one_hot(probabilities(logits), generator)):
                    raise NotDifferentiableError
                raise EstimatorError(
                    f"the value of {name} does not depend on the logits through torch: is "
                    "something detached, or a module in eval mode?"
                )
            # The mean over a batch of n gives each row 1/n of its estimate.
            total = values.sum() if values.ndim or not averaged else values * n
            (g,) = torch.autograd.grad(total, leaf, allow_unused=True)
        if g is None:
            raise EstimatorError(f"no gradient of {name} reaches the logits")
        return g

    return Form(name, draw, surrogate)
