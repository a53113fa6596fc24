"""Is what is enumerated the code that runs? An exact number of an estimator holds only if it is.

The engine enumerates what a family writes: a `pullback`, or `estimate_at` samples. Where a class
overrides anything else that runs, the enumeration says nothing about it, and draws must decide.
"""

from functools import cached_property, lru_cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from gradlab.categorical import draw_one_hot
from gradlab.estimators import (
    ESTIMATORS,
    Estimator,
    SampledValueEstimator,
    SampleOnlyEstimator,
)
from gradlab.exact.tuples import NotExactError
from gradlab.loss import Loss

__all__ = [
    "check_estimate",
    "check_mechanism",
    "check_product",
    "check_pullback",
    "is_shipped",
    "overrides",
]

# What a class may write without changing what a draw is.
_DECLARED = {
    *("name", "order", "reference", "needs_gradient", "calls", "coefficients", "refusal"),
    *("supports", "text", "fit", "updated"),
}
# What the engine puts to every class of a variable, or to every tuple of samples.
_ENUMERATED: dict[Any, set[str]] = {
    SampleOnlyEstimator: {"pullback"},
    SampledValueEstimator: {"estimate_at", "samples"},
}
# Python's own, as of a dataclass, that cannot change a draw.
_HARMLESS = {
    *("__abstractmethods__", "__annotations__", "__dataclass_fields__", "__dataclass_params__"),
    *("__delattr__", "__dict__", "__doc__", "__eq__", "__firstlineno__", "__hash__", "__init__"),
    *("__match_args__", "__module__", "__orig_bases__", "__parameters__", "__post_init__"),
    *("__qualname__", "__replace__", "__repr__", "__setattr__", "__slots__", "__str__"),
    *("__static_attributes__", "__type_params__", "__weakref__", "_abc_impl"),
    *("__annotate__", "__annotate_func__", "__annotations_cache__", "__classcell__"),
}
_SAME = 1e-9


@lru_cache(maxsize=1)
def _shipped() -> frozenset[type]:
    """Return the classes of gradlab's estimators, with their bases."""
    return frozenset(base for cls in ESTIMATORS.values() for base in cls.__mro__)


@lru_cache(maxsize=1)
def _running() -> frozenset[str]:
    """Return the names of methods and properties of gradlab's classes."""
    code = (FunctionType, property, cached_property, classmethod, staticmethod)
    return frozenset(
        name
        for base in _shipped()
        if base.__module__.startswith("gradlab.")
        for name, value in vars(base).items()
        if isinstance(value, code) and not name.startswith("__")
    )


def is_shipped(estimator: Estimator) -> bool:
    """Return whether an estimator is one of gradlab's, with nothing replaced in it."""
    return not _replaced(estimator, set())


def overrides(estimator: Estimator) -> list[str]:
    """Return what runs in a draw of this estimator but is not enumerated, such as `Mine.draw`."""
    allowed = {
        name for base, names in _ENUMERATED.items() if isinstance(estimator, base) for name in names
    }
    return _replaced(estimator, allowed)


def _replaced(estimator: Estimator, allowed: set[str]) -> list[str]:
    """Return the names below gradlab's classes that take the place of what these classes have."""
    found = [f"the {name} of this object" for name in vars(estimator) if name in _running()]
    for cls in type(estimator).__mro__:
        if cls in _shipped():
            found += [f"{cls.__name__}.{name}" for name in _patched(cls)]
            continue
        for name in vars(cls):
            # What no class above has is reached only through what is overridden, or enumerated.
            runs = name in _running() or (name.startswith("__") and name not in _HARMLESS)
            if runs and name not in _DECLARED | allowed:
                found.append(f"{cls.__name__}.{name}")
    return found


def _patched(cls: type) -> list[str]:
    """Return the functions of a class of gradlab's that were put there from elsewhere."""
    if not cls.__module__.startswith("gradlab."):
        return []
    functions = (
        (name, value) for name, value in vars(cls).items() if isinstance(value, FunctionType)
    )
    return [
        name
        for name, value in functions
        if not name.startswith("__") and value.__module__ != cls.__module__
    ]


def check_mechanism(estimator: Estimator) -> None:
    """Raise NotExactError if more runs than what is enumerated."""
    found = overrides(estimator)
    if found:
        raise NotExactError(
            f"{estimator}: {', '.join(found[:3])} replaces what the exact engine enumerates, so "
            "that its formula is not shown to be what runs; draws decide instead"
        )


def check_product(estimator: SampleOnlyEstimator, p: Tensor, jacobian: Tensor) -> None:
    """Raise NotExactError unless a written `pullback` is the matrices [N, k, C, C] times v.

    It is asked at several x at once, alone and again, with the layout that draws have.
    """
    if is_shipped(estimator):
        return
    generator = torch.Generator().manual_seed(0)
    x = draw_one_hot(p, generator, 4)
    v = torch.randn(x.shape, generator=generator, dtype=p.dtype)
    matrices = jacobian[torch.arange(len(p)), x.argmax(-1)]
    wanted = (matrices @ v.unsqueeze(-1)).squeeze(-1)
    # Of another size too: a product that clips or normalizes v is not linear.
    for size in (1.0, 1e3):
        got = estimator.pullback(p, x, size * v)
        alone = torch.cat(
            [estimator.pullback(p, x[i : i + 1], size * v[i : i + 1]) for i in range(4)]
        )
        for what, found in (("", got), (" of one draw alone", alone)):
            if not _close(found, size * wanted):
                raise NotExactError(
                    f"the product of {estimator}{what} is not a fixed matrix for each class of a "
                    "variable (is it random, not linear in v, or one of the whole batch?); draws "
                    "decide instead"
                )


def check_pullback(estimator: SampleOnlyEstimator, p: Tensor, x: Tensor) -> None:
    """Raise NotExactError unless a written `pullback` is a function of one x and v.

    It is asked at several x [n, N, C] at once, again, and at one alone.
    """
    if is_shipped(estimator):
        return
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=p.dtype)
    several, again = estimator.pullback(p, x, v), estimator.pullback(p, x, v)
    alone = torch.cat(
        [estimator.pullback(p, a, b) for a, b in zip(x.split(1), v.split(1), strict=True)]
    )
    if not (_close(again, several) and _close(alone, several)):
        raise NotExactError(
            f"the product of {estimator} is random, or depends on the other draws of the call; "
            "draws decide instead"
        )


def check_estimate(
    estimator: SampledValueEstimator, f: Loss, logits: Tensor, classes: Tensor
) -> None:
    """Raise NotExactError unless a written `estimate_at` is a function of one tuple of samples.

    It is asked at several tuples [m, n, N] at once, again, and at one alone.
    """
    if is_shipped(estimator):
        return
    several = estimator.estimate_at(f, logits, classes)[1]
    again = estimator.estimate_at(f, logits, classes)[1]
    if not _close(several, again):
        raise NotExactError(
            f"{estimator} draws more than samples of x, or keeps something between calls; draws "
            "decide instead"
        )
    ones = [
        estimator.estimate_at(f, logits, classes[:, i : i + 1])[1] for i in range(classes.shape[1])
    ]
    if not _close(several, torch.cat(ones)):
        raise NotExactError(
            f"the estimate of {estimator} from its samples depends on the other draws of the call; "
            "draws decide instead"
        )


def _close(found: Any, wanted: Tensor) -> bool:
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        return False
    return bool((found - wanted).abs().max() <= _SAME * (1e-300 + wanted.abs().max()))
