"""Draws of any estimator where x is drawn from a distribution with finitely many states.

An estimator of gradlab is drawn by its formula for distributions; your own code gets the parameters
where it gets logits elsewhere.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from gradlab.distributions.base import FiniteDistribution, with_gradient
from gradlab.distributions.gradient import base_of
from gradlab.estimators import Estimator, parse
from gradlab.exact.fitting import samples_of
from gradlab.exact.mechanism import is_shipped
from gradlab.exact.structures import Structured
from gradlab.exact.tuples import NotExactError
from gradlab.loss import Loss, NotDifferentiableError
from gradlab.reproducible import block_generator
from gradlab.user_code.forms import Place, Source, form_of
from gradlab.user_code.replicates import check_replicates
from gradlab.user_code.seeded_calls import EstimatorError
from gradlab.user_code.under_test import DRAW, TRAINING, Code, CodeEstimator, Draws, draws_of

__all__ = [
    "DrawsOn",
    "draws_on",
    "has_own_rsample",
    "place_of",
    "takes_batches",
    "trained_at",
    "trains",
    "why_not_on",
]

# Rows of parameters by which it is asked whether a distribution takes a batch of them.
_ROWS = 7


@dataclass(frozen=True)
class DrawsOn(Draws):
    """Draws of code on a distribution, [n, *parameters]; made by `draws_on`.

    Args:
        on: The loss, the parameters and the distribution.
    """

    on: Structured | None = None

    @property
    def where(self) -> Structured:
        """The loss, the parameters and the distribution."""
        assert self.on is not None
        return self.on

    @property
    def training(self) -> "DrawsOn":
        """Draws by the backward of `rsample`, if the estimator can stand behind it."""
        if self.of == TRAINING or self.estimator is None:
            return self
        by = _rsampled if has_own_rsample(self.where) else _trained
        return replace(self, source=partial(by, self.where, self.estimator), of=TRAINING)

    def calls(self, classes: int, variables: int = 1) -> int:
        """Return how many samples one draw is made of; 1 where that is not known."""
        return 1 if self.estimator is None else samples_of(self.estimator)

    def at(self, logits: Tensor) -> Tensor:
        """Return the parameters that the code is given: see `Draws.at`."""
        logits = logits.detach()
        return logits.to("cpu", torch.float64) if self.is_shipped else logits

    def check_randomness(self, f: Loss, logits: Tensor, seed: int = 0) -> None:
        """Raise EstimatorError unless draws are independent replicates: see `Draws`."""
        x = self.where.sample(64, Generator().manual_seed(0))
        with torch.no_grad():
            scale = float(self.where.objective(x).abs().max())
        together = self.batch is None
        given: dict[str, Any] = {
            "name": self.name,
            "code": self.code,
            "together": together,
            "scale": scale,
        }
        check_replicates(self, f, logits, seed, **given)

    def _shape_in_words(self, logits: Tensor) -> str:
        return "[n, *shape of the parameters]"

    def _place_in_words(self, at: tuple[int, ...]) -> str:
        return f"parameter {list(at)}"

    def _averaged(self) -> Source:
        return form_of(self.code, self.name, averaged=True, place=place_of(self.where)).source


def draws_on(code: Code, on: Structured) -> DrawsOn:
    """Return the draws of an estimator, or of your own code, where x is drawn from a distribution.

    Your own code has the forms that `draws_of` reads. `logits` are the parameters, of any shape:

    - `draw(f, logits, n, generator)` returns n draws [n, *parameters];
    - `surrogate(f, logits, generator)` gets n rows of parameters [n, *parameters] and returns n
      values, whose backward is the estimate;
    - `sample(logits, generator)` gets n rows of parameters and returns x [n, *shape of x]; f is
      evaluated at x.

    f maps x [..., *shape of x] to values [...]. Code with an argument `distribution` is given the
    function from parameters to the distribution. Where that takes no batch of parameters such code
    is called once for each draw, with the parameters alone.

    Args:
        code: An estimator, its class or text, or code of one of these forms.
        on: The loss, the parameters and the distribution.

    Returns:
        The draws.

    Raises:
        TypeError: `code` has none of these forms.

    Example:
        >>> from gradlab.distributions import KSubset
        >>> on = Structured(lambda x: x[..., 0], torch.zeros(4), lambda p: KSubset(p, 2))
        >>> drawn = draws_on("ZGR", on)
        >>> drawn(on.f, on.parameters, 3, torch.Generator().manual_seed(0)).shape
        torch.Size([3, 4])
    """
    if isinstance(code, CodeEstimator):
        code = code.drawn.code  # type: ignore[assignment]
    known = draws_of(code) if isinstance(code, Estimator | str | type) else None
    if known is not None:
        estimator = known.estimator
        assert estimator is not None

        def draw(f: Loss, logits: Tensor, n: int, generator: Generator) -> Tensor:
            return on.draws(estimator, n, generator)

        return DrawsOn(known.name, draw, estimator, known.order, code=estimator, on=on)
    form = form_of(code, place=place_of(on))
    of = DRAW if form.surrogate is None else TRAINING
    order = getattr(code, "order", None)
    return DrawsOn(form.name, form.source, None, order, of, form.surrogate, code, on=on)


def place_of(on: Structured) -> Place:
    """Return what code of the user's is told of the distribution.

    Args:
        on: The loss, the parameters and the distribution.

    Returns:
        The shapes, and the distribution itself.
    """

    def sample(n: int, generator: Generator) -> Tensor:
        return on.sample(n, generator).reshape(n, *on.shape)

    return Place(on.parameters.ndim, on.shape, sample, on.distribution, takes_batches(on))


def takes_batches(on: Structured) -> bool:
    """Return whether rows of parameters [n, *parameters] give n independent distributions.

    Args:
        on: The loss, the parameters and the distribution.

    Returns:
        Whether shapes and log-probabilities are those of each row alone.

    Example:
        >>> from gradlab.distributions import KSubset
        >>> on = Structured(lambda x: x[..., 0], torch.zeros(4), lambda p: KSubset(p, 2))
        >>> takes_batches(on)
        True
    """
    rows = on.parameters.expand(_ROWS, *on.parameters.shape).clone()
    source = block_generator(0, "rows of parameters")
    x = on.sample(_ROWS, source).reshape(_ROWS, *on.shape)
    try:
        with torch.no_grad():
            batch = on.distribution(rows)
            if batch.batch_shape + batch.event_shape != (_ROWS, *on.shape):
                return False
            found = base_of(batch).log_prob(x).reshape(_ROWS, -1).sum(-1)
            alone = base_of(on.distribution(on.parameters)).log_prob(x).reshape(_ROWS, -1)
    except Exception:  # a function for one set of parameters
        return False
    return torch.allclose(found, alone.sum(-1), rtol=1e-6, atol=1e-6)


def why_not_on(estimator: Estimator, on: Structured) -> str | None:
    """Return why an estimator cannot be used where x is drawn from this distribution, or None.

    Args:
        estimator: The estimator.
        on: The loss, the parameters and the distribution.

    Returns:
        The reason in words.

    Example:
        >>> from gradlab import parse
        >>> from gradlab.distributions import KSubset
        >>> on = Structured(lambda x: x[..., 0], torch.zeros(4), lambda p: KSubset(p, 2))
        >>> why_not_on(parse("ZGR"), on) is None, why_not_on(parse("ARM"), on)[:12]
        (True, 'ARM is not k')
    """
    if isinstance(estimator, CodeEstimator):
        return None
    if not is_shipped(estimator):
        return (
            f"{estimator} is written for independent categorical variables; for a distribution "
            "give your code as a function: draw(f, logits, n, generator), surrogate(f, logits, "
            "generator) or sample(logits, generator)"
        )
    try:
        on.draws(estimator, 2, block_generator(0, "tried"))
    except (NotExactError, NotDifferentiableError, ValueError) as error:
        return str(error)
    return None


def trains(estimator: Estimator | None, on: Structured) -> bool:
    """Return whether the backward of `rsample` of this distribution can be that of the estimator.

    Args:
        estimator: The estimator.
        on: The loss, the parameters and the distribution.

    Returns:
        True for ST, ZGR, DARN and ST-ZGR where the distribution is one of `gradlab.distributions`;
        a subclass with an `rsample` of its own trains with the estimator that it names.
    """
    if estimator is None or estimator.line_alpha is None:
        return False
    drawn = on.distribution(on.parameters)
    if not isinstance(drawn, FiniteDistribution):
        return False
    return not has_own_rsample(on) or parse(str(drawn.estimator)) == estimator


def has_own_rsample(on: Structured) -> bool:
    """Return whether a subclass of `gradlab.distributions` has an `rsample` of its own.

    Args:
        on: The loss, the parameters and the distribution.

    Returns:
        Whether what trains is other code than that of `gradlab.distributions`.
    """
    drawn = on.distribution(on.parameters)
    shipped = FiniteDistribution.rsample
    return isinstance(drawn, FiniteDistribution) and type(drawn).rsample is not shipped


def _rsampled(
    on: Structured, estimator: Estimator, f: Loss, logits: Tensor, n: int, generator: Generator
) -> Tensor:
    """Return n draws by the backward of f at what the distribution's own `rsample` returns."""
    together = takes_batches(on)
    leaf = logits.detach().expand(n, *logits.shape).clone().requires_grad_()
    with torch.enable_grad():
        rows = [leaf] if together else list(leaf)
        drawn = [on.distribution(row) for row in rows]
        x = [d.rsample(generator=generator) for d in drawn]  # type: ignore[call-arg]
        values = f(x[0] if together else torch.stack(x))
    if not any(one.requires_grad for one in x):
        raise EstimatorError(
            f"rsample of {type(drawn[0]).__name__} returns samples without a gradient; "
            "judge='draw' judges the formula alone"
        )
    if not values.requires_grad:
        raise NotDifferentiableError
    (g,) = torch.autograd.grad(values.sum(), leaf)
    return g


def _trained(
    on: Structured, estimator: Estimator, f: Loss, logits: Tensor, n: int, generator: Generator
) -> Tensor:
    """Return n draws by the backward of f at samples, all rows of parameters together."""
    x = on.sample(n, generator).reshape(n, *on.shape).to(logits)
    return trained_at(on, estimator, f, logits, x)


def trained_at(on: Structured, estimator: Estimator, f: Loss, logits: Tensor, x: Tensor) -> Tensor:
    """Return the backward of f at each x, through what `rsample` returns, in the dtype of logits.

    Args:
        on: The loss, the parameters and the distribution.
        estimator: ST, ZGR, DARN or ST-ZGR.
        f: The loss, x [..., *shape of x] -> [...].
        logits: The parameters.
        x: Samples [n, *shape of x].

    Returns:
        One estimate for each, [n, *parameters].
    """
    alpha = estimator.line_alpha
    assert alpha is not None
    if not takes_batches(on):
        return torch.stack([_backward(on, alpha, f, logits, one) for one in x])
    return _backward(on, alpha, f, logits.expand(len(x), *logits.shape), x)


def _backward(on: Structured, alpha: float, f: Loss, logits: Tensor, x: Tensor) -> Tensor:
    leaf = logits.detach().clone().requires_grad_()
    with torch.enable_grad():
        # What `rsample` returns, with its samples given.
        values = f(with_gradient(on.distribution(leaf), x, alpha))
        if not values.requires_grad:
            raise NotDifferentiableError
        (g,) = torch.autograd.grad(values.sum(), leaf)
    return g
