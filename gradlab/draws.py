"""Draws of any estimator: one of gradlab's, or code as users write it.

What a user's code does wrong is named in one line: it raises, returns another shape or NaN, does
not follow its generator, or repeats its draws.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gradlab.categorical import draw_one_hot, probabilities
from gradlab.estimators import Estimator, parse
from gradlab.exact.mechanism import is_shipped
from gradlab.loss import Loss, LossError, NotDifferentiableError, why_no_gradient
from gradlab.reproducible import block_generator, generator_on
from gradlab.user_code import line_of

__all__ = [
    "DRAW",
    "TRAINING",
    "Code",
    "CodeEstimator",
    "Draws",
    "EstimatorError",
    "draws_of",
    "estimator_of",
]

DRAW, TRAINING = "draw", "training"
"""What draws are of: what is analysed, `draw`; or what trains, the backward of a surrogate."""

Code = Estimator | type[Estimator] | Callable[..., Tensor] | str
"""What is verified: an estimator, its class, its text form, or a function (see `draws_of`)."""

_FORMS = (
    "an Estimator, its class or its text; a function draw(f, logits, n, generator) -> [n, N, C]; "
    "surrogate(f, logits, generator) -> values whose backward gives the estimate; or "
    "sample(logits, generator) -> x; or an nn.Module from logits to x. A function without the "
    "argument generator draws from torch's global one"
)
# Calls and draws of each by which independence is judged.
_CALLS, _EACH = 32, 32

Source = Callable[[Loss, Tensor, int, Generator], Tensor]
"""n draws [n, *logits.shape] for f and logits [N, C] or [B, N, C]."""


class EstimatorError(ValueError):
    """The code of an estimator broke its contract."""


@dataclass(frozen=True)
class Draws:
    """Draws of what `draws_of` was given: `name`, and the `estimator` if it is one of gradlab's.

    `order` is what it declares (see `Estimator`), or None where it declares nothing. `of`: "draw"
    or "training". `surrogate(f, leaf, generator)`: the values [n, ...] whose backward the draws
    are, where there is one.
    """

    name: str
    source: Source
    estimator: Estimator | None = None
    order: float | None = None
    of: str = DRAW
    surrogate: Callable[[Loss, Tensor, Generator], Tensor] | None = None

    @property
    def is_shipped(self) -> bool:
        """Whether this is an estimator of gradlab's, nothing in it replaced."""
        return self.estimator is not None and is_shipped(self.estimator)

    @property
    def training(self) -> "Draws":
        """Draws of what trains with the same code."""
        if self.of == TRAINING or self.estimator is None:
            return self
        return _of_surrogate(
            self.name, self.estimator.surrogate, estimator=self.estimator, order=self.order
        )

    def calls(self, classes: int, variables: int = 1) -> int:
        """Evaluations of f that one draw spends; 1 where that is not known."""
        return 1 if self.estimator is None else self.estimator.calls(classes, variables)

    def at(self, logits: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch N C"]:
        """Return the logits that the code is given: those of the caller, as they are.

        gradlab's own estimators work in float64 on the CPU, whatever f does: their arithmetic is
        tested, and shall not blur what is measured.
        """
        logits = logits.detach()
        return logits.to("cpu", torch.float64) if self.is_shipped else logits

    def __call__(
        self, f: Loss, logits: Float[Tensor, "*batch N C"], n: int, generator: Generator
    ) -> Float[Tensor, "n *batch N C"]:
        """Return n draws.

        Raises EstimatorError if the code raises, or returns another shape, NaN or an infinity;
        LossError and NotDifferentiableError if f is at fault.
        """
        try:
            g = self.source(f, logits.detach().clone(), n, generator_on(logits.device, generator))
        except (EstimatorError, LossError):
            raise
        except Exception as error:
            if isinstance(error, ValueError) and self.estimator is not None and not line_of(error):
                raise
            raise EstimatorError(
                f"{self.name} raised {type(error).__name__}: {error}{line_of(error)}"
            ) from error
        if not isinstance(g, Tensor) or not g.is_floating_point():
            kind = f"a {g.dtype} tensor" if isinstance(g, Tensor) else type(g).__name__
            raise EstimatorError(f"{self.name} must return a floating-point tensor, not {kind}")
        if g.shape != (n, *logits.shape):
            raise EstimatorError(
                f"{self.name} must return [n, {'B, ' * (logits.ndim - 2)}N, C] = "
                f"{[n, *logits.shape]} for n draws, not {list(g.shape)}"
            )
        g = g.detach().cpu()
        if not torch.isfinite(g.sum()):
            bad = (~torch.isfinite(g)).nonzero()
            if len(bad):
                at = tuple(bad[0].tolist())
                share = len(bad[:, 0].unique()) / n
                raise EstimatorError(
                    f"{self.name} returned {g[at].item()} in {share:.2%} of {n} draws, first for "
                    f"variable {at[-2]}, class {at[-1]}"
                )
        return g

    def check_randomness(self, f: Loss, logits: Float[Tensor, "N C"], seed: int = 0) -> None:
        """Raise EstimatorError unless draws follow their generator and are independent.

        A few calls show whether equal generators give equal draws and others give others, and
        whether draws of one call are more alike than draws of different calls.
        """
        row = f"{self.name}|randomness"
        means, squares, fourths = [], [], []
        calls = [self(f, logits, _EACH, block_generator(seed, row, call)) for call in range(_CALLS)]
        again = self(f, logits, _EACH, block_generator(seed, row, 0))
        if not torch.equal(calls[0], again):
            raise EstimatorError(
                f"{self.name} does not follow its generator: two calls with the same one differ; "
                "draw all noise with generator=generator, or by torch where it takes no generator"
            )
        if all(torch.equal(calls[0], other) for other in calls[1:]):
            if bool((calls[0] != calls[0][0]).any()):
                raise EstimatorError(
                    f"{self.name} ignores its generator: other generators give the same draws"
                )
            return
        if all(bool((call == call[0]).all()) for call in calls):
            raise EstimatorError(
                f"{self.name} returns one draw n times: draws must be independent; give each its "
                "own noise"
            )
        every = torch.stack(calls).to(torch.float64)
        centre = every.mean((0, 1))
        for call in every:
            means.append((call.mean(0) - centre).square().sum())
            radius = (call - centre).square().sum((-2, -1))
            squares.append(radius.sum())
            fourths.append(radius.square().sum())
        count = _CALLS * _EACH
        variance = sum(squares) / (count - 1)
        ratio = float(_EACH * sum(means) / (_CALLS - 1) / variance)
        kurtosis = float(sum(fourths) / count / variance**2)
        # The ratio is 1 on average; eight of its standard deviations, kurtosis included.
        if ratio > 1 + 8 * math.sqrt((2 + kurtosis / _EACH) / (_CALLS - 1)):
            raise EstimatorError(
                f"draws of {self.name} are not independent: means over {_EACH} draws of one call "
                f"vary {ratio:.0f} times as much as they should; is noise shared by draws?"
            )


def draws_of(code: Code) -> Draws:
    """Return the draws of an estimator, its class or text, or of code of one of these forms.

    By the names of its arguments: `draw(f, logits, n, generator)` returns n draws [n, N, C];
    `surrogate(f, logits, generator)` returns values [n] for logits [n, N, C], and `sample(logits,
    generator)` returns x [n, N, C] for f to be evaluated at, the estimate being the gradient with
    respect to the logits. So does an nn.Module called with logits alone, such as a
    `CategoricalLayer`. Code without `generator` draws from torch's global one, which is seeded for
    it and left as it was; a module that keeps a generator gets another one meanwhile. An attribute
    `order` says what the code claims. Raises TypeError for anything else.
    """
    if isinstance(code, CodeEstimator):
        return code.drawn
    if isinstance(code, str):
        code = parse(code)
    if isinstance(code, type) and issubclass(code, Estimator):
        try:
            code = code()
        except TypeError as error:
            raise TypeError(f"{code} needs arguments: {error}; give an object") from error
    if isinstance(code, Estimator):
        return Draws(str(code), _draw_of(code), code, code.order)
    if not callable(code):
        raise TypeError(f"cannot draw from {type(code).__name__}; give {_FORMS}")
    name = getattr(code, "__name__", type(code).__name__)
    arguments = _arguments(code)
    order = getattr(code, "order", None)
    call = _seeded(code, arguments)
    if isinstance(code, nn.Module) and len(arguments - {"generator"}) == 1:
        (only,) = arguments - {"generator"}
        with_layer = _with_generator(code, call)
        return _of_sample(name, lambda logits, g: with_layer(g, **{only: logits}), order)
    if "logits" not in arguments:
        has = f"its arguments are {', '.join(sorted(arguments))}" if arguments else "it names none"
        raise TypeError(
            f"cannot draw from {name}: no argument is called logits, {has}; give {_FORMS}"
        )
    if "n" in arguments:

        def draw(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
            return call(generator, f=f, logits=logits, n=n)

        return Draws(name, draw, order=order)
    if "f" in arguments:
        return _of_surrogate(name, lambda f, logits, g: call(g, f=f, logits=logits), order=order)
    return _of_sample(name, lambda logits, g: call(g, logits=logits), order)


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


_KNOWN = ("f", "logits", "n", "generator")


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


def _draw_of(estimator: Estimator) -> Source:
    """Return the draws of an estimator: its `draw`; for a batch of logits, what trains."""
    surrogate = _of_surrogate(str(estimator), estimator.surrogate, estimator=estimator).source

    def draw(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        of = estimator.draw if logits.ndim == 2 else surrogate
        return of(f, logits, n, generator)

    return draw


def _of_sample(name: str, sample: Callable[[Tensor, Generator], Any], order: float | None) -> Draws:
    """Return the draws by back-propagating f at a sample."""

    def surrogate(f: Loss, leaf: Tensor, generator: Generator) -> Tensor:
        x = sample(leaf, generator)
        if not isinstance(x, Tensor) or x.shape != leaf.shape:
            got = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise EstimatorError(
                f"{name} must return x of the shape of logits {list(leaf.shape)}, not {got}"
            )
        return f(x)

    return _of_surrogate(name, surrogate, order=order)


def _of_surrogate(
    name: str,
    surrogate: Callable[[Loss, Tensor, Generator], Any],
    *,
    estimator: Estimator | None = None,
    order: float | None = None,
) -> Draws:
    """Return the draws by the backward of a surrogate, a row of logits for each."""

    def draw(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        leaf = logits.expand(n, *logits.shape).clone().requires_grad_()
        with torch.enable_grad():
            values = surrogate(f, leaf, generator)
            rows = [n, *logits.shape[:-2]]
            if not isinstance(values, Tensor) or list(values.shape) != rows:
                got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise EstimatorError(
                    f"{name} must give one value for each of {math.prod(rows)} logits [n, N, C], "
                    f"not {got}; do not average over the batch"
                )
            if not values.requires_grad:
                if why_no_gradient(f, draw_one_hot(probabilities(logits), generator)):
                    raise NotDifferentiableError
                raise EstimatorError(
                    f"the value of {name} does not depend on the logits through torch: is "
                    "something detached, or a module in eval mode?"
                )
            (g,) = torch.autograd.grad(values.sum(), leaf, allow_unused=True)
        if g is None:
            raise EstimatorError(f"no gradient of {name} reaches the logits")
        return g

    return Draws(name, draw, estimator, order, TRAINING, surrogate)


@dataclass(frozen=True, repr=False, eq=False)
class CodeEstimator(Estimator):
    """Code that declares nothing, as an Estimator: for `compare`, `recommend` and the probe.

    It may be biased on every f (`order` -1), and its cost is measured.
    """

    drawn: Draws

    order: ClassVar[float] = -1
    needs_gradient: ClassVar[bool] = False
    reference: ClassVar[str] = "code of the user"

    @property
    def name(self) -> str:  # type: ignore[override]
        """What the code is called."""
        return self.drawn.name

    def text(self, *, without: str | None = None) -> str:
        """Return the name of the code."""
        return self.name

    def supports(self, f: Loss, logits: Float[Tensor, "N C"]) -> str | None:
        """Return why the code cannot be used on f, after a draw, or None."""
        try:
            self.draw(f, logits, 2, block_generator(0, f"{self.name}|tried"))
        except NotDifferentiableError as error:
            return str(error)
        return None

    def draw(
        self, f: Loss, logits: Float[Tensor, "N C"], n: int, generator: Generator | None = None
    ) -> Float[Tensor, "n N C"]:
        """Return n draws of the code."""
        return self.drawn(f, logits, n, _given(generator)).to(logits.dtype)

    def surrogate(
        self, f: Loss, logits: Float[Tensor, "*batch N C"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch"]:
        """Return the values of the code; a function that only draws has none to train with."""
        if self.drawn.surrogate is None:
            raise EstimatorError(
                f"{self.name} returns draws only, so that it can be analysed for logits [N, C] but "
                "not put to a batch; give surrogate(f, logits, generator) or sample(logits, "
                "generator)"
            )
        return self.drawn.surrogate(f, logits, _given(generator))


def _given(generator: Generator | None) -> Generator:
    if generator is not None:
        return generator
    return Generator().manual_seed(int(torch.randint(2**62, (1,))))


def estimator_of(code: Code) -> Estimator:
    """Return the estimator that code is: itself, or its draws as a `CodeEstimator`.

    Raises TypeError for what is nothing to draw from (see `draws_of`), ValueError for an unknown
    name.
    """
    drawn = draws_of(code)
    return CodeEstimator(drawn) if drawn.estimator is None else drawn.estimator
