"""Estimators in which code that runs is not the code that is enumerated, and correct subclasses.

Each entry of FAULTY makes an estimator whose draw, training or exact table is wrong, so that a
proof of what it inherits would be a proof of code that does not run. Those of CORRECT look odd, and
keep their exact numbers.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradlab.categorical import draw_classes, draw_one_hot, one_hot, probabilities
from gradlab.estimators import (
    ZGR,
    Estimator,
    GumbelRao,
    GumbelSoftmaxST,
    LeaveOneOut,
    MovingAverage,
    Reinforce,
    ReinMaxCV,
    ReinMaxRao,
    SampledValueEstimator,
    SampleOnlyEstimator,
    StraightThrough,
)
from gradlab.estimators.pathwise import with_product
from gradlab.loss import evaluate
from gradlab.problems import problem, regime

__all__ = ["CORRECT", "FAULTY", "Correct", "Fault"]

DRAW, TRAINING, BOTH, TABLE = "draw", "training", "both", "table"


@dataclass(frozen=True)
class Fault:
    """One fault: `make` of an estimator, and what of it is wrong where it is met.

    `wrong`: "draw", "training", "both", or "table" where only what the engine would read is wrong.
    `everywhere`: not only at these N, C, dtype and shift of the logits.
    """

    name: str
    make: Callable[[], Estimator]
    wrong: str
    N: int = 2
    C: int = 3
    dtype: torch.dtype = torch.float64
    shift: float = 0.0
    rare: bool = False
    patch: Callable[[], Any] = nullcontext

    @property
    def f(self):
        return problem("quadratic", self.N, self.C, 3)

    @property
    def logits(self) -> Tensor:
        logits = regime("moderate", self.N, self.C, 3)
        if self.rare:
            logits[0] = torch.tensor([0.02, 0.45, 0.53]).log()
        return (logits + self.shift).to(self.dtype)

    @property
    def everywhere(self) -> bool:
        known = (self.N, self.C, self.shift, self.rare) == (2, 3, 0.0, False)
        return known and self.dtype == torch.float64


def variant(base: type, *before: type, fields: dict[str, Any] | None = None, **members: Any) -> Any:
    """Return an object of a frozen dataclass below `base`, with these members."""
    fields = fields or {}
    annotations = {name: type(value) for name, value in fields.items()}
    cls = type("Mine", (*before, base), {"__annotations__": annotations, **fields, **members})
    return dataclass(frozen=True, repr=False)(cls)()


def scaled(factor: float, of: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **given: factor * of(*args, **given)


def scaled_estimate(factor: float, of: Callable[..., Any]) -> Callable[..., Any]:
    def estimate(self, *args):
        value, g = of(self, *args)
        return value, factor * g

    return estimate


# ---- what runs is overridden --------------------------------------------------------------------


def other_tuples(self, logits, n, generator):
    classes = draw_classes(probabilities(1.1 * logits), generator, self.samples * n)
    return classes.unflatten(0, (self.samples, n))


def leaking(self, logits, generator=None, x=None):
    return ZGR.sample(self, logits, generator, x) + 0.1 * (logits - logits.detach())


def of_other_logits(self, logits):
    return 1.5 * logits


def wrong_tables(self, p):
    first, second = ZGR.conditional_jacobians(self, p)
    return 0.9 * first, 0.81 * second


def wrong_law(self, logits, classes):
    weight = LeaveOneOut.tuple_probabilities(self, logits, classes) * (1.0 + classes[0, :, 0])
    return weight / weight.sum()


def softer(self, p, x, k, generator):
    for y in GumbelRao.relaxed(self, p, x, k, generator):
        yield y.square() / y.square().sum(-1, keepdim=True)


def uniform_given(self, logits, generator, n, x):
    p, given = GumbelSoftmaxST.given(self, logits, generator, n, x)
    return p, given if x is not None else draw_one_hot(torch.ones_like(given) / 3, generator)


def louder_noise(self, p, x, generator):
    for y in ReinMaxRao._noise(self, p, x, generator):
        yield y.square() / y.square().sum(-1, keepdim=True)


def ignoring_x(self, logits, generator=None, x=None):
    return ZGR.sample(self, logits, generator)


def own_sample(wrong: Callable[[Tensor], bool]) -> Callable[..., Tensor]:
    """Return the sample of ZGR, whose product is 1.5 times too large where the logits are so."""

    def sample(self, logits, generator=None, x=None):
        p = probabilities(logits)
        x = draw_one_hot(p, generator) if x is None else x.to(p.dtype)
        factor = 1.5 if wrong(logits) else 1.0
        return with_product(x, logits, lambda v, p, x: factor * self.pullback(p, x, v), p, x)

    return sample


def detached_value(self, f, logits, generator=None):
    value, g = self.estimate(f, logits, 1, generator)
    return value[0].detach() + ((logits - logits.detach()) * g[0]).sum((-2, -1))


def of_ema(self, f, logits, n, generator=None):
    return StraightThrough().draw(f, logits, n, generator)


class NotItsDraw:
    """A mixin before the class."""

    def draw(self, *args, **given):
        return 0.5 * super().draw(*args, **given)


class Behind:
    """Attributes that are looked up elsewhere."""

    def __getattribute__(self, name):
        found = object.__getattribute__(self, name)
        return scaled(0.5, found) if name == "draw" else found


class Descriptor:
    """A descriptor in the place of a method."""

    def __get__(self, instance, owner=None):
        return scaled(0.5, functools.partial(LeaveOneOut.draw, instance))


def with_attribute(estimator: Estimator, name: str, value: Any) -> Estimator:
    object.__setattr__(estimator, name, value)
    return estimator


@contextmanager
def replaced(cls: type, name: str, value: Any) -> Iterator[None]:
    """Put something into a class of gradlab's for a while."""
    before = vars(cls)[name]
    setattr(cls, name, value)
    try:
        yield
    finally:
        setattr(cls, name, before)


def wrapped(of: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that looks like the one that it replaces."""

    @functools.wraps(of)
    def method(*args, **given):
        value, g = of(*args, **given)
        return value, 0.5 * g

    return method


def tau_by_mode(self):
    return 2.0 if torch.is_grad_enabled() else 0.1


def rescaling_refusal(self, logits):
    if not logits.requires_grad:
        logits.mul_(1.5)


# ---- what is enumerated is not a function of one sample ----------------------------------------


def product(change: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return ZGR's pullback with p, x or v changed before."""

    def pullback(self, p, x, v):
        return ZGR.pullback(self, p, x, change(p, x, v))

    return pullback


def clipped(p, x, v):
    return v.clamp(-0.3, 0.3)


def normalized(p, x, v):
    return v / torch.linalg.vector_norm(v, dim=-1, keepdim=True).clamp_min(1e-9)


def dropped(p, x, v):
    return v * (torch.rand(()) < 0.7)


def hidden_generator() -> Callable[..., Tensor]:
    source = torch.Generator().manual_seed(1)
    return lambda p, x, v: v * (torch.rand((), generator=source) < 0.8)


def batch_centred(p, x, v):
    return v if v.ndim < 3 or len(v) < 2 else v - v.mean(0)


def of_many(p, x, v):
    return 1.5 * v if v.ndim == 3 and len(v) >= 200 else v


def of_neighbours(p, x, v):
    together = x[..., :1, 1:2] * x[..., 1:2, 2:3] if x.shape[-2] > 1 else 0.0
    return v * (1 + together)


def counted() -> Callable[..., Tensor]:
    calls: list[int] = []

    def change(p, x, v):
        calls.append(1)
        return v if len(calls) < 400 else 1.5 * v

    return change


def where_wide(p, x, v):
    return 1.5 * v if p.shape[-1] > 3 else v


def where_alone(p, x, v):
    return 1.5 * v if p.shape[-2] == 1 else v


def where_coarse(p, x, v):
    return 1.5 * v if p.dtype == torch.float32 else v


def where_large(p, x, v):
    return torch.where(v.abs().amax(-1, keepdim=True) > 1.0, 1.5 * v, v)


def zgr(change: Callable[..., Tensor]) -> Callable[[], Estimator]:
    return lambda: variant(ZGR, pullback=product(change))


def estimate(change: Callable[..., Any]) -> Callable[[], Estimator]:
    """Return RF(m=2) whose classes or value and estimate are changed."""

    def estimate_at(self, f, logits, classes):
        return change(
            lambda classes: LeaveOneOut.estimate_at(self, f, logits, classes), logits, classes
        )

    return lambda: variant(LeaveOneOut, estimate_at=estimate_at)


def of_other_tuples(of, logits, classes):
    value, g = of(classes)
    return value, g + 0.3 * g.roll(1, 0)


def half_value(of, logits, classes):
    value, g = of(classes)
    return value.detach() + 0.5 * (value - value.detach()), g


def no_value(of, logits, classes):
    value, g = of(classes)
    return value.detach(), g


def sized(wrong: Callable[[Tensor, Tensor], Any], factor: float = 1.5) -> Callable[..., Any]:
    def change(of, logits, classes):
        value, g = of(classes)
        bad = torch.as_tensor(wrong(logits, classes))
        return value, torch.where(
            bad.reshape(*bad.shape, *[1] * (g.ndim - bad.ndim)), factor * g, g
        )

    return change


def clamped(self, f, logits, classes):
    return Reinforce.estimate_at(self, f, logits.clamp(max=25.0), classes)


def clamped_draws(self, f, logits, n, generator=None):
    return LeaveOneOut.draw(self, f, logits.clamp(max=25.0), n, generator)


def clamped_pullback_sample(self, logits, generator=None, x=None):
    return ZGR.sample(self, logits.clamp(max=25.0), generator, x)


F32 = torch.float32

FAULTY = [
    # Those of the issue.
    Fault("draw times .9", lambda: variant(LeaveOneOut, draw=scaled(0.9, LeaveOneOut.draw)), DRAW),
    Fault(
        "estimate times -1",
        lambda: variant(LeaveOneOut, estimate=scaled_estimate(-1.0, LeaveOneOut.estimate)),
        BOTH,
    ),
    Fault("tuples of other logits", lambda: variant(LeaveOneOut, draw_tuples=other_tuples), BOTH),
    Fault(
        "surrogate times .5",
        lambda: variant(LeaveOneOut, surrogate=scaled(0.5, LeaveOneOut.surrogate)),
        TRAINING,
    ),
    Fault("leaking sample", lambda: variant(ZGR, sample=leaking), TRAINING),
    Fault("tables times .9", lambda: variant(ZGR, conditional_jacobians=wrong_tables), TABLE),
    Fault(
        "variance / 10",
        lambda: variant(
            LeaveOneOut, variance_given_moments=scaled(0.1, LeaveOneOut.variance_given_moments)
        ),
        TABLE,
    ),
    Fault("accepted rescales", lambda: variant(ZGR, accepted=of_other_logits), BOTH),
    # Methods of families.
    Fault("law of tuples", lambda: variant(LeaveOneOut, tuple_probabilities=wrong_law), TABLE),
    Fault("relaxed", lambda: variant(GumbelRao, relaxed=softer), TABLE),
    Fault("given", lambda: variant(GumbelSoftmaxST, given=uniform_given), TABLE),
    Fault("product", lambda: variant(ReinMaxCV, product=scaled(3.0, ReinMaxCV.product)), TABLE),
    Fault("mean product", lambda: variant(ReinMaxRao, _noise=louder_noise), TABLE),
    Fault(
        "_pullback", lambda: variant(ReinMaxCV, _pullback=scaled(0.8, ReinMaxCV._pullback)), BOTH
    ),
    Fault("attach", lambda: variant(GumbelRao, attach=scaled(2.0, GumbelRao.attach)), TABLE),
    Fault("x is ignored", lambda: variant(ZGR, sample=ignoring_x), TABLE),
    Fault("draw of another rule", lambda: variant(ZGR, draw=of_ema), DRAW),
    Fault(
        "backward of another rule",
        lambda: variant(ZGR, sample=lambda self, *a, **k: StraightThrough().sample(*a, **k)),
        TRAINING,
    ),
    Fault("backward turned", lambda: variant(ZGR, surrogate=scaled(-1.0, ZGR.surrogate)), TRAINING),
    # Ways of replacing.
    Fault("mixin before", lambda: variant(LeaveOneOut, NotItsDraw), DRAW),
    Fault("__getattribute__", lambda: variant(LeaveOneOut, Behind), DRAW),
    Fault("descriptor", lambda: variant(LeaveOneOut, draw=Descriptor()), DRAW),
    Fault(
        "property",
        lambda: variant(
            LeaveOneOut, draw=property(lambda self: scaled(0.5, super(type(self), self).draw))
        ),
        DRAW,
    ),
    Fault(
        "attribute of the object",
        lambda: with_attribute(LeaveOneOut(), "draw", scaled(0.5, LeaveOneOut().draw)),
        DRAW,
    ),
    Fault(
        "patched class",
        LeaveOneOut,
        BOTH,
        patch=lambda: replaced(
            LeaveOneOut, "estimate_at", scaled_estimate(0.5, LeaveOneOut.estimate_at)
        ),
    ),
    Fault(
        "patched and wrapped",
        LeaveOneOut,
        BOTH,
        patch=lambda: replaced(LeaveOneOut, "estimate_at", wrapped(LeaveOneOut.estimate_at)),
    ),
    Fault(
        "patched base",
        ZGR,
        DRAW,
        patch=lambda: replaced(SampleOnlyEstimator, "draw", scaled(0.5, SampleOnlyEstimator.draw)),
    ),
    Fault(
        "tau by grad mode",
        lambda: variant(ReinMaxRao, tau=property(tau_by_mode, lambda self, value: None)),
        TABLE,
    ),
    Fault("k is a property", lambda: variant(GumbelSoftmaxST, k=property(lambda self: 7)), TABLE),
    Fault("refusal rescales", lambda: variant(LeaveOneOut, refusal=rescaling_refusal), DRAW),
    # No function of one sample.
    Fault("clips v", zgr(clipped), BOTH),
    Fault("normalizes v", zgr(normalized), BOTH),
    Fault("large v", zgr(where_large), BOTH),
    Fault("random", zgr(dropped), BOTH),
    Fault("generator of its own", lambda: zgr(hidden_generator())(), BOTH),
    Fault("centred in the batch", zgr(batch_centred), BOTH),
    Fault("many at once", zgr(of_many), BOTH),
    Fault("other variables", zgr(of_neighbours), BOTH),
    Fault("counts its calls", lambda: zgr(counted())(), BOTH),
    Fault("other tuples", estimate(of_other_tuples), BOTH),
    # Parameters of f.
    Fault("value detached", lambda: variant(LeaveOneOut, surrogate=detached_value), TRAINING),
    Fault("no value", estimate(no_value), TRAINING),
    Fault("half of the value", estimate(half_value), TRAINING),
    # At some inputs only.
    Fault(
        "in batch",
        lambda: variant(ZGR, sample=own_sample(lambda logits: logits.ndim > 2)),
        TRAINING,
    ),
    Fault(
        "in float32",
        lambda: variant(ZGR, sample=own_sample(lambda logits: logits.dtype == F32)),
        TRAINING,
        dtype=F32,
    ),
    Fault("pullback in float32", zgr(where_coarse), BOTH, dtype=F32),
    Fault(
        "estimate in float32",
        estimate(sized(lambda logits, c: logits.dtype == F32)),
        BOTH,
        dtype=F32,
    ),
    Fault("recorded estimate", estimate(sized(lambda logits, c: logits.requires_grad)), TRAINING),
    Fault("batch of estimates", estimate(sized(lambda logits, c: logits.ndim > 2)), TRAINING),
    Fault("C > 3", zgr(where_wide), BOTH, C=4),
    Fault("N = 1", zgr(where_alone), BOTH, N=1),
    Fault(
        "rare class", estimate(sized(lambda logits, c: (c[0] == 0)[..., 0], 8.0)), BOTH, rare=True
    ),
    Fault("shifted", lambda: variant(Reinforce, estimate_at=clamped), BOTH, shift=25.0),
    Fault("shifted draws", lambda: variant(LeaveOneOut, draw=clamped_draws), DRAW, shift=25.0),
    Fault(
        "shifted sample", lambda: variant(ZGR, sample=clamped_pullback_sample), TRAINING, shift=25.0
    ),
]


# ---- correct subclasses -------------------------------------------------------------------------


@dataclass(frozen=True)
class Correct:
    """A correct subclass, on a quadratic on which it is unbiased."""

    name: str
    make: Callable[[], Estimator]


@dataclass(frozen=True, repr=False)
class OwnRule(SampleOnlyEstimator):
    """ZGR by its matrix."""

    name = "OWN"
    order = 2
    reference = "none"

    def pullback(self, p, x, v):
        return (
            self._half(p, v) + x * 0.5 * ((x - p) * v).sum(-1, keepdim=True) + self._rest(p, x, v)
        )

    def _half(self, p, v):
        return 0.5 * p * v

    def _rest(self, p, x, v):
        return -0.5 * p * (x * v).sum(-1, keepdim=True)


@dataclass(frozen=True, repr=False)
class Pair(SampledValueEstimator):
    """RLOO of two samples by hand, with fields of its own."""

    scale: float = 2.0
    label: str = dataclasses.field(default="pair", repr=False)

    name = "PAIR"
    reference = "none"
    samples = 2

    def estimate_at(self, f, logits, classes):
        p = probabilities(logits.detach())
        a, b = (one_hot(part, p).to(logits.dtype) for part in classes)
        first, second = evaluate(f, a), evaluate(f, b)
        weight = ((first - second) / self.scale).detach()[..., None, None]
        return (first + second) / 2, weight * (a - b)


class Between(ZGR):
    """A class between gradlab's and that of the user."""

    def helper(self):
        return 1.0


class Documented(Between):
    """Another docstring, and nothing else."""


class Slotted(LeaveOneOut):
    """Slots of its own."""

    __slots__ = ()


class Helpers:
    """A mixin with methods that no estimator has."""

    def plot(self):
        return None

    def product(self, v, chunks):
        raise NotImplementedError("nobody calls me: ZGR has no product")


def updated(self, values):
    return MovingAverage.updated(self, values)


CORRECT = [
    Correct("own pullback", OwnRule),
    Correct("own estimate_at", Pair),
    Correct("fewer calls", lambda: variant(ZGR, calls=lambda self, classes, variables=1: 3)),
    Correct("name and order", lambda: variant(ZGR, name="MINE", order=1, reference="me")),
    Correct("order as a property", lambda: variant(ZGR, order=property(lambda self: 2))),
    Correct("refusal", lambda: variant(ZGR, refusal=lambda self, logits: None)),
    Correct("text", lambda: variant(LeaveOneOut, text=lambda self, *, without=None: "my own")),
    Correct("__str__", lambda: variant(LeaveOneOut, __str__=lambda self: "mine")),
    Correct("docstring", Documented),
    Correct("class between", Between),
    Correct("slots", Slotted),
    Correct("mixin of helpers", lambda: variant(ZGR, Helpers)),
    Correct("helper named as of others", lambda: variant(LeaveOneOut, relaxed=lambda self: 0)),
    Correct("more fields", lambda: variant(LeaveOneOut, fields={"note": "x", "weight": 1.0})),
    Correct("samples as a field", lambda: variant(Pair, fields={"samples": 2})),
    Correct("post init", lambda: variant(LeaveOneOut, __post_init__=lambda self: None)),
    Correct(
        "updated", lambda: variant(MovingAverage, updated=updated).updated(torch.ones(2).double())
    ),
    Correct("fit", lambda: variant(Reinforce, fit=lambda self, *a, **k: self).fit()),
    Correct(
        "super",
        lambda: variant(ZGR, pullback=lambda self, p, x, v: ZGR.pullback(self, p, x, v) + 0 * p),
    ),
    Correct("attribute of the object", lambda: with_attribute(ZGR(), "note", "mine")),
    Correct("supports", lambda: variant(ZGR, supports=lambda self, f, logits: None)),
]
