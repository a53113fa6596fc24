"""What users write for an estimator, in the forms in which they write it, as draws.

A function draw(f, logits, n, generator), a surrogate(f, logits, generator) whose backward is the
estimate, a sample(logits, generator) or nn.Module that is back-propagated through.
"""

import difflib
import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from gradlab.categorical import draw_one_hot, probabilities
from gradlab.loss import Loss, NotDifferentiableError, bound, why_no_gradient
from gradlab.loss.held import held_modules
from gradlab.user_code.seeded_calls import EstimatorError

__all__ = ["Form", "Place", "Source", "Surrogate", "form_of", "name_of_code", "of_surrogate"]

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


@dataclass(frozen=True)
class Place:
    """What x is drawn from where its rows are not independent categorical variables.

    `axes`: of the parameters; `shape`: of x; `sample`: n samples of x. `distribution`: given to
    code that names it. `batches`: whether it takes a batch of parameters: if not, code that names
    it is called once for each draw.
    """

    axes: int
    shape: torch.Size
    sample: Callable[[int, Generator], Tensor]
    distribution: Callable[[Tensor], Any]
    batches: bool


def form_of(
    code: object, name: str = "", *, averaged: bool = False, place: Place | None = None
) -> Form:
    """Return the form that code has, by the names of its arguments (see `draws_of`).

    `name`: what it is called, by default its own name. With `averaged` a surrogate may also return
    the mean over its batch, of shape []. `place`: see `Place`. Raises TypeError for what is none of
    these forms.
    """
    name = name or name_of_code(code)
    if not callable(code):
        raise TypeError(f"cannot draw from {type(code).__name__}; give {_FORMS}")
    if isinstance(code, type):
        raise TypeError(
            f"cannot draw from {name}: it is a class, and not one of Estimator; give an object of "
            f"it, {name}(...)"
        )
    if inspect.isgeneratorfunction(code):
        raise TypeError(
            f"cannot draw from {name}: it is a generator function, whose call returns an iterator "
            f"(it has a yield); give {_FORMS}"
        )
    arguments, needed = _arguments(code)
    call = _seeded(code, arguments)
    if place is not None and "distribution" in arguments:
        seeded, given = call, place.distribution
        call = lambda generator, *first, **more: seeded(  # noqa: E731
            generator, *first, distribution=given, **more
        )
        needed = needed - {"distribution"}
    elif place is not None:
        place = replace(place, batches=True)
    elif "distribution" in needed:
        return Form(name, _without_distribution(name))
    if isinstance(code, nn.Module) and len(needed - {"generator"}) <= 1 and "f" not in arguments:
        with_layer = _with_generator(code, call)
        return _of_sample(name, lambda logits, g: with_layer(g, logits), code, place)
    if "logits" not in arguments:
        raise TypeError(
            f"cannot draw from {name}: no argument is called logits, {_seen(code, arguments)}; "
            f"give {_FORMS}"
        )
    unknown = sorted(needed - set(_KNOWN))
    if unknown:
        raise TypeError(
            f"cannot draw from {name}: it needs the argument {unknown[0]}, which is none of "
            f"{', '.join(_KNOWN)}{_nearest_name(unknown)}; give it a default, or its value by "
            "functools.partial"
        )
    if "n" in arguments:
        draw = lambda f, logits, n, g: call(g, f=f, logits=logits, n=n)  # noqa: E731
        return Form(name, _each_element(draw) if place is None else draw)
    if "f" in arguments:
        surrogate = lambda f, logits, g: call(g, f=f, logits=logits)  # noqa: E731
        return of_surrogate(name, surrogate, averaged=averaged, code=code, place=place)
    return _of_sample(name, lambda logits, g: call(g, logits=logits), code, place)


def _each_element(draw: Source) -> Source:
    """Return draws for a batch of logits too, of which each element is drawn by itself."""

    def drawn(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        if logits.ndim == 2:
            return draw(f, logits, n, generator)

        def element(b: int) -> Tensor:
            def of_one(x: Tensor) -> Tensor:
                repeated = x.unsqueeze(-3).expand(*x.shape[:-2], len(logits), *x.shape[-2:])
                return f(repeated)[..., b]

            return draw(of_one, logits[b], n, generator)

        return torch.stack([element(b) for b in range(len(logits))], 1)

    return drawn


def name_of_code(code: object) -> str:
    """Return what code is called: the name of its function or class, the line of a lambda."""
    if isinstance(code, functools.partial):
        given = [*map(_short, code.args), *(f"{k}={_short(v)}" for k, v in code.keywords.items())]
        return f"{name_of_code(code.func)}({', '.join(given)})"
    name = str(getattr(code, "__name__", type(code).__name__))
    line = getattr(getattr(code, "__code__", None), "co_firstlineno", None)
    return f"lambda in line {line}" if name == "<lambda>" and line else name


def _short(value: object) -> str:
    """Return a bound argument in a few characters."""
    name = getattr(value, "__name__", None)
    text = name if isinstance(name, str) else repr(value)
    return text if len(text) <= 20 and "\n" not in text else type(value).__name__


def _seen(code: object, arguments: set[str]) -> str:
    """Return what arguments code has instead of those wanted."""
    if not arguments:
        return "it names none"
    what = "those of its forward" if isinstance(code, nn.Module) else "its arguments"
    if arguments == {"x"}:
        return f"{what} are x, as a loss f(x) has" + (" it" if what[0] == "i" else "")
    return f"{what} are {', '.join(sorted(arguments))}{_nearest_name(sorted(arguments))}"


def _nearest_name(arguments: list[str]) -> str:
    """Return which known argument may be meant by one that is not known."""
    for argument in arguments:
        near = difflib.get_close_matches(argument, _KNOWN, n=1) if argument not in _KNOWN else []
        if near:
            return f" (is {argument} meant to be {near[0]}?)"
    return ""


def _arguments(code: Callable[..., Any]) -> tuple[set[str], set[str]]:
    """Return the names of the arguments that code must or, by its name, may be given, and must."""
    try:
        parameters = inspect.signature(
            code.forward if isinstance(code, nn.Module) else code
        ).parameters.values()
    except (TypeError, ValueError):
        return set(), set()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = {p.name for p in named if p.default is p.empty}
    known = {*_KNOWN, "distribution"}
    return needed | {p.name for p in named if p.name in known}, needed


def _seeded(code: Callable[..., Any], arguments: set[str]) -> Callable[..., Any]:
    """Return the code as a function of a generator, which it gets or which seeds torch for it."""

    def called(generator: Generator, *first: Any, **given: Any) -> Any:
        if "generator" in arguments:
            return code(*first, generator=generator, **given)
        devices = [generator.device] if generator.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            seed = torch.randint(2**62, [1], generator=generator, device=generator.device)
            torch.manual_seed(int(seed))
            return code(*first, **given)

    return called


def _with_generator(module: nn.Module, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return the call of a module, during which generators that its layers keep are replaced."""

    def called(generator: Generator, logits: Tensor) -> Any:
        keeping = [m for m in module.modules() if isinstance(vars(m).get("generator"), Generator)]
        kept = [layer.generator for layer in keeping]
        for layer in keeping:
            layer.generator = generator  # type: ignore[assignment]
        try:
            return call(generator, logits)
        finally:
            for layer, own in zip(keeping, kept, strict=True):
                layer.generator = own

    return called


def _of_sample(
    name: str,
    sample: Callable[[Tensor, Generator], Any],
    code: object,
    place: Place | None = None,
) -> Form:
    """Return the draws by back-propagating f at a sample."""

    def surrogate(f: Loss, leaf: Tensor, generator: Generator) -> Tensor:
        x = sample(leaf, generator)
        what, shape = f"the shape of logits {list(leaf.shape)}", leaf.shape
        if place is not None:
            shape = leaf.shape[: leaf.ndim - place.axes] + place.shape
            what = f"shape {list(shape)}, one for each of the parameters {list(leaf.shape)}"
        if not isinstance(x, Tensor) or x.shape != shape:
            got = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise EstimatorError(f"{name} must return x of {what}, not {got}")
        if leaf.requires_grad and not x.requires_grad:
            raise EstimatorError(
                f"the sample of {name} does not depend on the logits through torch"
                f"{_detached(code, lambda: sample(leaf, generator))}"
            )
        return f(x)

    return of_surrogate(name, surrogate, code=code, place=place)


def _detached(code: object, again: Callable[[], Any]) -> str:
    """Return what is seen where the value of code has no graph, for the end of a message.

    A module in eval mode is tried in training mode, and what modules code holds is said.
    """
    evaluated = [m for held in held_modules(code) for m in held.modules() if not m.training]
    if not evaluated:
        return ": torch records nothing between the logits and what it returns"
    buffers = [b for m in evaluated for b in m.buffers(recurse=False)]
    kept = [b.detach().clone() for b in buffers]
    for module in evaluated:
        module.training = True
    try:
        result = again()
    except Exception:
        result = None
    finally:
        for module in evaluated:
            module.training = False
        for buffer, before in zip(buffers, kept, strict=True):
            buffer.data.copy_(before)
    if isinstance(result, Tensor) and result.requires_grad:
        return ": it is in eval mode, and in training mode it does; call .train() on the module"
    return ": neither in eval mode, in which it is, nor in training mode"


def of_surrogate(
    name: str,
    surrogate: Callable[[Loss, Tensor, Generator], Any],
    *,
    averaged: bool = False,
    code: object = None,
    place: Place | None = None,
) -> Form:
    """Return the draws by the backward of a surrogate, a row of logits for each.

    `code`: where what is wrong with the surrogate is looked for.
    """

    def draw(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        if place is not None and not place.batches:
            return torch.stack([drawn(f, logits, [], generator) for _ in range(n)])
        return drawn(f, logits, [n], generator)

    def drawn(f: Loss, logits: Tensor, front: list[int], generator: Generator) -> Tensor:
        leaf = logits.expand(*front, *logits.shape).clone().requires_grad_()
        with torch.enable_grad():
            values = surrogate(bound(f, leaf), leaf, generator)
            rows = [*front, *logits.shape[: logits.ndim - (2 if place is None else place.axes)]]
            shapes = [rows, []] if averaged else [rows]
            if not isinstance(values, Tensor) or list(values.shape) not in shapes:
                got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
                what = "logits [n, N, C]" if place is None else "parameters"
                raise EstimatorError(
                    f"{name} must give one value for each of {math.prod(rows)} {what}, "
                    f"not {got}; do not average over the batch, or verify(code, ..., batch=B)"
                )
            if not values.requires_grad:
                if _has_no_gradient(bound(f, logits), logits, generator, place):
                    raise NotDifferentiableError
                raise EstimatorError(
                    f"the value of {name} does not depend on the logits through torch"
                    f"{_detached(code, lambda: surrogate(f, leaf, generator))}"
                )
            # The mean over a batch of n gives each row 1/n of its estimate.
            total = values.sum() if values.ndim or not averaged else values * math.prod(front)
            (g,) = torch.autograd.grad(total, leaf, allow_unused=True)
        if g is None:
            raise EstimatorError(
                f"no gradient of {name} reaches the logits: its value has a gradient, but not with "
                "respect to the logits that it is given"
            )
        return g

    return Form(name, draw, surrogate)


def _without_distribution(name: str) -> Source:
    def draw(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        raise EstimatorError(f"{name} takes a distribution: give distribution= beside the loss")

    return draw


def _has_no_gradient(f: Loss, logits: Tensor, generator: Generator, place: Place | None) -> bool:
    if place is None:
        return why_no_gradient(f, draw_one_hot(probabilities(logits), generator)) is not None
    return not f(place.sample(1, generator).to(logits).requires_grad_()).requires_grad
