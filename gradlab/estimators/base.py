"""The contract of an estimator of d/dlogits E f(x), x ~ Categorical(softmax(logits)).

An estimator is a frozen dataclass whose fields are its hyperparameters. A family overrides few
methods: `sample` and a product (pathwise estimators), or `estimate` (those that need values of f
only).
"""

from abc import ABC, abstractmethod
from dataclasses import fields, replace
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import draw_one_hot, probabilities
from gradlab.estimators._second_argument import BINDS
from gradlab.loss import Loss, why_no_gradient

__all__ = ["FAMILIES", "Estimator"]

# typing.Self, for a checker of types that decorates methods one by one.
Own = TypeVar("Own", bound="Estimator")


FAMILIES = (
    "score function",
    "sums over classes or states",
    "coupled samples",
    "control variates",
    "straight-through",
    "Gumbel noise",
)
"""What `Estimator.family` may be, in the order of legends."""


class Estimator(ABC):
    r"""An estimator of g = d/dlogits E f(x), x ~ Categorical(softmax(logits)).

    Subclasses are frozen dataclasses. Their fields are hyperparameters, and what `fit` or `updated`
    found. What a class declares is never guessed from the name of a field. Their methods are
    written for an f of x alone. A loss that sees the logits (`gradlab.with_parameters`) reaches
    them as such a function, whose graph carries df/dlogits; its draws are the backward of rows of
    surrogates.

    Declares:
        name: The short name of the text form, such as `GR`.
        aliases: Other names that `gradlab.parse` reads, such as `RLOO`. The name of the class need
            not stand here.
        family: One of `FAMILIES`; it gives colours and the order of legends.
        order: Exact when f is a polynomial of at most this degree in each variable. inf means
            unbiased for every f, 0 exact for constants only.
        needs_gradient: Whether it needs the gradient of f.
        reference: The paper that introduced it.
        temperature_field: The field that is a temperature, or None.
        fitted_fields: The fields that `fit` finds. None of them: there is nothing to fit.
        learned_fields: Those of them that only `fit` can give. The text form leaves them out.
        fit_steps: Optimizer steps that `fit` takes by default. None where it takes no steps.
        running_field: The field, a number, that `updated` moves after each training step, or None.
        line_alpha: alpha where it is (1 - alpha/2) ST + (alpha/2) DARN, which is known for samples
            of every distribution; else None.

    Example:
        >>> import gradlab
        >>> gradlab.GumbelRao(tau=0.5, k=4).temperature_field
        'tau'
        >>> gradlab.GumbelRao(tau=0.5, k=4).at_temperature(0.1)
        GR(tau=0.1, k=4)
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    family: ClassVar[str] = "other"
    order: ClassVar[float]
    needs_gradient: ClassVar[bool]
    reference: ClassVar[str]
    temperature_field: ClassVar[str | None] = None
    fitted_fields: ClassVar[tuple[str, ...]] = ()
    learned_fields: ClassVar[tuple[str, ...]] = ()
    fit_steps: ClassVar[int | None] = None
    running_field: ClassVar[str | None] = None
    line_alpha: ClassVar[float | None] = None

    def __init_subclass__(cls, draws_itself: bool = False, **options: Any) -> None:
        # So a family, or code of a user's, writes its methods for an f of x alone.
        super().__init_subclass__(**options)
        for name, binds in BINDS.items():
            if name in vars(cls) and not (draws_itself and name == "draw"):
                setattr(cls, name, binds(vars(cls)[name]))

    def calls(self, classes: int, variables: int = 1) -> int:
        """Evaluations of f that one draw spends on so many variables of so many classes."""
        return 1

    def footprint(self, variables: int, classes: int) -> int:
        """Return about how many numbers one draw holds at once.

        Args:
            variables: N, the number of variables.
            classes: C, the number of classes of each.

        Returns:
            N C times the evaluations of f by default. Families with inner noise or tables count
            these too.

        Example:
            >>> import gradlab
            >>> gradlab.LeaveOneOut(m=4).footprint(10, 3)
            120
        """
        return variables * classes * self.calls(classes, variables)

    @abstractmethod
    def draw(
        self,
        f: Loss,
        logits: Float[Tensor, "N C"],
        n: int,
        generator: Generator | None = None,
    ) -> Float[Tensor, "n N C"]:
        """Return n independent replicates of the estimate of d/dlogits E f(x), dtype of logits."""

    @abstractmethod
    def surrogate(
        self, f: Loss, logits: Float[Tensor, "*batch N C"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch"]:
        """Return values whose backward is one estimate for the logits and f's own gradient."""

    def refusal(self, logits: Float[Tensor, "*batch C"]) -> str | None:
        """Return the reason why logits of this shape cannot be used, or None if they can."""
        return None

    def accepted(self, logits: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
        """Return the logits, or raise ValueError with the `refusal`, if there is one."""
        reason = self.refusal(logits)
        if reason is not None:
            raise ValueError(reason)
        return logits

    @BINDS["supports"]
    def supports(self, f: Loss, logits: Float[Tensor, "N C"]) -> str | None:
        """Return why this estimator cannot be used on f or on logits of this shape, or None."""
        # Whoever asks keeps his logits, whatever a refusal does to them.
        refused = self.refusal(logits.clone())
        if refused or not self.needs_gradient:
            return refused
        return why_no_gradient(f, draw_one_hot(probabilities(logits), torch.Generator(), 1))

    @property
    def temperature_value(self) -> float | None:
        """The temperature, or None for an estimator without one."""
        name = self.temperature_field
        return None if name is None else getattr(self, name)

    @property
    def series(self) -> str:
        """The text form without the temperature: what rows at several temperatures share."""
        return self.text(without=self.temperature_field)

    def at_temperature(self: Own, tau: float) -> Own:
        """Return this estimator at another temperature.

        Args:
            tau: The new temperature, a positive number.

        Raises:
            ValueError: The estimator has no temperature, or cannot have this one.

        Example:
            >>> import gradlab
            >>> gradlab.GumbelSoftmax().at_temperature(0.3)
            GS(tau=0.3)
        """
        if self.temperature_field is None:
            raise ValueError(f"{self} has no temperature")
        return self.with_(**{self.temperature_field: tau})

    def with_(self: Own, **fields: object) -> Own:
        """Return this estimator with other values of some fields.

        Args:
            **fields: New values by the names of their fields.

        Raises:
            TypeError: A name is not a field.
            ValueError: A value is not allowed.

        Example:
            >>> import gradlab
            >>> gradlab.GumbelRao(tau=0.5, k=4).with_(k=8)
            GR(tau=0.5, k=8)
        """
        return replace(self, **fields)  # type: ignore[type-var]

    def fit(
        self: Own,
        f: Loss,
        logits: Float[Tensor, "N C"],
        draws: int = 4096,
        generator: Generator | None = None,
        *,
        steps: int | None = None,
    ) -> Own:
        """Return this estimator with `fitted_fields` that lower its variance; its mean stays.

        Args:
            f: The loss.
            logits: Where it is fitted, [N, C].
            draws: How many samples or draws the fit is made from.
            generator: The source of random numbers; by default the global one.
            steps: Optimizer steps, where a fit takes steps; by default `fit_steps`.

        Returns:
            A new estimator, or this one where there is nothing to fit.
        """
        return self

    def updated(self: Own, values: Float[Tensor, "*batch"]) -> Own:
        """Return the estimator of the next training step.

        Args:
            values: What f was in the step that is done, any shape.

        Returns:
            A new estimator with another `running_field`, or this one where it has none.
        """
        return self

    def score_weights(self, values: Float[Tensor, "m ..."]) -> Float[Tensor, "m ..."] | None:
        """Return the weights of the scores of a draw's samples, if f enters the draw by them alone.

        Such a draw is the sum over its m samples of weight times score, whatever is sampled: one
        layer or a whole network.

        Args:
            values: What f is at m samples.

        Returns:
            The weights, or None for all other estimators.
        """
        return None

    def text(self, *, without: str | None = None) -> str:
        """Return the text form, such as `GR(tau=0.1, k=10)`, leaving out the field named `without`.

        `gradlab.parse` reads the full form back. The `learned_fields` are not shown.
        """
        shown = [
            f"{field}={_text(getattr(self, field))}"
            for field in self.written_fields()
            if field != without
        ]
        return f"{self.name}({', '.join(shown)})" if shown else self.name

    @classmethod
    def written_fields(cls) -> tuple[str, ...]:
        """Return the names of the fields that the text form shows, in their order."""
        names = [field.name for field in fields(cls) if field.repr]  # type: ignore[arg-type]
        return tuple(name for name in names if name not in cls.learned_fields)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()


def _text(value: object) -> str:
    if value is None:
        return "inf"
    if not isinstance(value, int | float):
        return repr(value)
    short = f"{value:.12g}"
    return short if float(short) == value else repr(float(value))
