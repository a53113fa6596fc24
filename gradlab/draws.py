"""Draws of any estimator: one of gradlab's, or a function as users write them.

What a user's code does wrong is told in one line that names the fault: it raises, returns another
shape or NaN, does not follow its generator, or repeats its draws.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import draw_one_hot, probabilities
from gradlab.estimators import Estimator, parse
from gradlab.loss import Loss, LossError, NotDifferentiableError, why_no_gradient
from gradlab.reproducible import block_generator
from gradlab.user_code import line_of

__all__ = ["Code", "Draws", "EstimatorError", "draws_of"]

Code = Estimator | type[Estimator] | Callable[..., Tensor] | str
"""What is verified: an estimator, its class, its text form, or a function (see `draws_of`)."""

_FORMS = (
    "an Estimator; draw(f, logits, n, generator) -> [n, N, C]; surrogate(f, logits, generator) -> "
    "values whose backward gives the estimate; or sample(logits, generator) -> x. A function "
    "without the argument generator draws from torch's global one"
)
# Calls and draws of each by which independence is judged.
_CALLS, _EACH = 32, 32


class EstimatorError(ValueError):
    """The code of an estimator broke its contract."""


@dataclass(frozen=True)
class Draws:
    """Draws of what `draws_of` was given: `name`, and the `estimator` if it is one of gradlab's.

    `order` is what it declares (see `Estimator`), or None where it declares nothing.
    """

    name: str
    source: Callable[[Loss, Tensor, int, Generator], Tensor]
    estimator: Estimator | None = None
    order: float | None = None

    def calls(self, classes: int, variables: int = 1) -> int:
        """Evaluations of f that one draw spends; 1 where that is not known."""
        return 1 if self.estimator is None else self.estimator.calls(classes, variables)

    def __call__(
        self, f: Loss, logits: Float[Tensor, "N C"], n: int, generator: Generator
    ) -> Float[Tensor, "n N C"]:
        """Return n draws.

        Raises EstimatorError if the code raises, or returns another shape, NaN or an infinity;
        LossError and NotDifferentiableError if f is at fault.
        """
        try:
            g = self.source(f, logits.detach().clone(), n, generator)
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
                f"{self.name} must return [n, N, C] = {[n, *logits.shape]} for n draws, "
                f"not {list(g.shape)}"
            )
        g = g.detach()
        if not torch.isfinite(g.sum()):
            bad = (~torch.isfinite(g)).nonzero()
            if len(bad):
                at = tuple(bad[0].tolist())
                share = len(bad[:, 0].unique()) / n
                raise EstimatorError(
                    f"{self.name} returned {g[at].item()} in {share:.2%} of {n} draws, first for "
                    f"variable {at[1]}, class {at[2]}"
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
    """Return the draws of an estimator, its class or text, or of a function of one of three forms.

    By the names of its arguments: `draw(f, logits, n, generator)` returns n draws [n, N, C];
    `surrogate(f, logits, generator)` returns values [n] for logits [n, N, C], and `sample(logits,
    generator)` returns x [n, N, C] for f to be evaluated at, the estimate being the gradient with
    respect to the logits. A function without `generator` draws from torch's global one, which is
    seeded for it and left as it was. An attribute `order` of a function says what it claims.
    Raises TypeError for anything else.
    """
    if isinstance(code, str):
        code = parse(code)
    if isinstance(code, type) and issubclass(code, Estimator):
        try:
            code = code()
        except TypeError as error:
            raise TypeError(f"{code} needs arguments: {error}; give an object") from error
    if isinstance(code, Estimator):
        return Draws(str(code), code.draw, code, code.order)
    if not callable(code):
        raise TypeError(f"cannot draw from {type(code).__name__}; give {_FORMS}")
    name = getattr(code, "__name__", type(code).__name__)
    try:
        arguments = set(inspect.signature(code).parameters)
    except (TypeError, ValueError):
        arguments = set()
    if "logits" not in arguments:
        raise TypeError(f"cannot draw from {name}: it has no argument called logits; give {_FORMS}")
    source = _drawing(code, name, arguments)
    return Draws(name, source, order=getattr(code, "order", None))


def _drawing(
    function: Callable[..., Any], name: str, arguments: set[str]
) -> Callable[[Loss, Tensor, int, Generator], Tensor]:
    def called(generator: Generator, **given: Any) -> Any:
        if "generator" in arguments:
            return function(generator=generator, **given)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, [1], generator=generator)))
            return function(**given)

    def draw(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        if "n" in arguments:
            return called(generator, f=f, logits=logits, n=n)
        leaf = logits.expand(n, *logits.shape).clone().requires_grad_()
        with torch.enable_grad():
            if "f" in arguments:
                values = called(generator, f=f, logits=leaf)
            else:
                x = called(generator, logits=leaf)
                if not isinstance(x, Tensor) or x.shape != leaf.shape:
                    got = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
                    raise EstimatorError(
                        f"{name} must return x of the shape of logits {list(leaf.shape)}, not {got}"
                    )
                values = f(x)
            if not isinstance(values, Tensor) or values.shape != (n,):
                got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise EstimatorError(
                    f"{name} must give one value for each of {n} logits [n, N, C], not {got}; do "
                    "not average over the batch"
                )
            if not values.requires_grad:
                if why_no_gradient(f, draw_one_hot(probabilities(logits), generator)):
                    raise NotDifferentiableError
                raise EstimatorError(
                    f"the value of {name} does not depend on the logits through torch"
                )
            (g,) = torch.autograd.grad(values.sum(), leaf, allow_unused=True)
        if g is None:
            raise EstimatorError(f"no gradient of {name} reaches the logits")
        return g

    return draw
