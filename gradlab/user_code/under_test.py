"""Draws of any estimator: one of gradlab's, or code as users write it.

What a user's code does wrong is named in one line: it raises, returns another shape or NaN, or
draws that are not independent replicates (see `gradlab.user_code.replicates`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.checks import check_int
from gradlab.estimators import Estimator, parse
from gradlab.exact.mechanism import is_shipped
from gradlab.loss import Loss, LossError, NotDifferentiableError
from gradlab.loss.gate import Objective
from gradlab.reproducible import block_generator, generator_on
from gradlab.user_code.forms import Source, Surrogate, form_of, name_of_code, of_surrogate
from gradlab.user_code.objects import line_of
from gradlab.user_code.replicates import check_replicates
from gradlab.user_code.seeded_calls import EstimatorError

__all__ = [
    "DRAW",
    "TRAINING",
    "Code",
    "CodeEstimator",
    "Draws",
    "EstimatorDtypeError",
    "EstimatorError",
    "batched",
    "draws_of",
    "estimator_of",
]

DRAW, TRAINING = "draw", "training"
"""What draws are of: what is analysed, `draw`; or what trains, the backward of a surrogate."""


class EstimatorDtypeError(EstimatorError):
    """The code does not work in the dtype of the logits, but in another."""


Code = Estimator | type[Estimator] | Callable[..., Tensor] | str
"""What is verified: an estimator, its class, its text form, or a function (see `draws_of`)."""


@dataclass(frozen=True)
class Draws:
    """Draws of the code that `draws_of` was given.

    Args:
        name: The name of the code.
        source: Makes the draws.
        estimator: The estimator, if it is one of gradlab's.
        order: What the code declares (see `Estimator`), or None where it declares nothing.
        of: "draw" or "training".
        surrogate: A function of f, leaf and generator. It returns the values [n, ...] whose
            backward the draws are; None where there is no such function.
        code: The code itself.
        batch: The number of samples whose mean is one draw, or None (see `batched`).
    """

    name: str
    source: Source
    estimator: Estimator | None = None
    order: float | None = None
    of: str = DRAW
    surrogate: Surrogate | None = None
    code: object = None
    batch: int | None = None

    @property
    def is_shipped(self) -> bool:
        """Whether this is an estimator of gradlab's, nothing in it replaced."""
        return self.estimator is not None and is_shipped(self.estimator)

    @property
    def training(self) -> "Draws":
        """Draws of what trains with the same code."""
        if self.of == TRAINING or self.estimator is None:
            return self
        form = of_surrogate(self.name, self.estimator.surrogate)
        return replace(self, source=form.source, of=TRAINING, surrogate=form.surrogate)

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
            other = self._works_in(f, logits, generator)
            if other is not None:
                reason = " ".join(str(error).split())[:200]
                asked = str(logits.dtype).removeprefix("torch.")
                raise EstimatorDtypeError(
                    f"{self.name} works on logits of {other} but not of {asked} ({reason}); pass "
                    f"logits.to(torch.{other})"
                ) from error
            raise EstimatorError(
                f"{self.name} raised {type(error).__name__}: {error}{line_of(error)}"
            ) from error
        if not isinstance(g, Tensor) or not g.is_floating_point():
            kind = f"a {g.dtype} tensor" if isinstance(g, Tensor) else type(g).__name__
            raise EstimatorError(f"{self.name} must return a floating-point tensor, not {kind}")
        if g.shape != (n, *logits.shape):
            raise EstimatorError(
                f"{self.name} must return {self._shape_in_words(logits)} = "
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
                    f"{self._place_in_words(at[1:])}"
                )
        return g

    def _shape_in_words(self, logits: Tensor) -> str:
        return f"[n, {'B, ' * (logits.ndim - 2)}N, C]"

    def _place_in_words(self, at: tuple[int, ...]) -> str:
        return f"variable {at[-2]}, class {at[-1]}"

    def _averaged(self) -> Source:
        """Return the draws of code that may return the mean over its batch."""
        return form_of(self.code, self.name, averaged=True).source

    def _works_in(self, f: Loss, logits: Tensor, generator: Generator) -> str | None:
        """Return another dtype of logits that the code takes, found by a draw, None if neither."""
        for other in (torch.float32, torch.float64):
            if other == logits.dtype:
                continue
            try:
                self.source(f, logits.detach().to(other), 2, generator_on(logits.device, generator))
            except Exception:
                continue
            return str(other).removeprefix("torch.")
        return None

    def check_randomness(self, f: Loss, logits: Float[Tensor, "*batch N C"], seed: int = 0) -> None:
        """Raise EstimatorError unless draws follow their generator and are independent replicates.

        See `gradlab.user_code.replicates.check_replicates`.
        """
        together = self.batch is None
        check_replicates(self, f, logits, seed, name=self.name, code=self.code, together=together)


def draws_of(code: Code) -> Draws:
    """Return the draws of an estimator, its class or text, or of code of one of these forms.

    The names of its arguments say which form a function has:

    - `draw(f, logits, n, generator)` returns n draws [n, N, C];
    - `surrogate(f, logits, generator)` returns values [n] for logits [n, N, C], and its backward is
      the estimate;
    - `sample(logits, generator)` returns x [n, N, C]; f is evaluated at x, and the estimate is the
      gradient for the logits. An nn.Module that is called with logits alone, such as a
      `CategoricalLayer`, is of this form.

    Code without `generator` draws from torch's global one, which is seeded for it and restored. A
    module that keeps a generator gets another one meanwhile.

    Args:
        code: an Estimator, its class or text, or code of one of the forms above. Its attribute
            `order`, if it has one, says up to which degree it claims to be exact.

    Returns:
        The draws, with the name and the claimed order of the code.

    Raises:
        TypeError: `code` has none of these forms.

    Example:
        >>> draws_of("GS-ST(tau=0.5)").name
        'GS-ST(tau=0.5)'
    """
    if isinstance(code, CodeEstimator):
        return code.drawn
    if isinstance(code, str):
        code = parse(code)
    if isinstance(code, type) and issubclass(code, Estimator):
        kind = code.__name__
        try:
            code = code()
        except TypeError as error:
            raise TypeError(
                f"{kind} cannot be made without arguments: {error}; give an object of it"
            ) from error
    if isinstance(code, Estimator):
        return Draws(str(code), _draw_of(code), code, code.order, code=code)
    form = form_of(code, _named(code))
    order = getattr(code, "order", None)
    of = DRAW if form.surrogate is None else TRAINING
    return Draws(form.name, form.source, None, order, of, form.surrogate, code)


def _named(code: object) -> str:
    """Return what code is called; a layer of an estimator by that one too."""
    name, inner = name_of_code(code), getattr(code, "estimator", None)
    return f"{name}({inner})" if isinstance(inner, Estimator) else name


def _draw_of(estimator: Estimator) -> Source:
    """Return the draws of an estimator: its `draw`; for a batch of logits, what trains."""
    surrogate = of_surrogate(str(estimator), estimator.surrogate).source

    def draw(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        of = estimator.draw if logits.ndim == 2 else surrogate
        return of(f, logits, n, generator)

    return draw


def batched(drawn: Draws, batch: int) -> Draws:
    """Return draws of which each is the mean over one call of the code with `batch` samples.

    So code that uses statistics of its batch is judged as an estimator of that many samples. A
    surrogate may then also return the mean over the batch, of shape []: the draw is the sum of the
    gradients of all logits of the batch. Raises ValueError for bad arguments.
    """
    check_int("batch", batch, 1)
    if drawn.batch is not None:
        raise ValueError(f"{drawn.name} is batched already")
    one, name = drawn, f"{drawn.name} in batches of {batch}"
    if drawn.estimator is None:
        one = replace(drawn, source=drawn._averaged())

    def draw(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
        return torch.stack([one(f, logits, batch, generator).mean(0) for _ in range(n)])

    return replace(drawn, name=name, source=draw, estimator=None, surrogate=None, batch=batch)


@dataclass(frozen=True, repr=False, eq=False)
class CodeEstimator(Estimator, draws_itself=True):
    """Code that declares nothing, as an Estimator: for `compare`, `recommend` and the probe.

    It may be biased on every f (`order` -1), and its cost is measured.

    Args:
        drawn: The draws of the code.
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
        """Return n draws of the code, which is given logits in the dtype of the caller's."""
        at = logits.to(f.dtype) if isinstance(f, Objective) else logits
        return self.drawn(f, at, n, _given(generator)).to(logits.dtype)

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

    Args:
        code: An Estimator, its text, or your own code in a form that `draws_of` accepts.

    Returns:
        The estimator.

    Raises:
        TypeError: If it is nothing to draw from (see `draws_of`).
        ValueError: If its name is unknown.

    Example:
        >>> estimator_of("ZGR")
        ZGR
    """
    drawn = draws_of(code)
    return CodeEstimator(drawn) if drawn.estimator is None else drawn.estimator
