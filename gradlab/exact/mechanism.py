"""Is what is enumerated the code that runs? An exact number of an estimator holds only if it is.

The engine enumerates what a family writes: a `pullback`, or `estimate_at` samples. Where a class
overrides anything else that runs, the enumeration says nothing about it, and draws must decide.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any

import torch
from torch import Tensor

from gradlab.estimators import (
    ESTIMATORS,
    OF_STRUCTURES,
    Estimator,
    SampledValueEstimator,
    SampleOnlyEstimator,
)
from gradlab.exact.tuples import NotExactError
from gradlab.loss import Loss
from gradlab.loss.memory import changed, remembered
from gradlab.reproducible import global_states

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
    *("name", "order", "reference", "needs_gradient", "calls", "refusal"),
    *("supports", "text", "fit", "updated", "family", "aliases", "temperature_field", "with_"),
    *("fitted_fields", "learned_fields", "running_field", "fit_steps", "footprint"),
    *("written_fields", "temperature_value", "at_temperature", "structure_refusal"),
    *("of_structures", "laws", "where", "own_laws"),
}
# What the engine puts to every class of a variable, or to every tuple of samples.
_ENUMERATED: dict[Any, set[str]] = {
    SampleOnlyEstimator: {"pullback"},
    SampledValueEstimator: {"estimate_at", "samples"},
}
# What code of gradlab's asks an object for without any class declaring it.
_ASKED = {"k"}
# Python's own, as of a dataclass, that cannot change a draw.
_HARMLESS = {
    *("__abstractmethods__", "__annotations__", "__dataclass_fields__", "__dataclass_params__"),
    *("__delattr__", "__dict__", "__doc__", "__eq__", "__firstlineno__", "__hash__", "__init__"),
    *("__match_args__", "__module__", "__orig_bases__", "__parameters__", "__post_init__"),
    *("__qualname__", "__replace__", "__repr__", "__setattr__", "__slots__", "__str__"),
    *("__static_attributes__", "__type_params__", "__weakref__", "_abc_impl"),
    *("__annotate__", "__annotate_func__", "__annotations_cache__", "__classcell__"),
    *("__lt__", "__le__", "__gt__", "__ge__", "__getstate__", "__setstate__"),
    "__slotnames__",  # put there by copying and pickling
}
_CODE = (FunctionType, property, cached_property, classmethod, staticmethod)
# Modules whose functions may stand in gradlab's classes: its own, and what decorates them.
_DECORATING = {"gradlab", "jaxtyping", "beartype", "torch"}

# gradlab's classes, with their bases, as they were when this module was imported.
_SHIPPED: dict[type, dict[str, Any]] = {
    base: dict(vars(base)) for cls in (ESTIMATORS | OF_STRUCTURES).values() for base in cls.__mro__
}


def is_shipped(estimator: Estimator) -> bool:
    """Return whether an estimator is one of gradlab's, with nothing replaced in it.

    Example:
        >>> from gradlab.estimators import ZGR
        >>> is_shipped(ZGR())
        True
    """
    # A refusal is given the logits of every draw.
    return not _replaced(estimator, _DECLARED - {"refusal"})


def overrides(estimator: Estimator) -> list[str]:
    """Return what runs in a draw of this estimator but is not enumerated, such as `Mine.draw`.

    Example:
        >>> from gradlab.estimators import ZGR
        >>> class Mine(ZGR):
        ...     def draw(self, f, logits, n, generator=None):
        ...         return super().draw(f, logits, n, generator) / 2
        >>> overrides(Mine())
        ['Mine.draw']
    """
    allowed = {
        name for base, names in _ENUMERATED.items() if isinstance(estimator, base) for name in names
    }
    return _replaced(estimator, allowed | _DECLARED)


def _replaced(estimator: Estimator, allowed: set[str]) -> list[str]:
    """Return the names below gradlab's classes that take the place of what these classes have."""
    order = type(estimator).__mro__
    code, values = _names([cls for cls in order if cls in _SHIPPED])
    found = []
    for cls in order:
        if cls in _SHIPPED:
            found += [f"{cls.__name__}.{name}" for name in _patched(cls)]
            continue
        # What no class above has is reached only through what is overridden, or enumerated.
        found += [
            f"{cls.__name__}.{name}"
            for name, value in vars(cls).items()
            if name not in allowed
            and (name in code or (name in values and _computes(value)) or _is_odd(name, value))
        ]
    # A class that writes its own __dict__ is odd already.
    found += [
        f"the {name} of this object"
        for name in vars(estimator)
        if name in code and name not in allowed
    ]
    return found


def _names(classes: list[type]) -> tuple[set[str], set[str]]:
    """Return the names of methods and properties of some classes, and of their plain values."""
    code: set[str] = set()
    values = set(_ASKED)
    for cls in classes:
        if not cls.__module__.startswith("gradlab."):
            continue
        for name, value in _SHIPPED[cls].items():
            if not name.startswith("__"):
                (code if isinstance(value, _CODE) else values).add(name)
        values |= set(_SHIPPED[cls].get("__annotations__", {}))
    return code, values


def _computes(value: object) -> bool:
    """Return whether a class attribute is code that gives the value, such as a property."""
    return hasattr(type(value), "__get__") and not isinstance(value, MemberDescriptorType)


def _is_odd(name: str, value: object) -> bool:
    """Return whether this is one of Python's own methods by which any attribute may be replaced."""
    if name == "__dict__":
        return not isinstance(value, GetSetDescriptorType)
    return name.startswith("__") and name.endswith("__") and name not in _HARMLESS


def _patched(cls: type) -> list[str]:
    """Return what was put into a class of gradlab's from elsewhere, or taken from it."""
    if not cls.__module__.startswith("gradlab."):
        return []
    before, now = _SHIPPED[cls], vars(cls)
    found = []
    for name in before.keys() | now.keys():
        value = now.get(name)
        if name in _HARMLESS or name.startswith("_abc_"):
            continue
        # Python keeps notes of its own in a class, which are not code.
        if name.startswith("__") and not (callable(value) or callable(before.get(name))):
            continue
        if name not in before or name not in now or before[name] is not value:
            # A class that declares something else draws as before.
            plain = not isinstance(value, _CODE) and not _computes(value)
            if not (plain and name in _DECLARED):
                found.append(name)
        elif isinstance(value, FunctionType) and not name.startswith("__"):
            root = str(value.__globals__.get("__name__")).partition(".")[0]
            if root not in _DECORATING:
                found.append(name)
    return sorted(found)


def check_mechanism(estimator: Estimator) -> None:
    """Raise NotExactError if more runs than what is enumerated."""
    found = overrides(estimator)
    if found:
        raise NotExactError(
            f"{estimator}: {', '.join(found[:3])} replaces what the exact engine enumerates, so "
            "that its formula is not shown to be what runs; draws decide instead"
        )


def check_product(
    estimator: SampleOnlyEstimator,
    p: Tensor,
    jacobian: Tensor,
    x: Tensor,
    v: Tensor,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Raise NotExactError unless a written `pullback` is the matrices [N, k, C, C] times v.

    It is asked at x and v [n, N, C] in each layout that draws and training have, at several sizes
    of v, in float64 and in `dtype`.
    """
    if is_shipped(estimator):
        return
    before = remembered(estimator.pullback)
    matrices = jacobian[torch.arange(len(p)), x.argmax(-1)]
    drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=p.dtype)
    # Of other sizes too: a product that clips or normalizes v is not linear.
    for cotangent in (v, *(size * drawn for size in _SIZES)):
        wanted = (matrices @ cotangent.unsqueeze(-1)).squeeze(-1)
        size = float((matrices.abs() @ cotangent.abs().unsqueeze(-1)).max())
        for what, found, eps in _products(estimator, p, x, cotangent, dtype):
            if not _close(found, wanted, eps * size):
                raise NotExactError(
                    f"the product of {estimator}{what} is not a fixed matrix for each class of a "
                    "variable (is it random, not linear in v, or one of the whole batch?); draws "
                    "decide instead"
                )
    _check_unchanged(estimator, before, estimator.pullback)


def _check_unchanged(estimator: Estimator, before: dict[str, str], code: object) -> None:
    """Raise NotExactError if calls have changed anything that the code remembers."""
    names = changed(before, remembered(code))
    if names:
        raise NotExactError(
            f"{estimator} keeps something between calls ({', '.join(names[:3])}); draws decide "
            "instead"
        )


def check_pullback(
    estimator: SampleOnlyEstimator, p: Tensor, x: Tensor, dtype: torch.dtype
) -> None:
    """Raise NotExactError unless a written `pullback` is a function of one x and v.

    It is asked at x [n, N, C] in each layout that draws and training have.
    """
    if is_shipped(estimator):
        return
    before = remembered(estimator.pullback)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=p.dtype)
    wanted = estimator.pullback(p, x, v)
    size = float(wanted.abs().max())
    for _, found, eps in _products(estimator, p, x, v, dtype):
        if not _close(found, wanted, eps * size):
            raise NotExactError(
                f"the product of {estimator} is random, or depends on the other draws of the call; "
                "draws decide instead"
            )
    _check_unchanged(estimator, before, estimator.pullback)


# Sizes of v, calls that are repeated, points that are asked alone.
_SIZES = (1e-6, 1e-3, 1.0, 1e3, 1e6)
_REPEATED, _ALONE = 4, 32
# Points in a large call, and numbers that it may hold.
_LARGE, _ELEMENTS = 2**12, 2**20
_SAME, _ULPS = 1e-9, 2**10


def _products(
    estimator: SampleOnlyEstimator, p: Tensor, x: Tensor, v: Tensor, dtype: torch.dtype
) -> Iterator[tuple[str, Any, float]]:
    """Yield (in what layout, the products at all of x, their accuracy), all to be the same."""

    def product(p: Tensor, x: Tensor, v: Tensor) -> Any:
        return _unrandom(estimator, lambda: estimator.pullback(p, x, v))

    with torch.no_grad():
        for _ in range(_REPEATED):
            yield "", product(p, x, v), _SAME
        several = p.expand_as(x).contiguous()
        yield " in a batch of logits", product(several, x, v), _SAME
        times = max(1, min(_LARGE // len(x), _ELEMENTS // max(x.numel(), 1)))
        many = product(p, x.repeat(times, 1, 1), v.repeat(times, 1, 1))
        yield f" of {times * len(x)} draws", _first(many, len(x)), _SAME
        yield " in another order", _flipped(product(several, x.flip(0), v.flip(0))), _SAME
        few = min(len(x), _ALONE)
        ones = [product(p, x[i : i + 1], v[i : i + 1]) for i in range(few)]
        yield " of one draw alone", _with_rest(ones, product, p, x, v, few), _SAME
        ones = [product(p, x[i], v[i]).unsqueeze(0) for i in range(few)]
        yield " of one sample alone", _with_rest(ones, product, p, x, v, few), _SAME
        if dtype != p.dtype:
            coarse = product(p.to(dtype), x.to(dtype), v.to(dtype))
            yield f" in {dtype}", coarse, _ULPS * torch.finfo(dtype).eps
    with torch.enable_grad():
        leaf = several.clone().requires_grad_()
        found = product(leaf, x, v)
        yield " where gradients are recorded", _detached(found), _SAME


def _with_rest(
    ones: list[Any], product: Callable[..., Any], p: Tensor, x: Tensor, v: Tensor, few: int
) -> Any:
    rest = [product(p, x[few:], v[few:])] if few < len(x) else []
    return torch.cat([*ones, *rest])


def _first(found: Any, n: int) -> Any:
    return found[:n] if isinstance(found, Tensor) else found


def _flipped(found: Any) -> Any:
    return found.flip(0) if isinstance(found, Tensor) else found


def _detached(found: Any) -> Any:
    return found.detach() if isinstance(found, Tensor) else found


def _unrandom(estimator: Estimator, call: Callable[[], Any]) -> Any:
    """Return what the call returns, unless it draws random numbers of a global generator."""
    before = global_states()
    with torch.random.fork_rng(devices=[]):
        found = call()
        if global_states() != before:
            raise NotExactError(
                f"{estimator} draws random numbers beside its samples, with a global generator; "
                "draws decide instead"
            )
    return found


def check_estimate(
    estimator: SampledValueEstimator,
    f: Loss,
    logits: Tensor,
    classes: Tensor,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Raise NotExactError unless a written `estimate_at` is a function of one tuple of samples.

    It is asked at several tuples [m, n, N] at once, again, in other layouts, as a training asks it,
    and at one alone, in float64 and in `dtype`.
    """
    if is_shipped(estimator):
        return

    def estimate(logits: Tensor, classes: Tensor) -> tuple[Any, Any]:
        return _unrandom(estimator, lambda: estimator.estimate_at(f, logits, classes))

    before = remembered(estimator.estimate_at)
    with torch.no_grad():
        value, several = estimate(logits, classes)
        size = float(several.abs().max())
        for _ in range(_REPEATED):
            if not _close(estimate(logits, classes)[1], several, _SAME * size):
                raise NotExactError(
                    f"{estimator} draws more than samples of x, or keeps something between calls; "
                    "draws decide instead"
                )
        few = min(classes.shape[1], _ALONE)
        parts = [*classes[:, :few].split(1, 1), classes[:, few:]]
        ones = torch.cat([estimate(logits, part)[1] for part in parts if part.shape[1]])
        flipped = estimate(logits, classes.flip(1))[1].flip(0)
        points = max(classes.shape[1], 1)
        times = max(1, min(_LARGE // points, _ELEMENTS // (classes.numel() * logits.shape[-1] + 1)))
        many = estimate(logits, classes.repeat(1, times, 1))[1][:points]
        if not all(_close(found, several, _SAME * size) for found in (ones, flipped, many)):
            raise NotExactError(
                f"the estimate of {estimator} from its samples depends on the other draws of the "
                "call; draws decide instead"
            )
    rows = logits.expand(classes.shape[1], *logits.shape).clone().requires_grad_()
    close = True
    try:
        with torch.enable_grad():
            trained = _detached(estimate(rows, classes.unsqueeze(1))[1])
    except NotExactError:
        raise
    except Exception:
        pass  # it takes no batch of logits: what trains fails, a draw does not
    else:
        close = _close(trained, several.unsqueeze(0), _SAME * size)
    if dtype != logits.dtype:
        # Values of f that nearly cancel keep the error of their own size.
        size = max(size, float(value.abs().max()))
        with torch.no_grad():
            coarse = estimate(logits.to(dtype), classes)[1]
        close &= _close(coarse, several, _ULPS * torch.finfo(dtype).eps * size)
    if not close:
        raise NotExactError(
            f"{estimator} estimates something else in a batch of logits, where gradients are "
            f"recorded, or in {dtype}; draws decide instead"
        )
    _check_unchanged(estimator, before, estimator.estimate_at)


def _close(found: Any, wanted: Tensor, allowed: float) -> bool:
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        return False
    return bool((found - wanted).abs().max() <= 1e-300 + allowed)
