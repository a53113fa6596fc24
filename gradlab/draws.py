"""Draws of any estimator: one of gradlab's, or a function as users write them.

What a user's code does wrong is told in one line that names the fault: it raises, returns another
shape or NaN, or draws that are not independent replicates (see `gradlab.replicates`).
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import draw_one_hot, probabilities
from gradlab.estimators import Estimator, parse
from gradlab.loss import Loss, LossError, NotDifferentiableError, why_no_gradient
from gradlab.replicates import EstimatorError, check_replicates
from gradlab.user_code import line_of

__all__ = ["Code", "Draws", "EstimatorError", "batched", "draws_of"]

Code = Estimator | type[Estimator] | Callable[..., Tensor] | str
"""What is verified: an estimator, its class, its text form, or a function (see `draws_of`)."""

_FORMS = (
    "an Estimator; draw(f, logits, n, generator) -> [n, N, C]; surrogate(f, logits, generator) -> "
    "values whose backward gives the estimate; or sample(logits, generator) -> x. A function "
    "without the argument generator draws from torch's global one"
)


@dataclass(frozen=True)
class Draws:
    """Draws of what `draws_of` was given: `name`, and the `estimator` if it is one of gradlab's.

    `order` is what it declares (see `Estimator`), or None where it declares nothing; `code` what
    was given; `batch` the samples whose mean is one draw, or None (see `batched`).
    """

    name: str
    source: Callable[[Loss, Tensor, int, Generator], Tensor]
    estimator: Estimator | None = None
    order: float | None = None
    code: object = None
    batch: int | None = None

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
        """Raise EstimatorError unless draws follow their generator and are independent replicates.

        See `gradlab.replicates.check_replicates`.
        """
        together = self.batch is None
        check_replicates(self, f, logits, seed, name=self.name, code=self.code, together=together)


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
        return Draws(str(code), code.draw, code, code.order, code)
    if not callable(code):
        raise TypeError(f"cannot draw from {type(code).__name__}; give {_FORMS}")
    name = getattr(code, "__name__", type(code).__name__)
    arguments = _arguments(code)
    if "logits" not in arguments:
        raise TypeError(f"cannot draw from {name}: it has no argument called logits; give {_FORMS}")
    source = _drawing(code, name, arguments)
    return Draws(name, source, order=getattr(code, "order", None), code=code)


def batched(drawn: Draws, batch: int) -> Draws:
    """Return draws of which each is the mean over one call of the code with `batch` samples.

    So code that uses statistics of its batch is judged as an estimator of that many samples. A
    surrogate may then also return the mean over the batch, of shape []: the draw is the sum of the
    gradients of all logits of the batch. Raises ValueError for bad arguments.
    """
    if not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch must be an int of at least 1, not {batch!r}")
    if drawn.batch is not None:
        raise ValueError(f"{drawn.name} is batched already")
    one, name = drawn, f"{drawn.name} in batches of {batch}"
    if drawn.estimator is None and callable(drawn.code):
        source = _drawing(drawn.code, drawn.name, _arguments(drawn.code), averaged=True)
        one = replace(drawn, source=source)

    def draw(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        return torch.stack([one(f, logits, batch, generator).mean(0) for _ in range(n)])

    return replace(drawn, name=name, source=draw, estimator=None, batch=batch)


def _arguments(code: Callable[..., Any]) -> set[str]:
    called = code.forward if isinstance(code, torch.nn.Module) else code
    try:
        return set(inspect.signature(called).parameters)
    except (TypeError, ValueError):
        return set()


def _drawing(
    function: Callable[..., Any], name: str, arguments: set[str], *, averaged: bool = False
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
            if averaged and isinstance(values, Tensor) and values.shape == ():
                values = values.expand(n)
            if not isinstance(values, Tensor) or values.shape != (n,):
                got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise EstimatorError(
                    f"{name} must give one value for each of {n} logits [n, N, C], not {got}; do "
                    "not average over the batch, or verify(code, ..., batch=B)"
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
